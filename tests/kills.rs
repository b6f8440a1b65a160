//! kill -9 of everything there is, at every point of every job on keys, while clients write: of the command at work, of the
//! proxy, of Postgres. Which, where and when comes from a seed.
//!
//! `make kills` does it 300 times; `SEED=` and `KILLS=` say otherwise, and one seed again is the same kills again but for the timing. Each kill is told on standard error.
use std::collections::BTreeMap;

mod acts;
mod durable;
mod lost;
mod storm;
mod writers;

/// Kills before a season ends: then everything is compared and the next one begins with other keys and another mode.
const SEASON: u64 = 13;
const KILLS: u64 = 25;
const SEED: u64 = 20_261_125;

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn a_storm_of_kills_loses_nothing() {
    let (seed, kills) = (number("KILLS_SEED", SEED), number("KILLS", KILLS));
    let mut random = Random(seed);
    let (mut done, mut tally) = (0, BTreeMap::<String, u64>::new());
    for season in 0.. {
        let goal = kills.min(done + SEASON);
        let wrapping = ["direct", "hierarchical"][season % 2];
        eprintln!("seed {seed}, {wrapping}, from kill {done}");
        let mut storm = storm::Storm::start(wrapping);
        while done < goal {
            for killed in storm.strike(&mut random) {
                done += 1;
                eprintln!("kill {done}: {killed}");
                *tally.entry(killed.split(',').next().unwrap().to_owned()).or_default() += 1;
            }
        }
        storm.end();
        if done >= kills {
            break;
        }
    }
    eprintln!("seed {seed}: {done} kills, nothing was lost: {tally:?}");
}
