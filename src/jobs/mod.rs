//! Long work on stored data, done beside the proxies and able to stop and go on at any point.
//!
//! [`column`] seals existing plaintext columns in place, and opens them again.
pub mod column;
