//! Which line of the client's a row came from that the server has got in binary, where it counts rows: what the server
//! says of a row is told the client of its line.
use std::borrow::Cow;
use std::collections::VecDeque;

/// How many places are kept at which lines and rows come apart further. The server is never so far behind.
const SHIFTS_MAX: usize = 1 << 16;

/// The lines of the rows that were sent.
pub(super) struct SentLines {
    /// The table's name.
    table: String,
    rows: u64,
    /// From which row on the line's number is greater than the row's by how much.
    shifts: VecDeque<(u64, u64)>,
}

impl SentLines {
    pub(super) fn new(table: &str) -> Self {
        SentLines { table: table.to_owned(), rows: 0, shifts: VecDeque::new() }
    }

    /// The next row has been sent; it ended on this line.
    pub(super) fn note(&mut self, line: u64) {
        self.rows += 1;
        let shift = line.saturating_sub(self.rows);
        if shift != self.shifts.back().map_or(0, |(_, shift)| *shift) {
            self.shifts.push_back((self.rows, shift));
        }
        if self.shifts.len() > SHIFTS_MAX {
            self.shifts.pop_front();
        }
    }

    fn line(&self, row: u64) -> u64 {
        let behind = self.shifts.partition_point(|(first, _)| *first <= row);
        row + behind.checked_sub(1).and_then(|at| self.shifts.get(at)).map_or(0, |(_, shift)| *shift)
    }

    /// The context of an error or notice with the lines of the client's in it.
    pub(super) fn told<'t>(&self, context: &'t [u8]) -> Cow<'t, [u8]> {
        if self.shifts.is_empty() {
            return Cow::Borrowed(context);
        }
        let lines: Vec<Cow<'t, [u8]>> = context.split(|byte| *byte == b'\n').map(|line| self.told_line(line)).collect();
        Cow::Owned(lines.join(&b"\n"[..]))
    }

    /// `COPY table, line 7, column c`: the words are in the server's language.
    fn told_line<'t>(&self, line: &'t [u8]) -> Cow<'t, [u8]> {
        let place = line.strip_prefix(b"COPY ").and_then(|rest| rest.strip_prefix(self.table.as_bytes()));
        let Some(place) = place.filter(|place| place.starts_with(b", ")) else { return Cow::Borrowed(line) };
        let start = place.iter().position(u8::is_ascii_digit).unwrap_or(place.len());
        let length = place[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&place[start..start + length]).ok().and_then(|digits| digits.parse().ok());
        let Some(row) = number else { return Cow::Borrowed(line) };
        let (head, tail) = (line.len() - place.len() + start, &place[start + length..]);
        Cow::Owned([&line[..head], self.line(row).to_string().as_bytes(), tail].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_lines() {
        let mut sent = SentLines::new("t 1");
        assert_eq!(*sent.told(b"COPY t 1, line 1"), *b"COPY t 1, line 1");
        for line in [2, 3, 6, 7, 9] {
            sent.note(line);
        }
        for (row, line) in [(1, 2), (2, 3), (3, 6), (4, 7), (5, 9), (6, 10)] {
            assert_eq!(sent.line(row), line);
        }
        for (said, told) in [
            ("COPY t 1, line 3, column b7", "COPY t 1, line 6, column b7"),
            ("COPY t 1, Zeile 5", "COPY t 1, Zeile 9"),
            (
                "PL/pgSQL function f() line 3 at RAISE\nCOPY t 1, line 2",
                "PL/pgSQL function f() line 3 at RAISE\nCOPY t 1, line 3",
            ),
            ("COPY t 12, line 3", "COPY t 12, line 3"),
            ("COPY t 1", "COPY t 1"),
        ] {
            assert_eq!(*sent.told(said.as_bytes()), *told.as_bytes());
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut sent = SentLines::new("t");
        (1..200_000).for_each(|row| sent.note(2 * row));
        assert_eq!(sent.shifts.len(), SHIFTS_MAX);
        assert_eq!(sent.line(199_999), 2 * 199_999);
        assert_eq!(sent.line(150_000), 300_000);
    }
}
