//! What tests share: real servers and real clients, never a mock of our own types.
pub mod clients;
pub mod guard;
pub mod haproxy;
pub mod peer;
pub mod postgres;
pub mod proxy;
pub mod raw;
pub mod tap;
