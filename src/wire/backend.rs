//! Messages of the server: strict views, and writers for those that the proxy changes.
use bytes::{BufMut, BytesMut};

use super::frame::{Malformed, put_cstr, write};
use super::read::Reader;

/// One column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// OID of its table, or 0.
    pub table_oid: u32,
    /// Its number in the table, or 0.
    pub attnum: i16,
    /// OID of its type.
    pub type_oid: u32,
    /// Bytes of the type, or negative.
    pub typlen: i16,
    /// Type modifier.
    pub typmod: i32,
    /// Format code.
    pub format: i16,
}

/// Reads a RowDescription body.
///
/// # Errors
/// [`Malformed`] for anything but a whole message.
pub fn row_description(body: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.count()?;
    let fields = (0..count).map(|_| field(&mut reader)).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(fields)
}

fn field<'a>(reader: &mut Reader<'a>) -> Result<Field<'a>, Malformed> {
    Ok(Field {
        name: reader.cstr()?,
        table_oid: reader.u32()?,
        attnum: reader.i16()?,
        type_oid: reader.u32()?,
        typlen: reader.i16()?,
        typmod: reader.i32()?,
        format: reader.i16()?,
    })
}

/// Appends a RowDescription.
pub fn put_row_description(out: &mut BytesMut, fields: &[Field<'_>]) {
    write(out, b'T', |out| {
        out.put_u16(fields.len() as u16);
        for field in fields {
            put_cstr(out, field.name);
            out.put_u32(field.table_oid);
            out.put_i16(field.attnum);
            out.put_u32(field.type_oid);
            out.put_i16(field.typlen);
            out.put_i32(field.typmod);
            out.put_i16(field.format);
        }
    });
}

/// Reads a ParameterDescription body: the OIDs of the parameters' types.
///
/// # Errors
/// [`Malformed`] for anything but a whole message.
pub fn parameter_description(body: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.count()?;
    let oids = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(oids)
}

/// Appends a ParameterDescription.
pub fn put_parameter_description(out: &mut BytesMut, oids: &[u32]) {
    write(out, b't', |out| {
        out.put_u16(oids.len() as u16);
        oids.iter().for_each(|oid| out.put_u32(*oid));
    });
}

/// Reads a DataRow body.
///
/// # Errors
/// [`Malformed`] for anything but a whole message.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut values = Vec::new();
    data_row_into(body, &mut values)?;
    Ok(values)
}

/// Reads a DataRow body, appends its values and gives their number.
///
/// # Errors
/// [`Malformed`] for anything but a whole message.
pub fn data_row_into<'a>(body: &'a [u8], values: &mut Vec<Option<&'a [u8]>>) -> Result<usize, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.count()?;
    for _ in 0..count {
        values.push(reader.value()?);
    }
    reader.end()?;
    Ok(count)
}

/// Appends a DataRow of `count` values, each of which `put` appends with its length.
///
/// # Errors
/// The first one of `put`: what stands in `out` is then not whole.
pub fn try_put_data_row<E>(
    out: &mut BytesMut,
    count: usize,
    mut put: impl FnMut(usize, &mut BytesMut) -> Result<(), E>,
) -> Result<(), E> {
    let mut done = Ok(());
    write(out, b'D', |out| {
        out.put_u16(count as u16);
        done = (0..count).try_for_each(|at| put(at, out));
    });
    done
}

/// Reads the fields of an ErrorResponse or NoticeResponse body.
///
/// # Errors
/// [`Malformed`] for anything but a whole message.
pub fn notice(body: &[u8]) -> Result<Vec<(u8, &[u8])>, Malformed> {
    let mut reader = Reader::new(body);
    let mut fields = Vec::with_capacity(12);
    loop {
        match reader.byte()? {
            0 => break,
            code => fields.push((code, reader.cstr()?)),
        }
    }
    reader.end()?;
    Ok(fields)
}

/// Appends an ErrorResponse (`E`) or NoticeResponse (`N`).
pub fn put_notice<'a>(out: &mut BytesMut, tag: u8, fields: impl Iterator<Item = (u8, &'a [u8])>) {
    write(out, tag, |out| {
        for (code, text) in fields {
            out.put_u8(code);
            put_cstr(out, text);
        }
        out.put_u8(0);
    });
}
