//! Messages of the client: strict views, and writers for those that the proxy makes.
use bytes::{BufMut, BytesMut};

use super::frame::{Malformed, put_cstr, write};
use super::read::Reader;

/// The bytes of a statement's or portal's name that Postgres tells apart; the rest it ignores.
const NAME_BYTES: usize = 63;

/// A name as Postgres knows it.
pub fn name(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES)]
}

/// The text of a Query.
///
/// # Errors
/// [`Malformed`] unless the body is one string.
pub fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let text = reader.cstr()?;
    reader.end()?;
    Ok(text)
}

/// A Parse message.
pub struct Parse<'a> {
    /// Name of the statement; empty for the unnamed one.
    pub name: &'a [u8],
    /// Its text.
    pub text: &'a [u8],
    /// Parameter types the client gives; 0 for unspecified.
    pub oids: Vec<u32>,
}

/// Reads a Parse body.
///
/// # Errors
/// [`Malformed`] for anything but a whole Parse.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let (name, text) = (name(reader.cstr()?), reader.cstr()?);
    let count = reader.count()?;
    let oids = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(Parse { name, text, oids })
}

/// Portal and statement name of a Bind, from as much of its body as is there.
///
/// # Errors
/// [`Malformed`] when a name has no end in these bytes.
pub fn bind_names(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    Ok((name(reader.cstr()?), name(reader.cstr()?)))
}

/// A Bind message.
pub struct Bind<'a> {
    /// Name of the portal.
    pub portal: &'a [u8],
    /// Name of the statement.
    pub statement: &'a [u8],
    /// Format codes of the parameters: none, one for all, or one each.
    pub formats: Vec<i16>,
    /// The parameters' values.
    pub values: Vec<Option<&'a [u8]>>,
    /// Format codes of the result columns: none, one for all, or one each.
    pub result_formats: Vec<i16>,
}

/// Reads a Bind body.
///
/// # Errors
/// [`Malformed`] for anything but a whole Bind.
pub fn bind(body: &[u8]) -> Result<Bind<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let (portal, statement) = (name(reader.cstr()?), name(reader.cstr()?));
    let count = reader.count()?;
    let formats = (0..count).map(|_| reader.i16()).collect::<Result<_, _>>()?;
    let count = reader.count()?;
    let values = (0..count).map(|_| reader.value()).collect::<Result<_, _>>()?;
    let count = reader.count()?;
    let result_formats = (0..count).map(|_| reader.i16()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(Bind { portal, statement, formats, values, result_formats })
}

/// The format code of field `index` under the rule "none, one for all, or one each".
pub fn format_of(formats: &[i16], index: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(index).copied().unwrap_or(0),
    }
}

/// Kind (`S` statement or `P` portal) and name in a Describe or Close.
///
/// # Errors
/// [`Malformed`] for anything but a whole message.
pub fn target(body: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    let mut reader = Reader::new(body);
    let (kind, name) = (reader.byte()?, name(reader.cstr()?));
    reader.end()?;
    Ok((kind, name))
}

/// The portal's name in an Execute.
///
/// # Errors
/// [`Malformed`] for anything but a whole message.
pub fn execute(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    let portal = name(reader.cstr()?);
    reader.i32()?;
    reader.end()?;
    Ok(portal)
}

/// Appends a Query.
pub fn put_query(out: &mut BytesMut, text: &[u8]) {
    write(out, b'Q', |out| put_cstr(out, text));
}

/// Appends a Parse.
pub fn put_parse(out: &mut BytesMut, name: &[u8], text: &[u8], oids: &[u32]) {
    write(out, b'P', |out| {
        put_cstr(out, name);
        put_cstr(out, text);
        out.put_u16(oids.len() as u16);
        oids.iter().for_each(|oid| out.put_u32(*oid));
    });
}

/// A parameter of a Bind that the proxy makes.
pub struct Param<'a> {
    /// Its format code.
    pub format: i16,
    /// Its value; `None` for NULL.
    pub value: Option<std::borrow::Cow<'a, [u8]>>,
}

/// Appends a Bind.
pub fn put_bind(out: &mut BytesMut, portal: &[u8], statement: &[u8], params: &[Param<'_>], result_formats: &[i16]) {
    write(out, b'B', |out| {
        put_cstr(out, portal);
        put_cstr(out, statement);
        out.put_u16(params.len() as u16);
        params.iter().for_each(|param| out.put_i16(param.format));
        out.put_u16(params.len() as u16);
        params.iter().for_each(|param| put_value(out, param.value.as_deref()));
        out.put_u16(result_formats.len() as u16);
        result_formats.iter().for_each(|format| out.put_i16(*format));
    });
}

/// Appends a value with its length; NULL as -1.
pub fn put_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            out.put_i32(bytes.len() as i32);
            out.put_slice(bytes);
        }
    }
}

/// Appends an Execute without a row limit.
pub fn put_execute(out: &mut BytesMut, portal: &[u8]) {
    write(out, b'E', |out| {
        put_cstr(out, portal);
        out.put_i32(0);
    });
}

/// Appends a Close of a statement (`S`) or a portal (`P`).
pub fn put_close(out: &mut BytesMut, kind: u8, name: &[u8]) {
    write(out, b'C', |out| {
        out.put_u8(kind);
        put_cstr(out, name);
    });
}

/// Appends a Describe of a statement (`S`) or portal (`P`).
pub fn put_describe(out: &mut BytesMut, kind: u8, name: &[u8]) {
    write(out, b'D', |out| {
        out.put_u8(kind);
        put_cstr(out, name);
    });
}

/// Appends a message with the body as it came.
pub fn put_raw(out: &mut BytesMut, tag: u8, body: &[u8]) {
    write(out, tag, |out| out.put_slice(body));
}

/// Appends a Sync (`S`) or a Flush (`H`).
pub fn put_empty(out: &mut BytesMut, tag: u8) {
    write(out, tag, |_| ());
}
