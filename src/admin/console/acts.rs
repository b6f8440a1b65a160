//! What can be done from the console; what is done to keys is in `keys`. Each act is in the audit log before it is done, with the role that asked for it.
use std::sync::Arc;

use super::Visit;
use super::answer::Row;
use super::text::Token;
use crate::admin::record_act;
use crate::admin::running::{RELOAD, log};
use crate::keys::registry::{RegistryError, Wrapping};
use crate::refusal::{Class, Refusal};
use crate::server::database::Database;

/// RELOAD.
pub(super) async fn reload(visit: Arc<Visit>, rest: Vec<Token>) -> Result<Vec<Row>, Refusal> {
    nothing_behind(&rest)?;
    record(&visit, ("", ""), RELOAD, "ok")?;
    let outcome = visit.running.reload().await;
    log(&outcome, &visit.running.settings().file);
    let Err(error) = outcome else { return Ok(Vec::new()) };
    let refusal = Refusal::new(Class::KeyUnavailable, "the policy file is not taken up: everything stays as it is")
        .detail(format!("{}.", crate::admin::chain(&error)));
    record(&visit, ("", ""), &format!("{RELOAD}: failed"), refusal.class.sqlstate())?;
    Err(refusal)
}

/// REGISTER TENANT 'name' [DIRECT | HIERARCHICAL] [IN database].
pub(super) async fn register(visit: Arc<Visit>, rest: Vec<Token>) -> Result<Vec<Row>, Refusal> {
    let [Token::Text(tenant), options @ ..] = &rest[..] else {
        return Err(Refusal::new(Class::Syntax, "the name of a tenant stands in single quotes"));
    };
    let (wrapping, options) = match options {
        [word, rest @ ..] if word.is("direct") => (Some(Wrapping::Direct), rest),
        [word, rest @ ..] if word.is("hierarchical") => (Some(Wrapping::Hierarchical), rest),
        all => (None, all),
    };
    let database = visit.database_behind(options)?;
    let wrapping = wrapping.unwrap_or(match visit.running.settings().keys.wrapping {
        crate::config::Wrapping::Direct => Wrapping::Direct,
        crate::config::Wrapping::Hierarchical => Wrapping::Hierarchical,
    });
    let detail = format!("register tenant, {}", wrapping.as_str());
    let name = &*database.shared.name;
    record(&visit, (name, tenant), &detail, "ok")?;
    match database.shared.keys.register(tenant, wrapping).await {
        Ok(_) => Ok(Vec::new()),
        Err(error) => {
            let refusal = not_registered(&error);
            record(&visit, (name, tenant), &format!("{detail}: failed"), refusal.class.sqlstate())?;
            Err(refusal)
        }
    }
}

fn not_registered(error: &RegistryError) -> Refusal {
    tracing::warn!(%error, "tenant not registered");
    match error {
        RegistryError::Name | RegistryError::Reserved => Refusal::new(Class::BadParameter, error.to_string()),
        RegistryError::OtherWrapping(_) => Refusal::new(Class::KeyUnavailable, error.to_string()),
        error if error.is_transient() => Refusal::new(Class::Unreachable, error.to_string()).hint("Try again."),
        error => Refusal::new(Class::KeyUnavailable, error.to_string()),
    }
}

fn nothing_behind(rest: &[Token]) -> Result<(), Refusal> {
    if rest.is_empty() { Ok(()) } else { Err(unexpected()) }
}

pub(super) fn unexpected() -> Refusal {
    Refusal::new(Class::Syntax, "something behind the command is not understood")
        .hint("SHOW HELP says how each command is written.")
}

/// Records an act.
///
/// # Errors
/// 58030 when it cannot be written: the act is not to be done then.
pub(super) fn record(
    visit: &Visit,
    (database, tenant): (&str, &str),
    detail: &str,
    result: &'static str,
) -> Result<(), Refusal> {
    let recorded = record_act(&visit.audit, (visit.who(database), visit.statement()), tenant, (detail, result));
    recorded.map_err(|error| {
        tracing::error!(%error, "audit record not written");
        Refusal::new(Class::Unreachable, "the act could not be recorded").hint("Ask the operator of the proxy.")
    })
}

impl Visit {
    /// The database that is meant by `[IN database]` at the end of a command.
    pub(super) fn database_behind(&self, rest: &[Token]) -> Result<Arc<Database>, Refusal> {
        match rest {
            [word, Token::Word(name) | Token::Text(name) | Token::Name(name)] if word.is("in") => {
                self.database(Some(name))
            }
            [] => self.database(None),
            _ => Err(unexpected()),
        }
    }

    /// The database that is meant: the one that is named, or the only one.
    fn database(&self, name: Option<&str>) -> Result<Arc<Database>, Refusal> {
        let databases = self.running.databases();
        let one = match (name, &databases[..]) {
            (Some(name), all) => all.iter().find(|(known, _)| &**known == name),
            (None, [one]) => Some(one),
            (None, _) => {
                let refusal = Refusal::new(Class::Syntax, "the policy has several databases");
                return Err(refusal.hint("Say which: IN database."));
            }
        };
        let Some((_, database)) = one else {
            return Err(Refusal::new(Class::BadParameter, "the policy has no database of this name"));
        };
        database
            .clone()
            .ok_or_else(|| Refusal::new(Class::Unreachable, "this database cannot be served yet").hint("Try again."))
    }
}
