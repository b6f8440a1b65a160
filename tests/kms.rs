//! The KMS providers: one suite of behaviour over the keyring file and over AWS KMS (the strict stand-in), then what
//! is special to each.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "kms/aws.rs"]
mod aws;
#[path = "kms/local.rs"]
mod local;
#[path = "strict_kms/server.rs"]
mod server;
#[path = "kms/suite.rs"]
mod suite;
