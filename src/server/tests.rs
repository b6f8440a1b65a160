//! Tests of the whole outside.
