//! Values as clients write them, held against what Postgres 15 gives for them.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn style(date_style: &str, time_zone: &str) -> TextStyle {
    TextStyle {
        date_style: date_style.to_owned(),
        time_zone: time_zone.to_owned(),
        interval_style: "postgres".to_owned(),
        bytea_hex: true,
        extra_float_digits: 1,
    }
}

fn utc() -> TextStyle {
    style("ISO, MDY", "UTC")
}

fn read(ty: LogicalType, text: &str, style: &TextStyle) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    canonical(ty, Format::Text, text.as_bytes(), style, &mut out).map(|()| out)
}

fn print(ty: LogicalType, value: &[u8], style: &TextStyle) -> String {
    let mut out = Vec::new();
    render(ty, Format::Text, value, style, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Each row: a type, a text, and what Postgres prints for it or the SQLSTATE it refuses it with.
fn check(style: &TextStyle, rows: &[(&str, &str, Result<&str, &str>)]) {
    for (name, text, expected) in rows {
        let ty = LogicalType::parse(name).unwrap();
        let got = read(ty, text, style).map(|value| {
            let mut binary = Vec::new();
            canonical(ty, Format::Binary, &value, style, &mut binary).unwrap();
            assert_eq!(binary, value, "binary form of {text:?}::{name}");
            print(ty, &value, style)
        });
        let got = got.as_deref().map_err(ValueError::sqlstate);
        assert_eq!(got, *expected, "{text:?}::{name}");
    }
}

#[test]
fn names_of_types() {
    let rows = [
        ("text", "text", 25, -1, -1, "text"),
        ("VARCHAR", "character varying", 1043, -1, -1, "varchar"),
        ("varchar(20)", "character varying(20)", 1043, -1, 24, "varchar"),
        ("character  varying ( 20 )", "character varying(20)", 1043, -1, 24, "varchar"),
        ("int", "integer", 23, 4, -1, "int4"),
        ("int4", "integer", 23, 4, -1, "int4"),
        ("pg_catalog.int8", "bigint", 20, 8, -1, "int8"),
        ("bool", "boolean", 16, 1, -1, "bool"),
        ("date", "date", 1082, 4, -1, "date"),
        ("timestamptz", "timestamp with time zone", 1184, 8, -1, "timestamptz"),
        ("decimal", "numeric", 1700, -1, -1, "numeric"),
        ("numeric(10, 2)", "numeric(10,2)", 1700, -1, 655_366, "numeric"),
        ("numeric(5)", "numeric(5,0)", 1700, -1, 327_684, "numeric"),
        ("numeric(3,-2)", "numeric(3,-2)", 1700, -1, 198_658, "numeric"),
        ("uuid", "uuid", 2950, 16, -1, "uuid"),
        ("jsonb", "jsonb", 3802, -1, -1, "jsonb"),
        ("bytea", "bytea", 17, -1, -1, "bytea"),
        ("smallint", "smallint", 21, 2, -1, "int2"),
        ("char", "character(1)", 1042, -1, 5, "bpchar"),
        ("bpchar", "bpchar", 1042, -1, -1, "bpchar"),
        ("character(7)", "character(7)", 1042, -1, 11, "bpchar"),
        ("citext", "citext", 25, -1, -1, "citext"),
        ("real", "real", 700, 4, -1, "float4"),
        ("float", "double precision", 701, 8, -1, "float8"),
        ("time", "time without time zone", 1083, 8, -1, "time"),
        ("time(0)", "time(0) without time zone", 1083, 8, 0, "time"),
        ("timetz(3)", "time(3) with time zone", 1266, 12, 3, "timetz"),
        ("timestamp(6)", "timestamp(6) without time zone", 1114, 8, 6, "timestamp"),
        ("timestamp ( 3 ) with time zone", "timestamp(3) with time zone", 1184, 8, 3, "timestamptz"),
        ("interval(2)", "interval(2)", 1186, 16, 2_147_418_114, "interval"),
        ("json", "json", 114, -1, -1, "json"),
        ("inet", "inet", 869, -1, -1, "inet"),
        ("cidr", "cidr", 650, -1, -1, "cidr"),
        ("text[]", "text[]", 1009, -1, -1, "text_array"),
        ("varchar(3) []", "character varying(3)[]", 1015, -1, 7, "varchar_array"),
        ("numeric(3,-2)[]", "numeric(3,-2)[]", 1231, -1, 198_658, "numeric_array"),
        ("timestamp(0)[]", "timestamp(0) without time zone[]", 1115, -1, 0, "timestamp_array"),
        ("int4[]", "integer[]", 1007, -1, -1, "int4_array"),
    ];
    for (written, shown, oid, typlen, typmod, domain) in rows {
        let ty = LogicalType::parse(written).unwrap();
        let got = (ty.to_string(), ty.oid(), ty.typlen(), ty.typmod(), ty.domain());
        assert_eq!(got, (shown.to_owned(), oid, typlen, typmod, domain));
        assert_eq!(LogicalType::parse(shown), Ok(ty));
    }
    let bad = [
        "",
        "money",
        "varchar(0)",
        "varchar(x)",
        "varchar(3",
        "int4(3)",
        "numeric(0)",
        "numeric(1001)",
        "text[][]",
        "[]",
        "text[3]",
        "time(7)",
        "interval day to second",
        "interval second(3)",
        "varchar(3) x",
        "citext(3)",
        "pg_lsn",
    ];
    for bad in bad {
        assert!(LogicalType::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn text_and_varchar() {
    check(
        &utc(),
        &[
            ("text", "", Ok("")),
            ("text", " grüße 🦀 ", Ok(" grüße 🦀 ")),
            ("text", "a\0b", Err("22021")),
            ("varchar(3)", "äöü", Ok("äöü")),
            ("varchar(3)", "äöü  ", Ok("äöü")),
            ("varchar(3)", "äöüx", Err("22001")),
            ("varchar(3)", "abc\t", Err("22001")),
            ("varchar(3)", "ab  x", Err("22001")),
            ("varchar", "any length", Ok("any length")),
        ],
    );
    for bad in [&b"\xff"[..], b"\xed\xa0\x80", b"\xc0\xaf", b"ab\xc3"] {
        for format in [Format::Text, Format::Binary] {
            let done = canonical(LogicalType::Text, format, bad, &utc(), &mut Vec::new());
            assert_eq!(done, Err(ValueError::BadEncoding));
        }
    }
}

#[test]
fn integers() {
    check(
        &utc(),
        &[
            ("int4", "0", Ok("0")),
            ("int4", "-0", Ok("0")),
            ("int4", " \t+007\n", Ok("7")),
            ("int4", "2147483647", Ok("2147483647")),
            ("int4", "-2147483648", Ok("-2147483648")),
            ("int4", "2147483648", Err("22003")),
            ("int4", "-2147483649", Err("22003")),
            ("int4", "", Err("22P02")),
            ("int4", " ", Err("22P02")),
            ("int4", "+", Err("22P02")),
            ("int4", "- 1", Err("22P02")),
            ("int4", "--1", Err("22P02")),
            ("int4", "1.0", Err("22P02")),
            ("int4", "1e3", Err("22P02")),
            ("int4", "٣", Err("22P02")),
            ("int8", "9223372036854775807", Ok("9223372036854775807")),
            ("int8", "-9223372036854775808", Ok("-9223372036854775808")),
            ("int8", "9223372036854775808", Err("22003")),
            ("int8", "99999999999999999999999999999999999999999999999", Err("22003")),
        ],
    );
}

#[test]
fn booleans() {
    let mut rows = Vec::new();
    for yes in ["t", "tr", "TRUE", " true ", "y", "Yes", "on", "1"] {
        rows.push(("bool", yes, Ok("t")));
    }
    for no in ["f", "FALSE", "fals", "n", "no", "of", "OFF", "0"] {
        rows.push(("bool", no, Ok("f")));
    }
    for bad in ["", "o", "truex", "yess", "10", "00", "-1", "null"] {
        rows.push(("bool", bad, Err("22P02")));
    }
    check(&utc(), &rows);
    let mut out = Vec::new();
    canonical(LogicalType::Bool, Format::Binary, &[7], &utc(), &mut out).unwrap();
    assert_eq!(out, [1]);
}

#[test]
fn uuids() {
    let plain = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    check(
        &utc(),
        &[
            ("uuid", plain, Ok(plain)),
            ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", Ok(plain)),
            ("uuid", "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", Ok(plain)),
            ("uuid", "a0eebc999c0b4ef8bb6d6bb9bd380a11", Ok(plain)),
            ("uuid", "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", Ok(plain)),
            ("uuid", " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Err("22P02")),
            ("uuid", "a0-eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Err("22P02")),
            ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-", Err("22P02")),
            ("uuid", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Err("22P02")),
            ("uuid", "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", Err("22P02")),
            ("uuid", "", Err("22P02")),
        ],
    );
}

#[test]
fn bytea_forms() {
    let rows = [
        ("bytea", "", Ok("\\x")),
        ("bytea", "\\x", Ok("\\x")),
        ("bytea", "\\xDEad be\nEF", Ok("\\xdeadbeef")),
        ("bytea", "abc", Ok("\\x616263")),
        ("bytea", "a\\\\b\\000\\377", Ok("\\x615c6200ff")),
        ("bytea", "\\xabc", Err("22023")),
        ("bytea", "\\xa bc", Err("22023")),
        ("bytea", "\\xzz", Err("22023")),
        ("bytea", "\\400", Err("22P02")),
        ("bytea", "\\12", Err("22P02")),
        ("bytea", "a\\", Err("22P02")),
    ];
    check(&utc(), &rows);
    let escape = TextStyle { bytea_hex: false, ..utc() };
    assert_eq!(print(LogicalType::Bytea, b"a\\\x00\x7f~\xff", &escape), "a\\\\\\000\\177~\\377");
}

#[test]
fn numerics() {
    check(
        &utc(),
        &[
            ("numeric", "0", Ok("0")),
            ("numeric", "-0.00", Ok("0.00")),
            ("numeric", " 1.50 ", Ok("1.50")),
            ("numeric", "+.5", Ok("0.5")),
            ("numeric", "5.", Ok("5")),
            ("numeric", "0012345678901234567890.0001", Ok("12345678901234567890.0001")),
            ("numeric", "10000", Ok("10000")),
            ("numeric", "0.00001", Ok("0.00001")),
            ("numeric", "1.5e3", Ok("1500")),
            ("numeric", "1.5E-3", Ok("0.0015")),
            ("numeric", "-12e-1", Ok("-1.2")),
            ("numeric", "nan", Ok("NaN")),
            ("numeric", "-inf", Ok("-Infinity")),
            ("numeric", "+Infinity", Ok("Infinity")),
            ("numeric", "", Err("22P02")),
            ("numeric", ".", Err("22P02")),
            ("numeric", "1e", Err("22P02")),
            ("numeric", "1.2.3", Err("22P02")),
            ("numeric", "- 1", Err("22P02")),
            ("numeric", "1,5", Err("22P02")),
            ("numeric", "1e131072", Err("22003")),
            ("numeric", "1e-16384", Err("22003")),
            ("numeric", "1e99999999999999999999", Err("22003")),
            ("numeric(5,2)", "999.994", Ok("999.99")),
            ("numeric(5,2)", "999.995", Err("22003")),
            ("numeric(5,2)", "-2.5", Ok("-2.50")),
            ("numeric(5,2)", "0.005", Ok("0.01")),
            ("numeric(5,2)", "-0.004", Ok("0.00")),
            ("numeric(5,2)", "1e3", Err("22003")),
            ("numeric(5,2)", "Infinity", Err("22003")),
            ("numeric(5,2)", "NaN", Ok("NaN")),
            ("numeric(3,-2)", "12345", Ok("12300")),
            ("numeric(3,-2)", "50", Ok("100")),
            ("numeric(3,-2)", "49", Ok("0")),
            ("numeric(2,4)", "0.0099", Ok("0.0099")),
            ("numeric(2,4)", "0.01", Err("22003")),
        ],
    );
}

#[test]
fn numerics_are_canonical() {
    let send = |text| read(LogicalType::Numeric(None), text, &utc()).unwrap();
    assert_eq!(send("12345.6"), [0, 3, 0, 1, 0, 0, 0, 1, 0, 1, 9, 0x29, 0x17, 0x70]);
    assert_eq!(send("Infinity"), [0, 0, 0, 0, 0xD0, 0, 0, 0x20]);
    let loose = [0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x17, 0x77];
    let mut out = Vec::new();
    canonical(LogicalType::Numeric(None), Format::Binary, &loose, &utc(), &mut out).unwrap();
    assert_eq!(out, send("1.6"), "leading zero digits go, digits past the display scale are cut");
}

#[test]
fn json_documents() {
    check(
        &utc(),
        &[
            ("jsonb", "{}", Ok("{}")),
            ("jsonb", " [ ] ", Ok("[]")),
            ("jsonb", "null", Ok("null")),
            (
                "jsonb",
                r#"{"bb":1,"a":[1,2 , {"x":null}],"c":true}"#,
                Ok(r#"{"a": [1, 2, {"x": null}], "c": true, "bb": 1}"#),
            ),
            ("jsonb", r#"{"a":1,"b":2,"a":3}"#, Ok(r#"{"a": 3, "b": 2}"#)),
            ("jsonb", r#"{"a":1,"\u0061":{"z":0}}"#, Ok(r#"{"a": {"z": 0}}"#)),
            ("jsonb", r#"[1.50, 1e3, -0, 1E-3, -0.0, 12e+2]"#, Ok("[1.50, 1000, 0, 0.001, 0.0, 1200]")),
            (
                "jsonb",
                r#""\"\\\/\b\f\n\r\t\u00e9\ud83e\udd80\u0001\u007f""#,
                Ok("\"\\\"\\\\/\\b\\f\\n\\r\\té🦀\\u0001\u{7f}\""),
            ),
            ("jsonb", "", Err("22P02")),
            ("jsonb", "nul", Err("22P02")),
            ("jsonb", "nullx", Err("22P02")),
            ("jsonb", "01", Err("22P02")),
            ("jsonb", "+1", Err("22P02")),
            ("jsonb", ".5", Err("22P02")),
            ("jsonb", "1.", Err("22P02")),
            ("jsonb", "1e", Err("22P02")),
            ("jsonb", "1a", Err("22P02")),
            ("jsonb", "NaN", Err("22P02")),
            ("jsonb", "[1,]", Err("22P02")),
            ("jsonb", "{\"a\":1,}", Err("22P02")),
            ("jsonb", "{a:1}", Err("22P02")),
            ("jsonb", "{\"a\" 1}", Err("22P02")),
            ("jsonb", "[1] 2", Err("22P02")),
            ("jsonb", "\"a", Err("22P02")),
            ("jsonb", "\"a\nb\"", Err("22P02")),
            ("jsonb", r#""\x""#, Err("22P02")),
            ("jsonb", r#""\ud83e""#, Err("22P02")),
            ("jsonb", r#""\udd80""#, Err("22P02")),
            ("jsonb", r#""\ud83e\u0041""#, Err("22P02")),
            ("jsonb", r#""\u00""#, Err("22P02")),
            ("jsonb", r#""\u0000""#, Err("22P05")),
            ("jsonb", "1e200000", Err("22003")),
        ],
    );
    let nested = format!("{}{}", "[".repeat(500), "]".repeat(500));
    check(&utc(), &[("jsonb", nested.as_str(), Ok(nested.as_str()))]);
    let deep = "[".repeat(100_000);
    assert_eq!(read(LogicalType::Jsonb, &deep, &utc()), Err(ValueError::BadText { ty: "json" }));
    let bomb = format!("[{}1]", "1e131071,".repeat(1000));
    assert_eq!(read(LogicalType::Jsonb, &bomb, &utc()), Err(ValueError::OutOfRange { ty: "jsonb" }));
}

#[test]
fn dates() {
    check(
        &utc(),
        &[
            ("date", "2024-02-29", Ok("2024-02-29")),
            ("date", " 2024-2-9 ", Ok("2024-02-09")),
            ("date", "2024/02/29", Ok("2024-02-29")),
            ("date", "20240229", Ok("2024-02-29")),
            ("date", "2024-02-29 23:59:60+05", Ok("2024-02-29")),
            ("date", "2024-02-29 +01", Ok("2024-02-29")),
            ("date", "2024-02-29T10:00:00Z", Ok("2024-02-29")),
            ("date", "0044-03-15 BC", Ok("0044-03-15 BC")),
            ("date", "4714-11-24 BC", Ok("4714-11-24 BC")),
            ("date", "4714-11-23 BC", Err("22008")),
            ("date", "5874897-12-31", Ok("5874897-12-31")),
            ("date", "5874898-01-01", Err("22008")),
            ("date", "Infinity", Ok("infinity")),
            ("date", "-infinity", Ok("-infinity")),
            ("date", "2023-02-29", Err("22008")),
            ("date", "2024-13-01", Err("22008")),
            ("date", "2024-00-01", Err("22008")),
            ("date", "2024-01-32", Err("22008")),
            ("date", "0000-01-01", Err("22008")),
            ("date", "", Err("22007")),
            ("date", "tomorrow", Err("22007")),
            ("date", "now", Err("22007")),
            ("date", "2024-01", Err("22007")),
            ("date", "2024-01/01", Err("22007")),
            ("date", "24-01-01", Err("22007")),
            ("date", "2024-01-01x", Err("22007")),
            ("date", "2024-01-01 10", Err("22007")),
        ],
    );
}

#[test]
fn instants() {
    check(
        &style("ISO, DMY", "America/New_York"),
        &[
            ("timestamptz", "2024-07-01 12:00:00", Ok("2024-07-01 12:00:00-04")),
            ("timestamptz", "2024-01-01T12:00", Ok("2024-01-01 12:00:00-05")),
            ("timestamptz", "2024-01-01", Ok("2024-01-01 00:00:00-05")),
            ("timestamptz", "2024-01-01 12:00:00Z", Ok("2024-01-01 07:00:00-05")),
            ("timestamptz", "2024-01-01 12:00:00 UTC", Ok("2024-01-01 07:00:00-05")),
            ("timestamptz", "2024-01-01 12:00:00.1234565+05:30", Ok("2024-01-01 01:30:00.123456-05")),
            ("timestamptz", "2024-01-01 12:00:00.9999999+0530", Ok("2024-01-01 01:30:01-05")),
            ("timestamptz", "2024-01-01 12:00:00 -5", Ok("2024-01-01 12:00:00-05")),
            ("timestamptz", "2024-01-01 24:00:00+00", Ok("2024-01-01 19:00:00-05")),
            ("timestamptz", "2024-03-10 02:30:00", Ok("2024-03-10 03:30:00-04")),
            ("timestamptz", "2024-11-03 01:30:00", Ok("2024-11-03 01:30:00-05")),
            ("timestamptz", "1800-01-01 00:00:00", Ok("1800-01-01 00:00:00-04:56:02")),
            ("timestamptz", "12024-07-01 12:00:00", Ok("12024-07-01 12:00:00-04")),
            ("timestamptz", "0044-03-15 12:00:00+00 BC", Ok("0044-03-15 07:03:58-04:56:02 BC")),
            ("timestamptz", "infinity", Ok("infinity")),
            ("timestamptz", "294276-12-31 23:59:59.999999Z", Ok("294276-12-31 18:59:59.999999-05")),
            ("timestamptz", "294277-01-01 00:00:00Z", Err("22008")),
            ("timestamptz", "4714-11-23 23:59:59Z BC", Err("22008")),
            ("timestamptz", "2024-01-01 25:00:00", Err("22008")),
            ("timestamptz", "2024-01-01 24:00:01", Err("22008")),
            ("timestamptz", "2024-01-01 12:60:00", Err("22008")),
            ("timestamptz", "2024-01-01 12:00:61", Err("22008")),
            ("timestamptz", "2024-02-30 12:00:00", Err("22008")),
            ("timestamptz", "yesterday", Err("22007")),
            ("timestamptz", "allballs", Err("22007")),
            ("timestamptz", "2024-01-01 12:00:00 XYZ", Err("22007")),
            ("timestamptz", "Mon Jan 01 12:00:00 2024", Err("22007")),
            ("timestamptz", "", Err("22007")),
        ],
    );
}

#[test]
fn date_styles() {
    let day = read(LogicalType::Date, "1997-12-17", &utc()).unwrap();
    let old = read(LogicalType::Timestamptz(None), "0044-03-15 07:37:16.5+00 BC", &utc()).unwrap();
    let instant = read(LogicalType::Timestamptz(None), "1997-12-17 15:37:16.25+00", &utc()).unwrap();
    let rows = [
        ("ISO, MDY", "1997-12-17", "1997-12-17 07:37:16.25-08", "0044-03-14 23:44:18.5-07:52:58 BC"),
        ("SQL, DMY", "17/12/1997", "17/12/1997 07:37:16.25 PST", "14/03/0044 23:44:18.5 LMT BC"),
        ("SQL, MDY", "12/17/1997", "12/17/1997 07:37:16.25 PST", "03/14/0044 23:44:18.5 LMT BC"),
        ("Postgres, DMY", "17-12-1997", "Wed 17 Dec 07:37:16.25 1997 PST", "Thu 14 Mar 23:44:18.5 0044 LMT BC"),
        ("Postgres, MDY", "12-17-1997", "Wed Dec 17 07:37:16.25 1997 PST", "Thu Mar 14 23:44:18.5 0044 LMT BC"),
        ("German, DMY", "17.12.1997", "17.12.1997 07:37:16.25 PST", "14.03.0044 23:44:18.5 LMT BC"),
    ];
    for (setting, date, time, before) in rows {
        let style = style(setting, "America/Los_Angeles");
        assert_eq!(print(LogicalType::Date, &day, &style), date, "{setting}");
        assert_eq!(print(LogicalType::Timestamptz(None), &instant, &style), time, "{setting}");
        assert_eq!(print(LogicalType::Timestamptz(None), &old, &style), before, "{setting}");
    }
    let posix = style("Postgres, MDY", "<-05>+05");
    assert_eq!(print(LogicalType::Timestamptz(None), &instant, &posix), "Wed Dec 17 10:37:16.25 1997 -05");
}

#[test]
fn binary_forms_are_checked() {
    let rows: [(&str, &[u8], &str); 22] = [
        ("int4", b"\0\0\0", "08P01"),
        ("int4", b"\0\0\0\0\0", "22P03"),
        ("int8", b"\0\0\0\x07", "08P01"),
        ("bool", b"", "08P01"),
        ("uuid", b"0123456789abcde", "08P01"),
        ("date", b"\0", "08P01"),
        ("date", &i32::to_be_bytes(-2_451_546), "22008"),
        ("date", &i32::to_be_bytes(2_145_031_949), "22008"),
        ("timestamptz", b"\0\0\0\0", "08P01"),
        ("timestamptz", &i64::to_be_bytes(-211_813_488_000_000_001), "22008"),
        ("timestamptz", &i64::to_be_bytes(9_223_371_331_200_000_000), "22008"),
        ("numeric", b"\0\0\0\0\0\0\0", "08P01"),
        ("numeric", b"\0\x01\0\0\0\0\0\0", "08P01"),
        ("numeric", b"\0\x01\0\0\0\0\0\0\x27\x10", "22P03"),
        ("numeric", b"\0\x01\0\0\x40\x01\0\0\0\x01", "22P03"),
        ("numeric", b"\0\x01\0\0\0\0\x40\0\0\x01", "22P03"),
        ("numeric(3,1)", b"\0\x01\0\0\0\0\0\0\0\x64", "22003"),
        ("jsonb", b"", "08P01"),
        ("jsonb", b"\x02{}", "22P03"),
        ("jsonb", b"\x01{", "22P02"),
        ("jsonb", b"\x01\"\xff\"", "22021"),
        ("varchar(1)", b"ab", "22001"),
    ];
    for (name, bytes, sqlstate) in rows {
        let ty = LogicalType::parse(name).unwrap();
        let mut out = b"kept".to_vec();
        let done = canonical(ty, Format::Binary, bytes, &utc(), &mut out);
        assert_eq!(done.map_err(|e| e.sqlstate()), Err(sqlstate), "{name} {bytes:?}");
        assert_eq!(out, b"kept");
    }
}

#[test]
fn equal_values_have_equal_tokens() {
    let rows = [
        ("numeric", "1.0", "1.00", true),
        ("numeric", "0", "-0.000", true),
        ("numeric", "1e2", "100.0", true),
        ("numeric", "-1.50", "-1.5", true),
        ("numeric", "NaN", "nan", true),
        ("numeric", "1", "-1", false),
        ("numeric", "1", "10", false),
        ("numeric", "1", "10000", false),
        ("jsonb", r#"{"a":1.0,"b":"1.0"}"#, r#"{"b":"1.0","a":1}"#, true),
        ("jsonb", r#"[-0.50, "\"1.0"]"#, r#"[-0.5,"\"1.0"]"#, true),
        ("jsonb", r#""1.0""#, r#""1.00""#, false),
        ("jsonb", r#"{"1.0":1}"#, r#"{"1.00":1}"#, false),
        ("jsonb", "10", "1", false),
        ("jsonb", "[1]", "1", false),
        ("text", "a", "a ", false),
    ];
    for (name, a, b, equal) in rows {
        let ty = LogicalType::parse(name).unwrap();
        let (a, b) = (read(ty, a, &utc()).unwrap(), read(ty, b, &utc()).unwrap());
        assert_eq!(token_form(ty, &a) == token_form(ty, &b), equal, "{name} {a:?} {b:?}");
    }
}

#[test]
fn tenants_as_text() {
    let rows: [(u32, Format, &[u8], Option<&str>); 19] = [
        (23, Format::Text, b" 007", Some("7")),
        (23, Format::Binary, b"\xff\xff\xff\xff", Some("-1")),
        (23, Format::Binary, b"\0\x01", None),
        (23, Format::Text, b"x", None),
        (21, Format::Text, b"32768", None),
        (21, Format::Binary, b"\0\x2a", Some("42")),
        (20, Format::Text, b"9223372036854775807", Some("9223372036854775807")),
        (20, Format::Binary, b"\0\0\0\0\0\0\0\x05", Some("5")),
        (25, Format::Text, b" acme ", Some(" acme ")),
        (25, Format::Binary, b"a\0", None),
        (1043, Format::Text, b"\xff", None),
        (1042, Format::Binary, b"acme  ", Some("acme")),
        (19, Format::Text, &[b'n'; 64], Some("nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn")),
        (19, Format::Binary, &[b'n'; 64], None),
        (2950, Format::Binary, &[0xAB; 16], Some("abababab-abab-abab-abab-abababababab")),
        (2950, Format::Text, b"{ABABABAB-abab-abab-abab-abababababab}", Some("abababab-abab-abab-abab-abababababab")),
        (2950, Format::Text, b"abab", None),
        (1700, Format::Text, b"1", None),
        (0, Format::Text, b"1", None),
    ];
    for (oid, format, bytes, expected) in rows {
        assert_eq!(text_of_plain(oid, format, bytes).as_deref(), expected, "{oid} {bytes:?}");
    }
}

#[test]
fn messages_are_postgres_s_without_the_value() {
    let rows = [
        ("int4", "secret", "invalid input syntax for type integer"),
        ("int8", "99999999999999999999", "value is out of range for type bigint"),
        ("bool", "secret", "invalid input syntax for type boolean"),
        ("numeric(3,1)", "1000", "numeric field overflow"),
        ("varchar(3)", "secret", "value too long for type character varying(3)"),
        ("date", "secret", "invalid input syntax for type date"),
        ("timestamptz", "secret", "invalid input syntax for type timestamp with time zone"),
        ("timestamptz", "2024-02-30", "date/time field value out of range"),
        ("jsonb", "secret", "invalid input syntax for type json"),
        ("text", "secret\0", "invalid byte sequence for encoding \"UTF8\""),
    ];
    for (name, text, message) in rows {
        let error = read(LogicalType::parse(name).unwrap(), text, &utc()).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(!format!("{error:?}").contains("secret"));
    }
}

#[test]
fn an_unknown_time_zone_is_an_error_only_where_it_counts() {
    let nowhere = style("ISO, MDY", "Nowhere/Land");
    let bad = Err(ValueError::BadDatetime { ty: "timestamp with time zone" });
    assert_eq!(read(LogicalType::Timestamptz(None), "2024-01-01 00:00:00", &nowhere), bad);
    let value = read(LogicalType::Timestamptz(None), "2024-01-01 00:00:00Z", &nowhere).unwrap();
    let mut out = Vec::new();
    assert!(render(LogicalType::Timestamptz(None), Format::Text, &value, &nowhere, &mut out).is_err());
    assert!(render(LogicalType::Timestamptz(None), Format::Binary, &value, &nowhere, &mut out).is_ok());
}

#[test]
fn what_is_too_large_is_refused_before_it_is_made() {
    let bomb = format!("{{{}1}}", "1e131071,".repeat(1000));
    let array = |name: &str| LogicalType::parse(name).unwrap();
    assert_eq!(read(array("numeric[]"), &bomb, &utc()), Err(ValueError::ArrayTooLarge));
    assert_eq!(read(array("jsonb[]"), &bomb, &utc()), Err(ValueError::ArrayTooLarge));
    let padded = format!("{{{}a}}", "a,".repeat(200));
    assert_eq!(read(array("char(10485760)[]"), &padded, &utc()), Err(ValueError::ArrayTooLarge));
    let count = [&1_u32.to_be_bytes()[..], &[0; 4], &25_u32.to_be_bytes(), &i32::MAX.to_be_bytes(), &[0; 4]].concat();
    let done = canonical(array("text[]"), Format::Binary, &count, &utc(), &mut Vec::new());
    assert_eq!(done, Err(ValueError::ArrayTooLarge));
    let deep = "[".repeat(600) + &"]".repeat(600);
    assert_eq!(read(LogicalType::Json, &deep, &utc()), Err(ValueError::BadText { ty: "json" }));
    let in_a_string = format!("[\"\\\"{deep}\"]");
    assert_eq!(read(LogicalType::Json, &in_a_string, &utc()), Ok(in_a_string.clone().into_bytes()));
}

/// Stored tokens of citext depend on the table of lower-case letters. If this fails, the compiler has brought a newer
/// Unicode: characters added since must then be left as they are in `text::folded`.
#[test]
fn letters_fold_as_they_did_when_the_first_cell_was_sealed() {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for character in '\0'..=char::MAX {
        let folded = text::folded(character.to_string().as_bytes());
        if folded != character.to_string().as_bytes() {
            for byte in folded {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    assert_eq!(hash, 10_518_281_221_584_584_355);
}

/// What is stored never changes: one value of each type, its canonical bytes and what its token is made of.
#[test]
fn stored_forms() {
    let rows = [
        ("char(3)", "a", "612020", "61"),
        ("citext", "ÄBc", "c3844263", "c3a46263"),
        ("int2", "-2", "fffe", "fffe"),
        ("float4", "-0", "80000000", "00000000"),
        ("float4", "1.5", "3fc00000", "3fc00000"),
        ("float8", "-0", "8000000000000000", "0000000000000000"),
        ("float8", "NaN", "7ff8000000000000", "7ff8000000000000"),
        ("time", "00:00:01", "00000000000f4240", "00000000000f4240"),
        ("timetz", "00:00:01+01", "00000000000f4240fffff1f0", "00000000000f4240fffff1f0"),
        ("timestamp", "2000-01-01 00:00:01", "00000000000f4240", "00000000000f4240"),
        ("interval", "1 mon 2 days 00:00:01", "00000000000f42400000000200000001", "000000000000000000000283bafb4240"),
        ("json", "{ }", "7b207d", "7b207d"),
        ("inet", "10.0.0.1/8", "020800040a000001", "020800040a000001"),
        ("cidr", "10.0.0.0/8", "020801040a000000", "020801040a000000"),
        (
            "int2[]",
            "[0:1]={5,NULL}",
            "00000001000000010000001500000002000000000000000200 05ffffffff",
            "0000000200000000000000020005ffffffff",
        ),
        ("numeric[]", "{}", "0000000000000000000006a4", "00000000"),
        (
            "numeric[]",
            "{1.0}",
            "0000000100000000000006a400000001000000010000000a00010000000000010001",
            "00000001000000010000000a00010000000000000001",
        ),
    ];
    for (name, text, stored, token) in rows {
        let ty = LogicalType::parse(name).unwrap();
        let value = read(ty, text, &utc()).unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!((hex(&value), hex(&token_form(ty, &value))), (stored.replace(' ', ""), token.to_owned()), "{name}");
    }
}

#[test]
fn tags_are_all_different_and_stay() {
    let mut tags: Vec<(u8, &str)> = LogicalType::all().map(|ty| (ty.tag(), ty.domain())).collect();
    tags.sort_unstable();
    let names = "text varchar int4 int8 bool date timestamptz numeric uuid jsonb bytea bpchar citext int2 float4 float8 time \
        timetz timestamp interval json inet cidr";
    let expected: Vec<(u8, &str)> = (1..).zip(names.split_whitespace()).collect();
    assert_eq!(tags, expected);
    for ty in LogicalType::all() {
        let array = LogicalType::Array(Element::of(ty).unwrap());
        assert_eq!((array.tag(), array.domain()), (0x80 + ty.tag(), format!("{}_array", ty.domain()).as_str()));
        assert!(Element::of(array).is_none());
    }
}

#[test]
fn what_the_server_alone_could_read_comes_with_a_hint() {
    let rows = [
        ("date", "tomorrow", "ISO form"),
        ("timestamp[]", "{now}", "ISO form"),
        ("interval", "forever", "'1 year 2 days"),
        ("int4[]", "{{1}}", "one row of elements"),
    ];
    for (name, text, hint) in rows {
        let error = read(LogicalType::parse(name).unwrap(), text, &utc()).unwrap_err();
        assert!(error.hint().is_some_and(|found| found.contains(hint)), "{name}: {error:?}");
    }
    let error = read(LogicalType::Timetz(None), "12:00", &style("ISO, MDY", "Europe/Berlin")).unwrap_err();
    assert_eq!((error, error.hint()), (ValueError::NoOffset, Some("Write the offset, such as 23:59:59+01.")));
    for (zone, west) in [("UTC", 0), ("Etc/UTC", 0), ("GMT", 0), ("<-05>+05", 18_000), ("Etc/GMT-3", -10_800)] {
        let value = read(LogicalType::Timetz(None), "00:00", &style("ISO, MDY", zone)).unwrap();
        assert_eq!(value, [&[0; 8][..], &i32::to_be_bytes(west)].concat(), "{zone}");
    }
}

/// Canonical, printed, read again: the same bytes.
fn round_trip(name: &str, format: Format, bytes: &[u8], style: &TextStyle) {
    let ty = LogicalType::parse(name).unwrap();
    let mut value = Vec::new();
    canonical(ty, format, bytes, style, &mut value).unwrap();
    assert_eq!(read(ty, &print(ty, &value, style), style).unwrap(), value);
    let mut again = Vec::new();
    canonical(ty, Format::Binary, &value, style, &mut again).unwrap();
    assert_eq!(again, value);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1e9..1e9).prop_map(|x: f64| x.into()),
        "[^\0]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map("[^\0]{0,3}", inner, 0..6)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn fixed_types_round_trip(int in any::<i64>(), small in any::<i32>(), uuid in any::<[u8; 16]>()) {
        round_trip("int8", Format::Text, int.to_string().as_bytes(), &utc());
        round_trip("int4", Format::Binary, &small.to_be_bytes(), &utc());
        round_trip("uuid", Format::Binary, &uuid, &utc());
    }

    #[test]
    fn bytes_round_trip(bytes in any::<Vec<u8>>(), bytea_hex in any::<bool>(), text in "[^\0]*") {
        round_trip("bytea", Format::Binary, &bytes, &TextStyle { bytea_hex, ..utc() });
        round_trip("text", Format::Text, text.as_bytes(), &utc());
    }

    #[test]
    fn dates_round_trip(days in -2_451_545..2_145_031_949_i32, near in -200_000..200_000_i32) {
        for number in [days, near] {
            round_trip("date", Format::Binary, &number.to_be_bytes(), &utc());
            let day = calendar::Day::from_number(i64::from(number));
            prop_assert!(day.exists());
            prop_assert_eq!(day.number(), i64::from(number));
        }
    }

    #[test]
    fn instants_round_trip(
        wide in -211_813_488_000_000_000..9_223_371_331_200_000_000_i64,
        near in -4_000_000_000_000_000..4_000_000_000_000_000_i64,
        zone in prop::sample::select(&["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "<+03>-03"][..]),
    ) {
        for micros in [wide / 2, near] {
            round_trip("timestamptz", Format::Binary, &micros.to_be_bytes(), &style("ISO, MDY", zone));
        }
    }

    #[test]
    fn numerics_round_trip(text in "[+-]?[0-9]{1,30}(\\.[0-9]{0,30})?(e[+-]?[0-9]{1,2})?", zeros in 0..5_usize) {
        round_trip("numeric", Format::Text, text.as_bytes(), &utc());
        let ty = LogicalType::Numeric(None);
        let value = read(ty, &text, &utc()).unwrap();
        let printed = print(ty, &value, &utc());
        let point = if printed.contains('.') { "" } else { "." };
        let longer = read(ty, &format!("{printed}{point}{}", "0".repeat(zeros)), &utc()).unwrap();
        prop_assert_eq!(token_form(ty, &longer), token_form(ty, &value));
    }

    #[test]
    fn documents_round_trip(document in json()) {
        let text = document.to_string();
        round_trip("jsonb", Format::Text, text.as_bytes(), &utc());
        let value = read(LogicalType::Jsonb, &text, &utc()).unwrap();
        let printed = print(LogicalType::Jsonb, &value, &utc());
        let again: serde_json::Value = serde_json::from_str(&printed).unwrap();
        prop_assert_eq!(again.as_object().map(|o| o.len()), document.as_object().map(|o| o.len()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>(), text in "[-+ 0-9.:TZe\\[\\]{}\",a-f\\\\x]{0,24}") {
        let arrays = LogicalType::all().filter_map(Element::of).map(LogicalType::Array);
        for ty in LogicalType::all().chain(arrays).chain([LogicalType::Numeric(Some((9, 3)))]) {
            for input in [&bytes[..], text.as_bytes()] {
                for format in [Format::Text, Format::Binary] {
                    let mut out = Vec::new();
                    if canonical(ty, format, input, &utc(), &mut out).is_ok() {
                        render(ty, Format::Text, &out, &utc(), &mut Vec::new()).unwrap();
                    }
                    let _ = render(ty, Format::Text, input, &utc(), &mut Vec::new());
                    let _ = token_form(ty, input);
                }
            }
        }
    }
}
