//! Frames: one tag byte, a length of four bytes that counts itself, and a body.
use bytes::{BufMut, BytesMut};

/// Bytes of a header: tag and length.
pub const HEADER: usize = 5;

/// What is known of a frame from its first five bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's tag.
    pub tag: u8,
    /// Bytes of the whole frame, header included.
    pub total: usize,
}

/// A frame or message that breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid message format")]
pub struct Malformed;

/// The header of the frame that starts `bytes`, or `None` while fewer than five bytes are there.
///
/// # Errors
/// [`Malformed`] for a length below four or above 1 GiB (the limit of Postgres itself).
pub fn header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(start) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = i32::from_be_bytes([start[1], start[2], start[3], start[4]]);
    match usize::try_from(length) {
        Ok(length) if (4..0x4000_0000).contains(&length) => Ok(Some(Header { tag: start[0], total: length + 1 })),
        _ => Err(Malformed),
    }
}

/// Appends a frame whose body is written by `body`.
pub fn write(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_i32(0);
    body(out);
    let length = (out.len() - at) as i32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends bytes and the zero byte that ends a string on the wire.
pub fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}
