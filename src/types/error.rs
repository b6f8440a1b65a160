//! What can be wrong with a value, in Postgres's own terms and SQLSTATEs. Never holds the value.
//!
//! Postgres has two codes more, told here as their nearest kin:
//! 22009 (an offset past 15 hours) as 22008, 22P05 (`\u0000` in jsonb) as 22P02.

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
    /// 22001: more characters than `varchar(limit)` takes.
    #[error("value too long for type character varying({limit})")]
    TooLong {
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
    /// 22008: a field or the whole is out of range.
    #[error("date/time field value out of range")]
    DatetimeOverflow {
        /// The type, as Postgres names it in messages.
        ty: &'static str,
    },
    /// 22023: a hexadecimal digit or their number is wrong.
    #[error("invalid hexadecimal data")]
    BadHex,
    /// 22021: not valid UTF-8, or a zero byte.
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    BadEncoding,
}

impl ValueError {
    /// The five characters of the SQLSTATE.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            ValueError::BadText { .. } => "22P02",
            ValueError::BadBinary { .. } => "22P03",
            ValueError::TooLong { .. } => "22001",
            ValueError::OutOfRange { .. } => "22003",
            ValueError::BadDatetime { .. } => "22007",
            ValueError::DatetimeOverflow { .. } => "22008",
            ValueError::BadHex => "22023",
            ValueError::BadEncoding => "22021",
        }
    }
}

fn out_of_range(ty: &str) -> String {
    match ty {
        "numeric" => "numeric field overflow".to_owned(),
        _ => format!("value is out of range for type {ty}"),
    }
}
