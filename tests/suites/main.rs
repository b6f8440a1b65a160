//! Do real programs work through RowSeal as they do on Postgres (T1)? Each runs twice, on a plain database directly and on
//! a sealed one through the proxy, and says the same, but for what stands with its reason in known.toml. `make suites`
//! runs it; README.md beside this file says how to add a program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must panic")]
#![allow(clippy::print_stdout, reason = "a table for whoever runs it")]
#![allow(dead_code, reason = "the tests' support code has more than this needs")]

mod compare;
mod dump;
mod programs;
mod run;
mod sqlsmith;
#[path = "../support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use compare::Known;
use programs::PROGRAMS;

/// What became of one program.
pub struct Outcome {
    /// What it says of itself.
    pub version: String,
    /// How many answers were compared.
    pub answers: usize,
    /// Differences that known.toml explains.
    pub known: usize,
    /// Everything else that is wrong, each ready to be shown.
    pub wrong: Vec<String>,
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    for name in &wanted {
        assert!(PROGRAMS.iter().any(|program| program.name == name), "no program {name} in tests/suites/programs.rs");
    }
    let known = Known::read();
    let mut rows = Vec::new();
    for program in PROGRAMS.iter().filter(|program| wanted.is_empty() || wanted.iter().any(|name| name == program.name))
    {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| (program.run)(program, &known)));
        let outcome = result.unwrap_or_else(|_| failed("it could not be run, see above"));
        println!("{}: {}", program.name, told(&outcome));
        outcome.wrong.iter().for_each(|text| println!("{text}"));
        rows.push((program.name, outcome, started.elapsed()));
    }
    print_table(&rows);
    if rows.iter().all(|(_, outcome, _)| outcome.wrong.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed(why: &str) -> Outcome {
    Outcome { version: "?".to_owned(), answers: 0, known: 0, wrong: vec![why.to_owned()] }
}

fn told(outcome: &Outcome) -> String {
    match (outcome.wrong.len(), outcome.known) {
        (0, 0) => "same".to_owned(),
        (0, known) => format!("same but for {known} known"),
        (wrong, _) => format!("{wrong} WRONG"),
    }
}

fn print_table(rows: &[(&str, Outcome, Duration)]) {
    println!("\n{:<20} {:<34} {:>8}  {:<24} {:>5}", "program", "version", "answers", "outcome", "s");
    for (name, outcome, took) in rows {
        let (version, told) = (&outcome.version, told(outcome));
        println!("{name:<20} {version:<34} {:>8}  {told:<24} {:>5}", outcome.answers, took.as_secs());
    }
}
