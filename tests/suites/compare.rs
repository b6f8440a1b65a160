//! What a program said on either side, compared answer by answer.
//!
//! A program prints `version ...` first, then for each step a line `== its name` and whatever the answer was.
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::Outcome;

/// Differences that are understood, by their reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Stands in the answer of the sealed side.
    sealed: String,
    /// Why it is so, and stays so for now.
    reason: String,
    /// For each program the steps that show it.
    steps: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    difference: Vec<Entry>,
}

/// The entries of known.toml, and which of them were met.
pub struct Known {
    entries: Vec<Entry>,
    met: RefCell<BTreeSet<(String, String)>>,
}

impl Known {
    /// Reads known.toml; panics if an entry has no reason, or a step stands twice.
    pub fn read() -> Known {
        let entries = toml::from_str::<File>(include_str!("known.toml")).unwrap().difference;
        let mut all = BTreeSet::new();
        for entry in &entries {
            assert!(entry.reason.len() > 20 && entry.sealed.len() > 3, "{}: no reason", entry.sealed);
            for (program, steps) in &entry.steps {
                assert!(steps.iter().all(|step| all.insert((program, step))), "{program}: {steps:?} stands twice");
            }
        }
        Known { entries, met: RefCell::default() }
    }

    /// True if this difference is listed.
    pub fn explains(&self, program: &str, step: &str, sealed: &str) -> bool {
        let named = |entry: &&Entry| entry.steps.get(program).is_some_and(|steps| steps.iter().any(|s| s == step));
        let found = self.entries.iter().filter(named).any(|entry| sealed.contains(&entry.sealed));
        if found {
            self.met.borrow_mut().insert((program.to_owned(), step.to_owned()));
        }
        found
    }

    /// The listed differences of a program that were not met: they are to be taken out.
    pub fn stale(&self, program: &str) -> Vec<String> {
        let met = self.met.borrow();
        let listed = self.entries.iter().filter_map(|entry| entry.steps.get(program)).flatten();
        let unmet = listed.filter(|step| !met.contains(&(program.to_owned(), (*step).clone())));
        unmet.map(|step| format!("  {step}: listed in known.toml, but not so")).collect()
    }
}

/// A program's output, cut into steps.
struct Said<'a> {
    version: &'a str,
    steps: Vec<(&'a str, &'a str)>,
}

fn cut(output: &str) -> Said<'_> {
    let (head, rest) = output.split_once("\n== ").unwrap_or((output, ""));
    let version = head.lines().find_map(|line| line.strip_prefix("version ")).unwrap_or("?");
    let step = |part: &'_ str| -> (usize, usize) { (part.find('\n').unwrap_or(part.len()), part.len()) };
    let steps = rest.split("\n== ").filter(|part| !part.is_empty()).map(|part| {
        let (name, end) = step(part);
        (&part[..name], part[name..end].trim_matches('\n'))
    });
    Said { version, steps: steps.collect() }
}

/// Holds what a program said on the sealed side against what it said on the plain one.
pub fn compare(program: &str, plain: &str, sealed: &str, known: &Known) -> Outcome {
    let (plain, sealed) = (cut(plain), cut(sealed));
    let mut outcome =
        Outcome { version: plain.version.to_owned(), answers: plain.steps.len(), known: 0, wrong: Vec::new() };
    let names = |said: &Said<'_>| said.steps.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    let unique: BTreeSet<String> = names(&plain).into_iter().collect();
    if unique.len() != plain.steps.len() || plain.steps.is_empty() || plain.version == "?" {
        outcome.wrong.push(format!("  not a list of different steps: {:?}", names(&plain)));
    }
    if names(&plain) != names(&sealed) {
        outcome.wrong.push(format!("  other steps on the sealed side: {:?}", names(&sealed)));
    }
    // A step that a program got wrong shows nothing.
    let broken = plain.steps.iter().filter(|(_, said)| said.lines().any(|line| line.starts_with("broken ")));
    outcome.wrong.extend(broken.map(|(name, said)| format!("  {name}\n    plain:   {said}")));
    for ((name, plain), (_, sealed)) in plain.steps.iter().zip(&sealed.steps) {
        if plain == sealed {
            continue;
        }
        if known.explains(program, name, sealed) {
            outcome.known += 1;
        } else {
            outcome.wrong.push(difference(name, plain, sealed));
        }
    }
    outcome.wrong.extend(known.stale(program));
    outcome
}

/// The first line that differs, with those after it.
fn difference(name: &str, plain: &str, sealed: &str) -> String {
    let same = plain.lines().zip(sealed.lines()).take_while(|(a, b)| a == b).count();
    let shown = |text: &str| text.lines().skip(same).take(8).collect::<Vec<_>>().join("\n             ");
    format!("  {name}\n    plain:   {}\n    sealed:  {}", shown(plain), shown(sealed))
}
