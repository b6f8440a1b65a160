//! All states that a machine can come to, and whether it can always end.
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

/// A machine whose states can be enumerated.
pub trait Machine {
    type State: Clone + Eq + Hash + Debug;

    fn first(&self) -> Self::State;

    /// What may happen next, each with its name.
    fn next(&self, state: &Self::State) -> Vec<(String, Self::State)>;

    /// What is wrong with a state, if anything is.
    fn wrong(&self, state: &Self::State) -> Option<&'static str>;

    /// Whether the work is done.
    fn is_done(&self, state: &Self::State) -> bool;
}

/// How many states there are; or what is wrong, with the shortest way there.
pub fn explore<M: Machine>(machine: &M) -> Result<usize, String> {
    let mut states = vec![machine.first()];
    let mut known = HashMap::from([(machine.first(), 0)]);
    let mut came_from: Vec<Option<(usize, String)>> = vec![None];
    let mut before: Vec<Vec<usize>> = vec![Vec::new()];
    let mut at = 0;
    while at < states.len() {
        if let Some(wrong) = machine.wrong(&states[at]) {
            return Err(told(wrong, &way(&came_from, at), &states[at]));
        }
        for (name, state) in machine.next(&states[at]) {
            let to = *known.entry(state.clone()).or_insert(states.len());
            if to == states.len() {
                states.push(state);
                came_from.push(Some((at, name)));
                before.push(Vec::new());
            }
            before[to].push(at);
        }
        at += 1;
    }
    // Backwards from the end: whoever is not met can never end.
    let mut ends = vec![false; states.len()];
    let mut open: Vec<usize> = (0..states.len()).filter(|at| machine.is_done(&states[*at])).collect();
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut ends[at], true) {
            open.extend(&before[at]);
        }
    }
    match ends.iter().position(|ends| !ends) {
        Some(at) => Err(told("it can never end", &way(&came_from, at), &states[at])),
        None => Ok(states.len()),
    }
}

fn way(came_from: &[Option<(usize, String)>], mut at: usize) -> Vec<&str> {
    let mut names = Vec::new();
    while let Some((before, name)) = &came_from[at] {
        names.push(&**name);
        at = *before;
    }
    names.reverse();
    names
}

fn told(wrong: &str, way: &[&str], state: &impl Debug) -> String {
    format!("{wrong}: {}\n{state:?}", way.join(", "))
}
