//! Statements made at random, on sealed tables through the proxy and on plain twins directly: each gives the same rows,
//! columns, tags and SQLSTATE, or is refused by name (T3, T4, T5). No value reaches the server, no cell the client, and no
//! session is lost. What is known to differ is said in [`known`].
//!
//! `RANDOM_SQL_COUNT` is how many statements are run on each version, `RANDOM_SQL_SEED` the first seed. To see one seed
//! again: its number and a count of 1.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::postgres::Version;
use compare::{Fault, Twins};

mod bulk;
mod changes;
pub mod compare;
mod grammar;
mod known;
mod params;
mod pinned;
mod queries;
mod tables;
mod writer;

/// Of a hundred statements of a kind, at most so many are refused.
const REFUSED_PERCENT_MAX: usize = 60;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn check(version: Version) {
    let long = std::env::var("RANDOM_SQL_COUNT").is_ok();
    let (count, seed) = (number("RANDOM_SQL_COUNT", 300), number("RANDOM_SQL_SEED", 1));
    let mut twins = Twins::start(version);
    let (mut wrong, mut next, start) = (Vec::new(), seed, Instant::now());
    let mut run = 0;
    // Bounded on a slow machine too.
    while run < count && (long || start.elapsed() < Duration::from_secs(20)) {
        let case = grammar::case(next);
        run += case.steps.len() as u64;
        if let Some((fault, text)) = twins.run(&case) {
            eprintln!("{version:?} seed {next}: {fault:?}: {text}\n");
            wrong.push((fault, next, text));
        }
        next += 1;
        if next % 500 == 0 {
            wrong.extend(twins.leaks_in_logs().map(|leak| (Fault::Leak, next, leak)));
        }
    }
    wrong.extend(twins.leaks_in_logs().map(|leak| (Fault::Leak, next, leak)));
    wrong.sort();
    let refused: BTreeMap<_, _> = twins.counts.iter().map(|(kind, c)| (kind, c.refused * 100 / c.run)).collect();
    eprintln!(
        "{version:?}: {run} statements, seeds {seed} to {}, {} differ\n  refused, in percent: {refused:?}\n  known: {:?}",
        next - 1,
        wrong.len(),
        twins.allowed
    );
    let mut said: Vec<_> = twins.refusals.iter().map(|(said, n)| (*n, said)).collect();
    said.sort_by(|a, b| b.cmp(a));
    eprintln!("  refusals: {:#?}", &said[..said.len().min(12)]);
    let told: Vec<String> = wrong.iter().map(|(f, seed, text)| format!("seed {seed}: {f:?}: {text}")).collect();
    assert!(wrong.is_empty(), "{version:?}: {} of {run} differ:\n{}", wrong.len(), told.join("\n"));
    let often = |c: &compare::Count| c.run >= 20 && c.refused * 100 > c.run * REFUSED_PERCENT_MAX;
    assert!(!twins.counts.values().any(often), "{version:?}: too many are refused: {:?}", twins.counts);
}

#[test]
fn random_statements_agree_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn random_statements_agree_on_postgres_18() {
    check(Version::V18);
}

/// Another connection drops tables and makes them anew all the while.
#[test]
fn tables_that_come_and_go_let_nothing_out() {
    let (count, seed) = (number("RANDOM_SQL_COUNT", 400) / 2, number("RANDOM_SQL_SEED", 1));
    let mut twins = Twins::start(Version::V15);
    let cases: Vec<_> = (seed..seed + count).map(|seed| (seed, grammar::case(seed))).collect();
    let mut wrong = twins.storm(&cases);
    wrong.extend(twins.leaks_in_logs().map(|leak| (0, Fault::Leak, leak)));
    let told: Vec<String> = wrong.iter().map(|(seed, f, text)| format!("seed {seed}: {f:?}: {text}")).collect();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), told.join("\n"));
}
