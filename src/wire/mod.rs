//! Frames and messages of the Postgres protocol; pure functions on bytes.
pub mod startup;
