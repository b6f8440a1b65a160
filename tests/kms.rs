//! The KMS providers: one suite of behaviour over the keyring file and over AWS KMS (the strict stand-in, and moto as a
//! second opinion), what is special to each, and AWS KMS behind the facade and the whole proxy.
mod aws;
mod facade;
mod local;
mod moto;
pub mod proxy;
mod reconcile;
mod suite;
mod trouble;
