//! What a program said on either side, compared answer by answer.
//!
//! A program prints `version ...` first, then for each step a line `== its name` and whatever the answer was.
use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::Deserialize;

use crate::Outcome;

/// One difference that is understood.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    program: String,
    step: String,
    /// Stands in the answer of the sealed side.
    sealed: String,
    /// Why it is so, and stays so for now.
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    difference: Vec<Entry>,
}

/// The entries of known.toml, and which of them were met.
pub struct Known {
    entries: Vec<Entry>,
    met: RefCell<BTreeSet<usize>>,
}

impl Known {
    /// Reads known.toml; panics if an entry has no reason.
    pub fn read() -> Known {
        let file: File = toml::from_str(include_str!("known.toml")).unwrap();
        for entry in &file.difference {
            assert!(entry.reason.len() > 20, "{}, {}: no reason", entry.program, entry.step);
        }
        Known { entries: file.difference, met: RefCell::default() }
    }

    /// True if this difference is listed.
    pub fn explains(&self, program: &str, step: &str, sealed: &str) -> bool {
        let fits = |entry: &Entry| entry.program == program && entry.step == step && sealed.contains(&entry.sealed);
        let found = self.entries.iter().position(fits);
        found.is_some_and(|at| self.met.borrow_mut().insert(at) || true)
    }

    /// The listed differences of a program that were not met: they are to be taken out.
    pub fn stale(&self, program: &str) -> Vec<String> {
        let met = self.met.borrow();
        let unmet = |(at, entry): &(usize, &Entry)| entry.program == program && !met.contains(at);
        let told = |(_, entry): (usize, &Entry)| format!("  {}: listed in known.toml, but not so", entry.step);
        self.entries.iter().enumerate().filter(unmet).map(told).collect()
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
