//! What the proxy must know of the server session before it plans: asked of the server, never guessed.
use std::sync::Arc;

use serde::Deserialize;

use crate::catalog::{self, Seen, roles};
use crate::hex;
use crate::policy::{Database, Read};
use crate::types::TextStyle;

/// The facts of one session, valid until a statement that may change one of them.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Schemas in which names are looked up, in order, implicit ones included.
    pub search_path: Vec<String>,
    /// The role that logged in.
    pub user: Arc<str>,
    /// The current role.
    pub role: Arc<str>,
    /// `rowseal.tenant`, unless unset or empty.
    pub tenant: Option<Arc<str>>,
    /// How values are written as text.
    pub style: TextStyle,
    /// `standard_conforming_strings`: a backslash in a plain literal is a backslash.
    pub conforming: bool,
    /// True when the client sends and expects UTF-8.
    pub utf8: bool,
    /// What the current role sees of sealed columns.
    pub read: Read,
    /// Whether the current role may search sealed columns.
    pub search: bool,
    /// The mark of the policy, roles and memberships that this is by ([`roles`]).
    pub roles: String,
    /// The policy that this is by.
    pub policy: Arc<Database>,
}

#[derive(Deserialize)]
struct Answer {
    path: Vec<String>,
    login: String,
    role: String,
    tenant: Option<String>,
    date_style: String,
    time_zone: String,
    interval_style: String,
    bytea_output: String,
    float_digits: String,
    encoding: String,
    conforming: String,
    member: Vec<String>,
    roles: String,
    seen: Option<Seen>,
}

/// The statement that asks for the facts; it answers one text value: JSON in UTF-8, in hexadecimal. So neither the
/// question nor the answer depends on `client_encoding`. With `with_schema` it also asks for the relations that may be
/// sealed, as the session sees them.
pub fn question(policy: &Database, with_schema: bool) -> String {
    let seen = if with_schema { catalog::question(policy) } else { "NULL".to_owned() };
    let (named, mark) = (roles::is_named("r.rolname", policy), roles::mark(policy));
    // Operators are qualified: the session's search_path is the client's to choose. Membership is looked up, not asked
    // of pg_has_role, for which a superuser is a member of every role.
    format!(
        "SELECT pg_catalog.encode(pg_catalog.convert_to(pg_catalog.json_build_object(\
         'path', pg_catalog.current_schemas(true), 'login', session_user, 'role', current_user, \
         'tenant', pg_catalog.current_setting('rowseal.tenant', true), \
         'date_style', pg_catalog.current_setting('DateStyle'), 'time_zone', pg_catalog.current_setting('TimeZone'), \
         'interval_style', pg_catalog.current_setting('IntervalStyle'), \
         'bytea_output', pg_catalog.current_setting('bytea_output'), \
         'float_digits', pg_catalog.current_setting('extra_float_digits'), \
         'conforming', pg_catalog.current_setting('standard_conforming_strings'), \
         'encoding', pg_catalog.current_setting('client_encoding'), 'seen', {seen}, \
         'member', ARRAY(WITH RECURSIVE mine(id) AS (\
         SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user \
         UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m, mine WHERE m.member OPERATOR(pg_catalog.=) mine.id) \
         SELECT r.rolname FROM mine, pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) mine.id \
         AND {named}), 'roles', {mark})::pg_catalog.text, 'UTF8'), 'hex')"
    )
}

/// The server's answer.
pub enum Told {
    /// What the session is, and the relations that it sees, where they were asked for.
    Facts(Box<Facts>, Option<Seen>),
    /// It was asked under another policy: to be asked again.
    Outdated,
}

/// Reads the server's answer; `None` when it is not one.
pub fn answer(text: &[u8], policy: &Arc<Database>) -> Option<Told> {
    let mut json = Vec::new();
    let answer: Answer = hex::decode_into(text, &mut json).then(|| serde_json::from_slice(&json).ok())??;
    if !roles::is_under(&answer.roles, policy) {
        return Some(Told::Outdated);
    }
    let access = policy.access(&answer.role, &answer.member);
    let facts = Facts {
        search_path: answer.path,
        user: answer.login.into(),
        role: answer.role.into(),
        tenant: answer.tenant.filter(|tenant| !tenant.is_empty()).map(Into::into),
        style: TextStyle {
            date_style: answer.date_style,
            time_zone: answer.time_zone,
            interval_style: answer.interval_style,
            bytea_hex: answer.bytea_output != "escape",
            extra_float_digits: answer.float_digits.parse().ok()?,
        },
        conforming: answer.conforming == "on",
        utf8: answer.encoding == "UTF8",
        read: access.read,
        search: access.search,
        roles: answer.roles,
        policy: policy.clone(),
    };
    Some(Told::Facts(Box::new(facts), answer.seen))
}

/// A string as an SQL literal that is right under either setting of `standard_conforming_strings`.
pub fn quote(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}
