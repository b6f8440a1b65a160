//! What the proxy does to a statement: filter, parse, resolve, plan, edits.
pub mod plan;
