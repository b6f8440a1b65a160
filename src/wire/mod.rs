//! Frames and messages of the Postgres protocol, version 3.
//!
//! Views borrow from one isolated frame and are parsed strictly inside its bounds, as bytes. Nothing here knows what
//! a message is for. Specification: the chapter "Frontend/Backend Protocol" of the Postgres manual.
pub mod backend;
pub mod copy;
pub mod frame;
pub mod frontend;
pub mod read;
pub mod startup;
