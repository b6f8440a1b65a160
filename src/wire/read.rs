//! A strict cursor over one message body.
use super::frame::Malformed;

/// Reads fields from the front of a body; every read checks its bounds.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader at the start of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Reader(body)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Malformed`] at the end of the body.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// A 16-bit integer.
    ///
    /// # Errors
    /// [`Malformed`] at the end of the body.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.take(2).map(|b| i16::from_be_bytes([b[0], b[1]]))
    }

    /// A count: a 16-bit integer that the protocol treats as unsigned.
    ///
    /// # Errors
    /// [`Malformed`] at the end of the body.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        self.i16().map(|n| usize::from(n as u16))
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    /// [`Malformed`] at the end of the body.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.take(4).map(|b| i32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// An unsigned 32-bit integer, such as an OID.
    ///
    /// # Errors
    /// [`Malformed`] at the end of the body.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.i32().map(|n| n as u32)
    }

    /// Exactly `n` bytes.
    ///
    /// # Errors
    /// [`Malformed`] when fewer are left.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    /// A string up to its zero byte, which is consumed and left out.
    ///
    /// # Errors
    /// [`Malformed`] without a zero byte.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.0).ok_or(Malformed)?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    /// A value with a 32-bit length before it; -1 is NULL.
    ///
    /// # Errors
    /// [`Malformed`] for another negative length or one past the end.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.i32()? {
            -1 => Ok(None),
            n => self.take(usize::try_from(n).map_err(|_| Malformed)?).map(Some),
        }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Malformed`] for trailing bytes.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}
