//! A registration (K1): two attempts at the same tenant, of which each may be killed anywhere.
use super::explore::{Machine, explore};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Gone,
    /// It has the lock, and has written the intent or found it: then a key may have been made for it.
    Intends {
        is_new: bool,
    },
    /// The key service has made the key, or one was found.
    Made,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    has_intent: bool,
    is_active: bool,
    keys_made: u8,
    keys_recorded: u8,
    attempts: [At; 2],
    lock: Option<usize>,
    kills_left: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// One attempt at a time.
    Lock,
    /// What a killed attempt has made is looked for.
    Search,
    /// The intent is on disk before the key is made: the server forgets it in a crash.
    Durability,
}

struct Registration(Without);

impl Registration {
    fn steps(&self, state: &State, w: usize, next: &mut Vec<(String, State)>) {
        let mut step = |name: &str, change: &dyn Fn(&mut State)| {
            let mut state = state.clone();
            change(&mut state);
            next.push((format!("attempt {w} {name}"), state));
        };
        let at = state.attempts[w];
        if at == At::Gone {
            if !state.is_active && (state.lock.is_none() || self.0 == Without::Lock) {
                step("starts", &|state| {
                    let is_new = !std::mem::replace(&mut state.has_intent, true);
                    (state.attempts[w], state.lock) = (At::Intends { is_new }, Some(w));
                });
            }
            return;
        }
        if state.kills_left > 0 {
            step("is killed", &|state| {
                state.kills_left -= 1;
                gone(state, w);
            });
        }
        match at {
            At::Intends { is_new } => {
                let finds = !is_new && self.0 != Without::Search && state.keys_made > 0;
                step("finds or makes the key", &move |state| {
                    state.keys_made += u8::from(!finds);
                    state.attempts[w] = At::Made;
                });
            }
            At::Made if !state.is_active => step("records the keys", &|state| {
                state.is_active = true;
                state.keys_recorded += 1;
                gone(state, w);
            }),
            _ => step("finds it done", &|state| gone(state, w)),
        }
    }
}

fn gone(state: &mut State, w: usize) {
    state.attempts[w] = At::Gone;
    if state.lock == Some(w) {
        state.lock = None;
    }
}

impl Machine for Registration {
    type State = State;

    fn first(&self) -> State {
        State {
            has_intent: false,
            is_active: false,
            keys_made: 0,
            keys_recorded: 0,
            attempts: [At::Gone; 2],
            lock: None,
            kills_left: 3,
        }
    }

    fn next(&self, state: &State) -> Vec<(String, State)> {
        let mut next = Vec::new();
        for w in 0..2 {
            self.steps(state, w, &mut next);
        }
        // A crash of the server ends both, and loses what is not on disk.
        if state.kills_left > 0 {
            let mut crashed = State { kills_left: state.kills_left - 1, ..state.clone() };
            (0..2).for_each(|w| gone(&mut crashed, w));
            crashed.has_intent &= state.is_active || self.0 != Without::Durability;
            next.push(("the server crashes".to_owned(), crashed));
        }
        next
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        if state.is_active && (state.keys_recorded != 1 || state.keys_made == 0) {
            return Some("a half tenant");
        }
        (state.keys_made > 1).then_some("a key that nobody knows")
    }

    fn is_done(&self, state: &State) -> bool {
        state.is_active
    }
}

#[test]
fn a_registration_leaves_no_half_tenant_and_no_orphan_and_always_ends() {
    let states = explore(&Registration(Without::Nothing)).unwrap();
    assert!(states > 20, "only {states} states");
}

#[test]
fn each_safeguard_of_a_registration_is_needed() {
    for without in [Without::Lock, Without::Search, Without::Durability] {
        let told = explore(&Registration(without)).unwrap_err();
        assert!(told.starts_with("a key that nobody knows"), "{without:?}: {told}");
    }
}
