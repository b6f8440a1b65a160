//! To come.
use crate::Outcome;
use crate::compare::Known;
use crate::programs::Program;
pub fn run(_: &Program, _: &Known) -> Outcome { todo!() }
