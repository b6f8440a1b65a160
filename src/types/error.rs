//! What can be wrong with a value, in Postgres's own terms and SQLSTATEs. Never holds the value.

/// A value that Postgres would not take, or that this module cannot take exactly as Postgres would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// 22P02: the text is not a value of the type.
    #[error("invalid input syntax for type {ty}")]
    BadText {
        /// The type, as Postgres names it in messages.
        ty: &'static str,
    },
    /// 22P03: the binary form is not a value of the type.
    #[error("incorrect binary data format for type {ty}")]
    BadBinary {
        /// The type, as Postgres names it in messages.
        ty: &'static str,
    },
    /// 08P01: the binary form ends before the value does.
    #[error("insufficient data left in message")]
    Short,
    /// 22001: more characters than `varchar(limit)` or `char(limit)` takes.
    #[error("value too long for type {ty}({limit})")]
    TooLong {
        /// The type, as Postgres names it in messages.
        ty: &'static str,
        /// In characters.
        limit: u32,
    },
    /// 22003: a number the type cannot hold.
    #[error("{}", out_of_range(ty))]
    OutOfRange {
        /// The type, as Postgres names it in messages.
        ty: &'static str,
    },
    /// 22007: not a date or time, or a spelling of one that only the server could read.
    #[error("invalid input syntax for type {ty}")]
    BadDatetime {
        /// The type, as Postgres names it in messages.
        ty: &'static str,
    },
    /// 22007: a time of day whose offset depends on the day it is read.
    #[error("invalid input syntax for type time with time zone")]
    NoOffset,
    /// 22008: a field or the whole is out of range.
    #[error("date/time field value out of range")]
    DatetimeOverflow {
        /// The type, as Postgres names it in messages.
        ty: &'static str,
    },
    /// 22009: an offset of 16 hours or more.
    #[error("time zone displacement out of range")]
    OffsetOverflow,
    /// 22015: a field of an interval is out of range.
    #[error("interval field value out of range")]
    IntervalOverflow,
    /// 22023: a hexadecimal digit or their number is wrong.
    #[error("invalid hexadecimal data")]
    BadHex,
    /// 22021: not valid UTF-8, or a zero byte.
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    BadEncoding,
    /// 22P05: `\u0000` in jsonb.
    #[error("unsupported Unicode escape sequence")]
    BadEscape,
    /// 22P02: the text is not an array.
    #[error("malformed array literal")]
    BadArray,
    /// 2202E: an upper bound below its lower bound.
    #[error("upper bound cannot be less than lower bound")]
    BadBounds,
    /// 54000: more elements, or higher bounds, than an array can have.
    #[error("array size exceeds the maximum allowed")]
    ArrayTooLarge,
    /// 0A000: an array of several dimensions.
    #[error("an array of several dimensions cannot be sealed")]
    Dimensions,
    /// 42804: a binary array of other elements.
    #[error("binary data has another array element type than expected")]
    ElementType,
}

impl ValueError {
    /// The five characters of the SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            ValueError::BadText { .. } | ValueError::BadArray => "22P02",
            ValueError::BadBinary { .. } => "22P03",
            ValueError::Short => "08P01",
            ValueError::TooLong { .. } => "22001",
            ValueError::OutOfRange { .. } => "22003",
            ValueError::BadDatetime { .. } | ValueError::NoOffset => "22007",
            ValueError::DatetimeOverflow { .. } => "22008",
            ValueError::OffsetOverflow => "22009",
            ValueError::IntervalOverflow => "22015",
            ValueError::BadHex => "22023",
            ValueError::BadEncoding => "22021",
            ValueError::BadEscape => "22P05",
            ValueError::BadBounds => "2202E",
            ValueError::ArrayTooLarge => "54000",
            ValueError::Dimensions => "0A000",
            ValueError::ElementType => "42804",
        }
    }

    /// What the client can do, where that is not plain; a sentence.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ValueError::BadDatetime { ty: "interval" } => Some(
                "A sealed interval is read from forms such as '1 year 2 days 03:04:05.6', 'P1Y2DT3H4M5.6S' or '1-2'.",
            ),
            ValueError::BadDatetime { .. } => Some(
                "A sealed date or time is read in ISO form only, such as 2024-01-31 or 2024-01-31 23:59:59.5+01, \
                 not in words or in the order of DateStyle.",
            ),
            ValueError::BadText { ty: "inet" | "cidr" } => {
                Some("A sealed address is written in full, such as 10.0.0.0/8 or 2001:db8::/32.")
            }
            ValueError::BadText { ty: "smallint" | "integer" | "bigint" } => {
                Some("A sealed integer is read from decimal digits with an optional sign.")
            }
            ValueError::BadText { ty: "real" | "double precision" } => {
                Some("A sealed float is read from a decimal number, NaN or Infinity.")
            }
            ValueError::NoOffset => Some("Write the offset, such as 23:59:59+01."),
            ValueError::Dimensions => Some("Write one row of elements: {a,b,c}."),
            _ => None,
        }
    }
}

fn out_of_range(ty: &str) -> String {
    match ty {
        "numeric" => "numeric field overflow".to_owned(),
        _ => format!("value is out of range for type {ty}"),
    }
}
