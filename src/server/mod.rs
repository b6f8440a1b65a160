//! Module server.
