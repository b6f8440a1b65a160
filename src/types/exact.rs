//! Plain columns of COPY: their text becomes what the server takes in binary, where both mean the same to the last case.
use super::{ValueError, bool, bytea, text, trimmed, uuid};

/// A type whose input is read here exactly as Postgres reads it, whatever is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exact {
    /// text, varchar and bpchar: what their lengths do to a value is done by the server in binary too.
    Text,
    /// `int2`
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `bool`
    Bool,
    /// `uuid`
    Uuid,
    /// `bytea`
    Bytea,
}

/// The version of Postgres that reads integers in other bases and with underscores.
const BASES_SINCE: u32 = 16;

impl Exact {
    /// The type of this oid; `None` for every other type, domains among them.
    pub fn of(type_oid: u32) -> Option<Exact> {
        Some(match type_oid {
            25 | 1042 | 1043 => Exact::Text,
            21 => Exact::Int2,
            23 => Exact::Int4,
            20 => Exact::Int8,
            16 => Exact::Bool,
            2950 => Exact::Uuid,
            17 => Exact::Bytea,
            _ => return None,
        })
    }

    /// The name of the type in schema `pg_catalog`, of this oid.
    pub fn name(self, type_oid: u32) -> &'static str {
        match (self, type_oid) {
            (Exact::Text, 1042) => "bpchar",
            (Exact::Text, 1043) => "varchar",
            (Exact::Text, _) => "text",
            (Exact::Int2, _) => "int2",
            (Exact::Int4, _) => "int4",
            (Exact::Int8, _) => "int8",
            (Exact::Bool, _) => "bool",
            (Exact::Uuid, _) => "uuid",
            (Exact::Bytea, _) => "bytea",
        }
    }

    /// Appends the binary form of a text to `out`, as a server of this version would read it.
    ///
    /// # Errors
    /// [`ValueError`] with the SQLSTATE that Postgres gives for the type.
    pub fn binary(self, value: &[u8], server_version: u32, out: &mut Vec<u8>) -> Result<(), ValueError> {
        text::checked(value)?;
        let has_bases = server_version >= BASES_SINCE;
        match self {
            Exact::Text => out.extend_from_slice(value),
            Exact::Int2 => out.extend((integer(value, (16, "smallint"), has_bases)? as i16).to_be_bytes()),
            Exact::Int4 => out.extend((integer(value, (32, "integer"), has_bases)? as i32).to_be_bytes()),
            Exact::Int8 => out.extend(integer(value, (64, "bigint"), has_bases)?.to_be_bytes()),
            Exact::Bool => out.push(u8::from(bool::parse(value)?)),
            Exact::Uuid => out.extend(uuid::parse(value)?),
            Exact::Bytea => {
                let start = out.len();
                bytea::parse(value, out).inspect_err(|_| out.truncate(start))?;
            }
        }
        Ok(())
    }
}

/// An integer of so many bits: digits with an optional sign, white space around them; in newer servers also in other
/// bases, with underscores between digits. What overflows is told before what follows it, as far as Postgres does.
fn integer(bytes: &[u8], (bits, ty): (u32, &'static str), has_bases: bool) -> Result<i64, ValueError> {
    let (negative, unsigned) = match trimmed(bytes) {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (base, digits) = match unsigned {
        [b'0', b'x' | b'X', rest @ ..] if has_bases => (16, rest),
        [b'0', b'o' | b'O', rest @ ..] if has_bases => (8, rest),
        [b'0', b'b' | b'B', rest @ ..] if has_bases => (2, rest),
        rest => (10, rest),
    };
    let least = 1_i128 << (bits - 1);
    let most = if has_bases { least / i128::from(base) * i128::from(base) + i128::from(base - 1) } else { least };
    let digit = |at: usize| digits.get(at).and_then(|byte| char::from(*byte).to_digit(base));
    let (mut sum, mut at) = (0_i128, 0);
    loop {
        if digits.get(at) == Some(&b'_') && has_bases && (at > 0 || base != 10) && digit(at + 1).is_some() {
            at += 1;
        }
        let Some(next) = digit(at) else { break };
        sum = sum * i128::from(base) + i128::from(next);
        if sum > most {
            return Err(ValueError::OutOfRange { ty });
        }
        at += 1;
    }
    if at == 0 || at < digits.len() {
        return Err(ValueError::BadText { ty });
    }
    if sum > if negative { least } else { least - 1 } {
        return Err(ValueError::OutOfRange { ty });
    }
    i64::try_from(if negative { -sum } else { sum }).map_err(|_| ValueError::OutOfRange { ty })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_the_version_reads_them() {
        let int4 = |text: &str, version| integer(text.as_bytes(), (32, "integer"), version >= 16);
        for (text, older, newer) in [
            (" 12\t", Some(12), Some(12)),
            ("-2147483648", Some(-2_147_483_648), Some(-2_147_483_648)),
            ("+0", Some(0), Some(0)),
            ("0x1F", None, Some(31)),
            ("0x_1f", None, Some(31)),
            ("-0b101", None, Some(-5)),
            ("0o17", None, Some(15)),
            ("1_000", None, Some(1000)),
            ("1__0", None, None),
            ("_1", None, None),
            ("1_", None, None),
            ("0x", None, None),
            ("", None, None),
            ("1 2", None, None),
            ("- 1", None, None),
        ] {
            assert_eq!(int4(text, 15).ok(), older, "{text}");
            assert_eq!(int4(text, 18).ok(), newer, "{text}");
        }
        let (range, bad) = (ValueError::OutOfRange { ty: "integer" }, ValueError::BadText { ty: "integer" });
        for (text, older, newer) in [
            ("2147483648", &range, &range),
            ("2147483649x", &range, &bad),
            ("2147483650x", &range, &range),
            ("99999999999999999999999999999999999999999999", &range, &range),
        ] {
            assert_eq!(int4(text, 15).as_ref().unwrap_err(), older, "{text}");
            assert_eq!(int4(text, 18).as_ref().unwrap_err(), newer, "{text}");
        }
    }
}
