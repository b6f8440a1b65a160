//! The one integration binary. A new test file is a module here; what tests share stands in [`support`].
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]
#![allow(dead_code, reason = "support code is written for tests that come and go")]

mod attacks;
mod audit_log;
mod badinput;
mod built;
mod bulk;
mod canary;
mod case_twins;
mod clients;
mod control_tls;
mod copies;
mod copy;
mod copy_ways;
mod ddl;
mod demo;
mod documents;
mod encodings;
mod fence;
mod guard;
mod kms;
mod leftover;
mod lint;
mod machine;
mod memory;
mod migrations;
mod misspelt;
mod named;
mod pipeline;
mod positions;
mod postgres;
mod random_sessions;
mod random_sql;
mod recording;
mod registration;
mod revocation;
mod roles;
mod rotation;
mod schema;
mod sealing;
#[path = "strict_kms/server.rs"]
mod strict_kms;
mod structure;
mod support;
mod tamper;
mod transactions;
mod twin;
mod twin_ddl;
mod twin_formats;
mod twin_psql;
mod twin_sql;
mod twin_types;
mod types;
mod uncommitted;
mod updates;
mod wire;
