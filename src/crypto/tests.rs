//! Tests of the cell format.
