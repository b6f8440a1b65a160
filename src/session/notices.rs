//! What the client is told: the server's errors, notices and notifications without cells, and the proxy's own errors.
use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::refusal::Refusal;
use crate::sql::render::Positions;
use crate::wire::backend;

use super::machine::{Fatal, Machine};
use super::queue::Expect;

/// Fields of an error that speak of the statement's text. Where that is the proxy's own (position, position in and text
/// of an internal query, context), they mean nothing to the client. Those of the client's own functions stay.
const OWN_FIELDS: &[u8] = b"PpqW";

/// Appends an ErrorResponse; `context` may be empty.
pub(super) fn put_error(out: &mut BytesMut, refusal: &Refusal, context: &str) {
    let severity = b"ERROR";
    let fields = [
        (b'S', &severity[..]),
        (b'V', severity),
        (b'C', refusal.class.sqlstate().as_bytes()),
        (b'M', refusal.message.as_bytes()),
        (b'D', refusal.detail.as_bytes()),
        (b'H', refusal.hint.as_bytes()),
        (b'W', context.as_bytes()),
    ];
    backend::put_notice(out, b'E', fields.into_iter().filter(|(_, text)| !text.is_empty()));
}

impl Machine {
    /// Forwards an error or notice with the cells and tokens in it replaced, and its position in the client's text.
    pub(super) fn notice(&mut self, tag: u8, body: &[u8]) -> Result<(), Fatal> {
        let fields = backend::notice(body)?;
        self.fatal_seen |=
            tag == b'E' && fields.iter().any(|(code, text)| *code == b'V' && matches!(*text, b"FATAL" | b"PANIC"));
        let own = matches!(self.queue.front(), Some(Expect::Own(_)));
        let clean: Vec<(u8, Cow<'_, [u8]>)> = fields
            .into_iter()
            .filter(|(code, _)| !(own && OWN_FIELDS.contains(code)))
            .map(|(code, text)| match (code, self.queue.positions()) {
                (b'P', Some(positions)) => (code, mapped(positions, text)),
                (b'W', _) if self.copy.sent.is_some() => (code, self.of_lines(text)),
                _ => (code, super::redact::redact(text)),
            })
            .collect();
        backend::put_notice(&mut self.to_client, tag, clean.iter().map(|(code, text)| (*code, text.as_ref())));
        Ok(())
    }

    /// A context with the lines that rows came from, and without cells.
    fn of_lines<'t>(&self, context: &'t [u8]) -> Cow<'t, [u8]> {
        match (&self.copy.sent, super::redact::redact(context)) {
            (Some(sent), Cow::Borrowed(context)) => sent.told(context),
            (Some(sent), Cow::Owned(context)) => Cow::Owned(sent.told(&context).into_owned()),
            (None, context) => context,
        }
    }

    /// Forwards a NotificationResponse (process, channel, payload) with the cells in its payload replaced.
    pub(super) fn notification(&mut self, body: &[u8]) {
        let out = &mut self.to_client;
        let parts = body.split_at_checked(4).and_then(|(process, rest)| {
            let end = rest.iter().position(|byte| *byte == 0)?;
            Some((process, rest.split_at(end + 1)))
        });
        let Some((process, (channel, payload))) = parts else { return };
        let payload = super::redact::redact(payload.strip_suffix(b"\0").unwrap_or(payload));
        out.put_u8(b'A');
        out.put_u32((4 + process.len() + channel.len() + payload.len() + 1) as u32);
        [process, channel, &payload, b"\0"].iter().for_each(|part| out.extend_from_slice(part));
    }
}

/// The position of an error in the client's text instead of the rewritten one.
fn mapped(positions: &Positions, text: &[u8]) -> Cow<'static, [u8]> {
    let position = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    Cow::Owned(position.map_or(0, |position: usize| positions.map(position)).to_string().into_bytes())
}
