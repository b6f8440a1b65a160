//! A rotation from one master key to another (K2), with two workers of which each may be killed anywhere, two proxies that may
//! stop and wake up anywhere, and transactions that end when they like.
use super::explore::{Machine, explore};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Old,
    New,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    NotBegun,
    Creating,
    Switching,
    Rewrapping,
    Verifying,
    Deactivating,
    Done,
}

/// Where a worker is, in memory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// Killed, or not started.
    Gone,
    /// It has the lock and looks at the stage.
    Looking,
    /// It has found none that a killed one has made.
    Searched,
    /// The key service has made the key; nothing is written down.
    Made,
    /// Half of what is one transaction.
    HalfSwitched,
    /// No cell was left when the passes ended; who had a transaction open then is waited for.
    Marked([bool; 2]),
    /// The old key is disabled; nothing is written down.
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Proxy {
    /// In the registry's list.
    is_listed: bool,
    /// It has been silent for longer than its lease; while it is stopped it does nothing.
    is_stopped: bool,
    /// Whether it has a lease, and has looked at the registry since it got it.
    has_lease: bool,
    /// The active key that it goes by.
    knows: Key,
    /// Keys given to a session, not yet sent; and whether in the term that runs.
    granted: Option<(Key, bool)>,
    /// A transaction with a cell that is open at the server.
    open: Option<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    stage: Stage,
    /// Which keys the registry calls active: the old one, the new one.
    active: [bool; 2],
    /// At the key service.
    keys_made: u8,
    old_is_enabled: bool,
    /// Whether committed cells hang on the old key.
    old_cells: bool,
    /// A proxy that is not listed has sent a cell under the old key.
    sent_behind_the_fence: bool,
    proxies: [Proxy; 2],
    workers: [At; 2],
    lock: Option<usize>,
    kills_left: u8,
}

/// A safeguard that is left out, to see what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// A proxy sends what it was given in an earlier term.
    Terms,
    /// A proxy acknowledges what it goes by, whatever its sessions hold.
    Pins,
    /// The count does not wait for transactions.
    Waiting,
    /// What a killed worker has made is not looked for.
    Search,
    /// Two workers at a time.
    Lock,
    /// The old key is retired by a transaction of its own.
    Transaction,
    /// A proxy gives keys before it has looked at the registry again.
    Refresh,
}

struct Rotation {
    without: Without,
    kills: u8,
}

impl Rotation {
    fn has(&self, safeguard: Without) -> bool {
        self.without != safeguard
    }

    fn proxy_steps(&self, state: &State, p: usize, next: &mut Vec<(String, State)>) {
        let proxy = state.proxies[p];
        let mut step = |name: &str, change: &dyn Fn(&mut State, &mut Proxy)| {
            let (mut state, mut proxy) = (*state, state.proxies[p]);
            change(&mut state, &mut proxy);
            state.proxies[p] = proxy;
            next.push((format!("proxy {p} {name}"), state));
        };
        // The server ends what it has begun, whatever becomes of the proxy.
        if let Some(key) = proxy.open {
            step("commits", &move |state, proxy| {
                state.old_cells |= key == Key::Old;
                proxy.open = None;
            });
            step("rolls back", &|_, proxy| proxy.open = None);
        }
        if proxy.is_stopped {
            step("wakes up", &|_, proxy| proxy.is_stopped = false);
            return;
        }
        // For longer than the lease, and than a rotation waits.
        step("is stopped", &|_, proxy| {
            proxy.is_stopped = true;
            proxy.has_lease = false;
        });
        let active = if state.active[1] { Key::New } else { Key::Old };
        let refreshes = self.has(Without::Refresh);
        if !proxy.has_lease {
            step("gets a lease", &move |_, proxy| {
                proxy.is_listed = true;
                proxy.has_lease = true;
                if refreshes {
                    proxy.knows = active;
                }
                proxy.granted = proxy.granted.map(|(key, _)| (key, false));
            });
        }
        if proxy.knows != active {
            step("takes up the epoch", &move |_, proxy| proxy.knows = active);
        }
        if proxy.granted.is_none() && proxy.open.is_none() && proxy.has_lease {
            step("gives a key", &|_, proxy| proxy.granted = Some((proxy.knows, true)));
        }
        if let Some((key, is_of_this_term)) = proxy.granted {
            if !self.has(Without::Terms) || (is_of_this_term && proxy.has_lease) {
                step("sends a cell", &move |state, proxy| {
                    state.sent_behind_the_fence |= key == Key::Old && !proxy.is_listed;
                    (proxy.granted, proxy.open) = (None, Some(key));
                });
            }
            step("ends a session", &|_, proxy| proxy.granted = None);
        }
    }

    /// Whether a rotation may go on: every listed proxy has acknowledged the new key.
    fn acknowledged(&self, state: &State) -> bool {
        state.proxies.iter().all(|proxy| {
            let held = [proxy.granted.map(|(key, _)| key), proxy.open].into_iter().flatten().min();
            let acknowledges =
                if self.has(Without::Pins) { held.unwrap_or(Key::New).min(proxy.knows) } else { proxy.knows };
            !proxy.is_listed || acknowledges == Key::New
        })
    }

    fn worker_steps(&self, state: &State, w: usize, next: &mut Vec<(String, State)>) {
        let mut step = |name: &str, change: &dyn Fn(&mut State)| {
            let mut state = *state;
            change(&mut state);
            next.push((format!("worker {w} {name}"), state));
        };
        if state.workers[w] == At::Gone {
            if state.stage != Stage::Done && (state.lock.is_none() || !self.has(Without::Lock)) {
                step("starts", &|state| {
                    (state.workers[w], state.lock) = (At::Looking, Some(w));
                    if state.stage == Stage::NotBegun {
                        state.stage = Stage::Creating;
                    }
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
        match (state.workers[w], state.stage) {
            (At::Looking, Stage::Creating) => {
                let finds = state.keys_made > 0 && self.has(Without::Search);
                step("searches", &move |state| state.workers[w] = if finds { At::Made } else { At::Searched });
            }
            (At::Searched, Stage::Creating) => step("makes the key", &|state| {
                state.keys_made += 1;
                state.workers[w] = At::Made;
            }),
            (At::Made, Stage::Creating) if self.has(Without::Transaction) => step("switches", &|state| {
                (state.active, state.stage, state.workers[w]) = ([false, true], Stage::Switching, At::Looking);
            }),
            (At::Made, Stage::Creating) => step("retires the old key", &|state| {
                (state.active[0], state.workers[w]) = (false, At::HalfSwitched);
            }),
            (At::HalfSwitched, Stage::Creating) => step("switches", &|state| {
                (state.active, state.stage, state.workers[w]) = ([false, true], Stage::Switching, At::Looking);
            }),
            (At::Looking, Stage::Switching) => {
                self.fence(state, &mut step);
                if self.acknowledged(state) {
                    step("goes on to the cells", &|state| state.stage = Stage::Rewrapping);
                }
            }
            (At::Looking, Stage::Rewrapping) => step("wraps all cells that it sees", &|state| {
                (state.old_cells, state.stage) = (false, Stage::Verifying);
            }),
            (At::Looking, Stage::Verifying) => step("looks who is at work", &|state| {
                state.workers[w] = At::Marked([0, 1].map(|p| state.proxies[p].open.is_some()));
            }),
            (At::Marked(waited_for), Stage::Verifying) => {
                let waits = [0, 1].into_iter().any(|p| waited_for[p] && state.proxies[p].open.is_some());
                if !waits || !self.has(Without::Waiting) {
                    step("counts", &|state| {
                        state.stage = if state.old_cells { Stage::Rewrapping } else { Stage::Deactivating };
                        state.workers[w] = At::Looking;
                    });
                }
            }
            (At::Looking, Stage::Deactivating) => step("disables the old key", &|state| {
                (state.old_is_enabled, state.workers[w]) = (false, At::Disabled);
            }),
            (At::Disabled, Stage::Deactivating) => step("writes the end down", &|state| {
                state.stage = Stage::Done;
                gone(state, w);
            }),
            // Another one has come in between: what it wanted to change is not as it was.
            _ => step("gives up", &|state| gone(state, w)),
        }
    }

    fn fence(&self, state: &State, step: &mut impl FnMut(&str, &dyn Fn(&mut State))) {
        for p in 0..2 {
            if state.proxies[p].is_listed && !state.proxies[p].has_lease {
                step(&format!("fences proxy {p}"), &|state| state.proxies[p].is_listed = false);
            }
        }
    }
}

fn gone(state: &mut State, w: usize) {
    state.workers[w] = At::Gone;
    if state.lock == Some(w) {
        state.lock = None;
    }
}

impl Machine for Rotation {
    type State = State;

    fn first(&self) -> State {
        let proxy =
            Proxy { is_listed: true, is_stopped: false, has_lease: true, knows: Key::Old, granted: None, open: None };
        State {
            stage: Stage::NotBegun,
            active: [true, false],
            keys_made: 0,
            old_is_enabled: true,
            old_cells: true,
            sent_behind_the_fence: false,
            proxies: [proxy; 2],
            workers: [At::Gone; 2],
            lock: None,
            kills_left: self.kills,
        }
    }

    fn next(&self, state: &State) -> Vec<(String, State)> {
        let mut next = Vec::new();
        for n in 0..2 {
            self.worker_steps(state, n, &mut next);
            self.proxy_steps(state, n, &mut next);
        }
        next
    }

    fn wrong(&self, state: &State) -> Option<&'static str> {
        if !state.old_is_enabled && state.old_cells {
            return Some("a cell hangs on a disabled key");
        }
        if state.sent_behind_the_fence {
            return Some("a cell under the old key was sent behind the fence");
        }
        if state.active[0] == state.active[1] {
            return Some("not one active key");
        }
        (state.keys_made > 1).then_some("a key that nobody knows")
    }

    fn is_done(&self, state: &State) -> bool {
        state.stage == Stage::Done
    }
}

#[test]
fn a_rotation_loses_no_cell_and_always_ends() {
    let states = explore(&Rotation { without: Without::Nothing, kills: 2 }).unwrap();
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn each_safeguard_of_a_rotation_is_needed() {
    for (without, wrong) in [
        (Without::Terms, "a cell under the old key was sent behind the fence"),
        (Without::Pins, "a cell hangs on a disabled key"),
        (Without::Search, "a key that nobody knows"),
        (Without::Lock, "a key that nobody knows"),
        (Without::Transaction, "not one active key"),
        (Without::Refresh, "a cell hangs on a disabled key"),
        (Without::Waiting, "a cell hangs on a disabled key"),
    ] {
        let told = explore(&Rotation { without, kills: 1 }).expect_err(&format!("{without:?}"));
        assert!(told.starts_with(wrong), "{without:?}: {told}");
    }
}
