//! Rows are read as they were written, cut anywhere; nothing that is fed panics.
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn formats() -> Vec<Options> {
    let csv = Options::of(Format::Csv);
    vec![
        Options::of(Format::Text),
        Options { delimiter: b'|', null: b"NULL".to_vec(), ..Options::of(Format::Text) },
        csv.clone(),
        Options { delimiter: b';', quote: b'\'', escape: b'\\', null: b"nil".to_vec(), ..csv.clone() },
        Options { force_quote: Forced::All, ..csv },
        Options::of(Format::Binary),
    ]
}

fn written(rows: &[Vec<Option<Vec<u8>>>], options: &Options) -> Vec<u8> {
    let mut out = BytesMut::new();
    if options.format == Format::Binary {
        out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02xy");
    }
    for row in rows {
        let writer = Writer::new(options, row.len());
        writer.start(&mut out);
        for (at, value) in row.iter().enumerate() {
            writer.field(at, value.as_deref().map_or(Written::Null, Written::Value), &mut out);
        }
        writer.end(&mut out);
    }
    if options.format == Format::Binary {
        out.put_i16(-1);
    }
    out.to_vec()
}

/// Feeds bytes in pieces of these sizes, again and again; gives the rows.
fn read(bytes: &[u8], pieces: &[usize], options: &Options) -> Result<Vec<Vec<Option<Vec<u8>>>>, Bad> {
    let mut reader = Reader::new(options, false);
    let (mut rows, mut rest) = (Vec::new(), bytes);
    for size in pieces.iter().cycle() {
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len().max(1)).min(rest.len()));
        rest = after;
        reader.feed(piece);
        while let Some(piece) = reader.piece(rest.is_empty())? {
            let Piece::Row(row, _) = piece else { continue };
            let found = fields(&row, options)?;
            let values = found.iter().enumerate().map(|(at, field)| match value(&row, field, at, options) {
                Value::Bytes(bytes) => Some(bytes.into_owned()),
                Value::Null | Value::Default => None,
            });
            rows.push(values.collect());
        }
        if rest.is_empty() {
            return Ok(rows);
        }
    }
    Ok(rows)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let awkward = prop_oneof![
        Just(b'\\'),
        Just(b'.'),
        Just(b'N'),
        Just(b'"'),
        Just(b'\''),
        Just(b'\n'),
        Just(b'\r'),
        Just(b'\t'),
        Just(b','),
        Just(b'|'),
        Just(b';'),
        Just(b'x'),
        Just(b'4'),
        Just(0x08),
        Just(0x0b),
        Just(0xc3),
        any::<u8>(),
    ];
    vec(awkward.prop_filter("text has no zero byte", |byte| *byte != 0), 0..12)
}

proptest! {
    #[test]
    fn rows_round_trip_cut_anywhere(
        width in 1usize..4,
        values in vec(proptest::option::weighted(0.8, bytes()), 0..24),
        pieces in vec(1usize..9, 1..6),
    ) {
        let rows: Vec<Vec<Option<Vec<u8>>>> = values.chunks_exact(width).map(<[_]>::to_vec).collect();
        for options in formats() {
            // What looks like NULL and needs no escape is NULL in text, as it is for Postgres.
            let is_plain = options.format == Format::Text && !options.null.contains(&b'\\');
            let is_null = |value: &Vec<u8>| is_plain && *value == options.null;
            let expected: Vec<Vec<_>> =
                rows.iter().map(|row| row.iter().map(|v| v.clone().filter(|v| !is_null(v))).collect()).collect();
            prop_assert_eq!(read(&written(&rows, &options), &pieces, &options), Ok(expected), "{:?}", options);
        }
    }

    #[test]
    fn cuts_change_nothing(data in bytes(), more in bytes(), pieces in vec(1usize..5, 1..6)) {
        let data = [data, more].concat();
        for options in formats() {
            prop_assert_eq!(read(&data, &pieces, &options), read(&data, &[data.len().max(1)], &options));
        }
    }

    #[test]
    fn binary_garbage_never_panics(data in vec(any::<u8>(), 0..60), pieces in vec(1usize..9, 1..6)) {
        let options = Options::of(Format::Binary);
        let data = [&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..], &data].concat();
        let _ = read(&data, &pieces, &options);
    }
}

#[test]
fn cells_are_written_as_bytea_is_read() {
    let put = |options: &Options| {
        let mut out = BytesMut::new();
        Writer::new(options, 2).field(1, Written::Cell(b"\xc1RS"), &mut out);
        out.to_vec()
    };
    let [text, _, csv, ..] = &formats()[..] else { panic!() };
    assert_eq!(put(text), b"\t\\\\xc15253");
    assert_eq!(put(csv), b",\"\\xc15253\"");
}

#[test]
fn the_mark_of_the_end_ends() {
    let text = Options::of(Format::Text);
    assert_eq!(read(b"a\n\\.\nb\n", &[1], &text), Ok(vec![vec![Some(b"a".to_vec())]]));
    assert_eq!(read(b"a\n\\.", &[1], &text), Ok(vec![vec![Some(b"a".to_vec())]]));
    for bad in [&b"a\\.\n"[..], b"\\.x\n", b"a\n\\.\r\n"] {
        assert_eq!(read(bad, &[1], &text), Err(Bad::Marker), "{bad:?}");
    }
    let csv = Options::of(Format::Csv);
    assert_eq!(read(b"\\.\nb\n", &[1], &csv).unwrap().len(), 2);
    let mut old = Reader::new(&csv, true);
    old.feed(b"\\.\nb\n");
    assert_eq!(old.piece(true), Ok(Some(Piece::End)));
    assert_eq!(old.piece(true), Ok(None));
}

#[test]
fn many_binary_rows_are_taken_cut_anywhere() {
    let rows: Vec<Vec<u8>> =
        (0..20_u8).map(|n| [&[0, 2, 255, 255, 255, 255, 0, 0, 0, n], &vec![n; usize::from(n)][..]].concat()).collect();
    let whole = [&FILE_HEADER[..], &rows.concat(), &FILE_END].concat();
    for piece in [1, 2, 3, 7, 19, 64, 10_000] {
        let (mut tuples, mut found, mut ends) = (Tuples::default(), Vec::new(), 0);
        for part in whole.chunks(piece) {
            tuples.feed(part);
            let block = tuples.take().unwrap();
            found.extend(block.rows().map(<[u8]>::to_vec));
            ends += usize::from(block.is_last);
        }
        assert_eq!((found, ends, tuples.held()), (rows.clone(), 1, 0));
        tuples.feed(b"x");
        assert_eq!(tuples.take().map(|_| ()), Err(Bad::Behind));
    }
    let mut tuples = Tuples::default();
    tuples.feed(b"PGCOPY\nx");
    assert_eq!(tuples.take().map(|_| ()), Err(Bad::Signature));
}
