//! Registration of tenants (K1): one at its first write, many from a list; whatever is killed or fails on the way, each has
//! one master key in the end and no key is nobody's. The real binary, a real server, the strict stand-in for AWS KMS.
mod first_writes;
mod killed;
mod list;
mod shown;
mod stage;
