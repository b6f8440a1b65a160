//! RowSeal: a transparent encryption proxy in front of Postgres.
//!
//! The modules in reading order, each importing only from those further down the list:
//!
//! * [`cli`]: arguments and subcommands, one file each.
//! * [`admin`]: what an operator may ask of a running proxy.
//! * [`config`]: the TOML file, checked into settings before a port opens.
//! * [`server`]: listener, TLS, upstream connections, drain.
//! * [`jobs`]: long work on stored data: sealing and unsealing of existing columns.
//! * [`session`]: one connection: a machine without I/O and the driver that feeds it.
//! * [`sql`]: what the proxy does to a statement: filter, parse, resolve, plan, edits.
//! * [`catalog`]: what the proxy knows of the server's schema.
//! * [`policy`]: which columns are sealed, whose rows they are, who may read.
//! * [`keys`]: key hierarchy, pools and caches, the KMS providers, the registry.
//! * [`audit`]: the record of every key use.
//! * [`refusal`]: every error a client may be sent.
//! * [`types`]: logical types: text, binary and canonical forms.
//! * [`crypto`]: the cell format and its cryptography; pure functions on bytes.
//! * [`hex`]: hexadecimal digits.
//! * [`hash`]: the maps that statements look into.
//! * [`setup`]: schema `rowseal` in the protected database.
//! * [`wire`]: frames and messages of the Postgres protocol.
pub mod admin;
pub mod audit;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod hash;
pub mod hex;
pub mod jobs;
pub mod keys;
pub mod policy;
pub mod refusal;
pub mod server;
pub mod session;
pub mod setup;
pub mod sql;
pub mod types;
pub mod wire;
