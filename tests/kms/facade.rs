//! AWS KMS behind the facade of keys: registration and grants against a real registry and the strict stand-in.
