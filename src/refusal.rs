//! Every error a client may be sent, with its SQLSTATE.
//!
//! A client is only ever sent a [`Refusal`]; no other error type converts into one by accident. It holds names, ids
//! and lengths, never a value, a key or the text of a statement. Messages are lower case, one line, no full stop;
//! details and hints are sentences.
use std::borrow::Cow;
use std::fmt;

/// The class of a refusal; each class has one SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Broken protocol.
    ProtocolViolation,
    /// A message larger than the proxy rewrites.
    TooLarge,
    /// Login failed.
    LoginFailed,
    /// TLS is needed here.
    TlsRequired,
    /// Too many connections.
    TooManyConnections,
    /// Cannot be done safely on a sealed column.
    NotSupported,
    /// A sealed column that is not known to be where it is named.
    UnknownColumn,
    /// A table that does not exist.
    NoTable,
    /// A statement of an aborted transaction.
    Aborted,
    /// The policy denies it.
    Denied,
    /// A statement that Postgres would not read either.
    Syntax,
    /// A parameter where there is none.
    NoParameter,
    /// A value whose text is not of its type.
    BadText,
    /// A value whose binary form is not of its type.
    BadBinary,
    /// Rows of COPY that are not in its format.
    BadCopy,
    /// A value too long for its type.
    TooLong,
    /// A number out of its type's range.
    OutOfRange,
    /// A date or time that cannot be read.
    BadDatetime,
    /// A date or time field out of range.
    DatetimeOverflow,
    /// An offset from UTC of 16 hours or more.
    OffsetOverflow,
    /// A field of an interval out of range.
    IntervalOverflow,
    /// An escape of a character that cannot be stored.
    BadEscape,
    /// Bounds of an array that exclude each other.
    BadBounds,
    /// A binary array of other elements than expected.
    ElementType,
    /// A column of another type than the policy's.
    WrongType,
    /// Hexadecimal digits that are none, or a format code that there is not.
    BadParameter,
    /// Bytes that are not valid in the encoding.
    BadEncoding,
    /// Stored bytes are wrong or foreign.
    DamagedCell,
    /// The tenant is unknown or missing, or its key is disabled or destroyed.
    KeyUnavailable,
    /// The KMS, the registry or the audit log cannot be reached now.
    Unreachable,
    /// The server cannot be reached.
    ServerUnreachable,
    /// The connection to the server was lost.
    ServerLost,
    /// The proxy is stopping.
    Stopping,
    /// A fault of the proxy's own.
    Internal,
}

impl Class {
    /// The five characters of the SQLSTATE.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Class::ProtocolViolation => "08P01",
            Class::TooLarge => "54000",
            Class::LoginFailed => "28P01",
            Class::TlsRequired => "08004",
            Class::TooManyConnections => "53300",
            Class::NotSupported | Class::UnknownColumn => "0A000",
            Class::NoTable => "42P01",
            Class::Aborted => "25P02",
            Class::Denied => "42501",
            Class::Syntax => "42601",
            Class::NoParameter => "42P02",
            Class::BadText => "22P02",
            Class::BadBinary => "22P03",
            Class::BadCopy => "22P04",
            Class::TooLong => "22001",
            Class::OutOfRange => "22003",
            Class::BadDatetime => "22007",
            Class::DatetimeOverflow => "22008",
            Class::OffsetOverflow => "22009",
            Class::IntervalOverflow => "22015",
            Class::BadEscape => "22P05",
            Class::BadBounds => "2202E",
            Class::ElementType | Class::WrongType => "42804",
            Class::BadParameter => "22023",
            Class::BadEncoding => "22021",
            Class::DamagedCell => "XX001",
            Class::KeyUnavailable => "55000",
            Class::Unreachable => "58030",
            Class::ServerUnreachable => "08001",
            Class::ServerLost => "08006",
            Class::Stopping => "57P01",
            Class::Internal => "XX000",
        }
    }
}

/// An error the proxy raises towards a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its class, and so its SQLSTATE.
    pub class: Class,
    /// Lower case, one line, no full stop.
    pub message: Cow<'static, str>,
    /// A sentence, or empty.
    pub detail: Cow<'static, str>,
    /// A sentence that says what to do, or empty.
    pub hint: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a message only.
    pub fn new(class: Class, message: impl Into<Cow<'static, str>>) -> Self {
        Refusal { class, message: message.into(), detail: Cow::Borrowed(""), hint: Cow::Borrowed("") }
    }

    /// The same with a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Stored bytes that are not a cell that opens here: one text for every cause, so that nobody learns which
    /// check failed.
    pub fn damaged() -> Self {
        Refusal::new(Class::DamagedCell, "a stored value could not be opened")
    }

    /// A key use that is not in the audit log does not happen.
    pub fn unrecorded() -> Self {
        Refusal::new(Class::Unreachable, "the key use could not be recorded").hint("Ask the operator of the proxy.")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.class.sqlstate())
    }
}

impl std::error::Error for Refusal {}
