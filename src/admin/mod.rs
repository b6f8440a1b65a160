//! What an operator may ask of a running proxy.
//!
//! [`running`] is that proxy, and reads its policy file again; [`check`] holds a policy against the live database; [`facts`] is
//! what the command line and the [`console`] both tell, [`rotations`] what the proxy does in the background.
pub mod check;
pub mod console;
pub mod facts;
pub mod rotations;
pub mod running;

use crate::audit::{Act, Audit, AuditError, Record, Who};

/// Records an act, before it is done or when it has failed: by whom, for which tenant, what, and `ok` or the SQLSTATE.
///
/// # Errors
/// When it cannot be written: the act is not to be done then.
fn record_act(
    audit: &Audit,
    (who, statement): (Who, u64),
    tenant: &str,
    (detail, result): (&str, &'static str),
) -> Result<(), AuditError> {
    audit.append(&[Record {
        act: Act::Key,
        who,
        statement,
        tenant: tenant.into(),
        key: None,
        dek_ids: Vec::new(),
        columns: Vec::new(),
        rows: 0,
        result,
        kms_requests: Vec::new(),
        detail: Some(detail.to_owned()),
    }])
}

/// An error with everything that caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
