//! RowSeal.
fn main() {}
