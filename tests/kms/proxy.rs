//! AWS KMS behind the whole proxy: the real binary, a real server, the strict stand-in.
