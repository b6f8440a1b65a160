//! Rotation of master keys (K2) and wrapping again what a restored backup brought (K3): the real binary, real servers,
//! the strict stand-in for AWS KMS and the keyring file.
pub mod crash;
mod limits;
mod live;
mod load;
mod reseal;
pub mod stage;
mod strays;
