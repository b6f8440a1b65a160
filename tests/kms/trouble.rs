//! The key service in trouble while clients are at work (E7): throttled, away, slow; and a thousand sessions that all want
//! the same keys at once. The ratios are told on standard error.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::proxy::{INSERT, Stage, first_values, sqlstate};
use crate::support::guard::poll;
use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::Proxy;

const CLIENTS: i64 = 4;
/// Rows that clients read over and over, and rows that nobody has read yet.
const WARM: i64 = 6;
const COLD: i64 = 300;
/// A statement waits at most ten seconds for its keys; the rest is what a machine that does much else adds.
const BOUND: Duration = Duration::from_secs(10 + 20);
/// How long an opened data key stays cached in direct mode, less some seconds.
const CACHED_FOR: Duration = Duration::from_secs(570);
const READ: &str = "SELECT email FROM users WHERE account_id = 1 AND id = $1";

/// Clients whose keys are all there.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Begins once every client has had an answer to each of its statements.
    fn start(stage: &Stage, address: SocketAddr, writes: bool) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let ready = Arc::new(Barrier::new(CLIENTS as usize + 1));
        let clients = (0..CLIENTS)
            .map(|n| {
                let (stop, done, ready) = (stop.clone(), done.clone(), ready.clone());
                stage.runtime.spawn(async move {
                    let client = connect_at(address, "app").await;
                    let mut errors = Vec::new();
                    for id in 1..=WARM {
                        warm(&client, (n, id), writes).await.unwrap();
                    }
                    ready.wait().await;
                    for turn in 0.. {
                        if stop.load(SeqCst) {
                            break;
                        }
                        match warm(&client, (n, 1 + turn % WARM), writes).await {
                            Ok(()) => drop(done.fetch_add(1, SeqCst)),
                            Err(error) => errors.push(sqlstate(&error)),
                        }
                        if errors.len() > 20 {
                            break;
                        }
                    }
                    errors
                })
            })
            .collect();
        stage.runtime.block_on(ready.wait());
        Load { stop, done, clients }
    }

    /// Statements in a second, over some time.
    fn rate(&self, during: Duration) -> f64 {
        let (before, began) = (self.done.load(SeqCst), Instant::now());
        std::thread::sleep(during);
        (self.done.load(SeqCst) - before) as f64 / began.elapsed().as_secs_f64()
    }

    /// The errors that the clients got.
    fn stop(self, stage: &Stage) -> Vec<String> {
        self.stop.store(true, SeqCst);
        self.clients.into_iter().flat_map(|client| stage.runtime.block_on(client).unwrap()).collect()
    }
}

/// Reads, a search, and in hierarchical mode, where no call is needed for it, a write.
async fn warm(client: &Client, (n, id): (i64, i64), writes: bool) -> Result<(), tokio_postgres::Error> {
    let row = client.query_one(READ, &[&id]).await?;
    assert_eq!(row.get::<_, String>(0), email(id));
    let search = "SELECT id FROM users WHERE account_id = 1 AND email = $1";
    assert_eq!(client.query_one(search, &[&email(id)]).await?.get::<_, i64>(0), id);
    if writes {
        let update = "UPDATE users SET ssn = $2 WHERE account_id = 1 AND id = $1";
        client.execute(update, &[&(-1 - n), &format!("ssn {id}")]).await?;
    }
    Ok(())
}

fn email(id: i64) -> String {
    format!("user{id}@example.com")
}

/// Rows written by a proxy that has ended since, and a new one that has opened none of them.
fn filled(wrapping: &str, confirm_interval: &str) -> (Stage, Proxy) {
    let mut stage = Stage::start(wrapping);
    stage.site.set_environment([("ROWSEAL_KEYS_CONFIRM_INTERVAL", confirm_interval)]);
    let proxy = stage.site.serve();
    let ids = (-CLIENTS..0).chain(1..=WARM).chain(1000..1000 + COLD);
    let rows: Vec<String> = ids.map(|id| format!("({id}, 1, '{}', NULL)", email(id))).collect();
    stage.run(proxy.address(), &format!("{INSERT} {}", rows.join(", "))).unwrap();
    assert_eq!(proxy.stop(), 0);
    let proxy = stage.site.serve();
    (stage, proxy)
}

/// A statement whose keys are not there: what became of it, within the bound.
fn cold(stage: &Stage, proxy: &Proxy, sql: &str) -> Result<Vec<String>, String> {
    let began = Instant::now();
    let outcome = stage.run(proxy.address(), sql);
    assert!(began.elapsed() < BOUND, "{sql} took {:?}", began.elapsed());
    assert!(outcome.is_ok() || outcome == Err("58030".to_owned()), "{sql}: {outcome:?}");
    outcome
}

fn read_cold(id: i64) -> String {
    format!("SELECT email FROM users WHERE account_id = 1 AND id = {}", 1000 + id)
}

/// What is cold in either mode: in hierarchical mode only another tenant is.
fn write_cold(id: i64) -> String {
    format!("{INSERT} ({id}, 2, 'cold {id}', 'x')")
}

/// The warm go on, whatever happens; gives how much slower or faster they were.
fn in_trouble(stage: &Stage, load: &Load, knobs: &serde_json::Value, during: impl FnOnce() -> f64) -> f64 {
    let before = load.rate(Duration::from_secs(2));
    stage.set(knobs);
    let meanwhile = during();
    assert!(meanwhile > 0.0, "nothing went on");
    meanwhile / before
}

#[test]
fn a_throttled_key_service_does_not_reach_warm_statements() {
    for wrapping in ["direct", "hierarchical"] {
        let (stage, proxy) = filled(wrapping, "60s");
        let load = Load::start(&stage, proxy.address(), wrapping == "hierarchical");
        let many = format!("SELECT email FROM users WHERE account_id = 1 AND id BETWEEN 1000 AND {}", 999 + COLD);
        let ratio = in_trouble(&stage, &load, &json!({"quota_per_second": 50}), || {
            std::thread::scope(|scope| {
                // More keys at once than the quota of some seconds.
                let reader = scope.spawn(|| poll("many rows", || cold(&stage, &proxy, &many).ok()));
                let rate = load.rate(Duration::from_secs(4));
                assert_eq!(reader.join().unwrap().len(), COLD as usize);
                rate
            })
        });
        poll("a write under the quota", || cold(&stage, &proxy, &write_cold(5000)).ok());
        stage.set(&json!({"quota_per_second": 0}));
        assert_eq!(load.stop(&stage), [""; 0], "{wrapping}");
        eprintln!("{wrapping}, 50 calls a second: warm statements at {ratio:.2} of before");
    }
}

#[test]
fn warm_statements_outlive_an_outage_and_cold_ones_fail_in_time() {
    let seconds = std::env::var("OUTAGE").map_or(8, |text| text.parse().expect("OUTAGE in seconds"));
    let outage = Duration::from_secs(seconds);
    for wrapping in ["direct", "hierarchical"] {
        // A key serves for as long as that without being confirmed.
        let interval = format!("{}s", seconds + 60);
        let (stage, proxy) = filled(wrapping, &interval);
        let load = Load::start(&stage, proxy.address(), wrapping == "hierarchical");
        let began = Instant::now();
        let ratio = in_trouble(&stage, &load, &json!({"outage": true}), || {
            let unreachable = Err("58030".to_owned());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    assert_eq!(cold(&stage, &proxy, &write_cold(5001)), unreachable);
                    if wrapping == "direct" {
                        assert_eq!(cold(&stage, &proxy, &read_cold(1)), unreachable);
                    }
                });
                load.rate(outage.min(CACHED_FOR))
            })
        });
        assert_eq!(load.stop(&stage), [""; 0], "{wrapping}");
        std::thread::sleep(outage.saturating_sub(began.elapsed()));
        stage.set(&json!({"outage": false}));
        poll("reads", || cold(&stage, &proxy, &read_cold(2)).ok());
        poll("writes", || cold(&stage, &proxy, &write_cold(5002)).ok());
        eprintln!("{wrapping}, away for {seconds} s: warm statements at {ratio:.2} of before");
    }
}

#[test]
fn an_outage_that_lasts_longer_than_a_confirmation_stops_everything_and_ends_without_a_restart() {
    for wrapping in ["direct", "hierarchical"] {
        let (stage, proxy) = filled(wrapping, "3s");
        let read = read_cold(0);
        assert_eq!(stage.run(proxy.address(), &read), Ok(vec![email(1000)]));
        stage.set(&json!({"outage": true}));
        poll("the end of what is confirmed", || (cold(&stage, &proxy, &read) == Err("58030".to_owned())).then_some(()));
        assert_eq!(stage.run(proxy.address(), "SELECT 'plain'::text"), Ok(vec!["plain".to_owned()]));
        stage.set(&json!({"outage": false}));
        poll("reads", || (cold(&stage, &proxy, &read) == Ok(vec![email(1000)])).then_some(()));
    }
}

#[test]
fn a_slow_key_service_makes_cold_statements_slow_and_no_others() {
    for wrapping in ["direct", "hierarchical"] {
        let (stage, proxy) = filled(wrapping, "60s");
        let load = Load::start(&stage, proxy.address(), wrapping == "hierarchical");
        let ratio = in_trouble(&stage, &load, &json!({"latency_ms": 2000}), || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    assert_eq!(cold(&stage, &proxy, &read_cold(1)), Ok(vec![email(1001)]));
                    poll("a write", || cold(&stage, &proxy, &write_cold(5001)).ok());
                });
                load.rate(Duration::from_secs(5))
            })
        });
        stage.set(&json!({"latency_ms": 0}));
        assert_eq!(load.stop(&stage), [""; 0], "{wrapping}");
        eprintln!("{wrapping}, 2 s a call: warm statements at {ratio:.2} of before");
    }
}

#[test]
fn a_thousand_cold_sessions_make_one_call_a_key() {
    const SESSIONS: usize = 1000;
    // Data keys or the branch key, and the index root.
    for (wrapping, keys) in [("direct", WARM as usize + 1), ("hierarchical", 1 + 1)] {
        let cluster = Cluster::start_with(Version::Any, &[("max_connections", "1100"), ("log_statement", "none")]);
        let mut stage = Stage::start_on(cluster, wrapping);
        let bound = (SESSIONS + 10).to_string();
        let settings = [("ROWSEAL_LIMITS_CONNECTIONS_MAX", &*bound), ("ROWSEAL_KEYS_CONFIRM_INTERVAL", "60s")];
        stage.site.set_environment(settings);
        let proxy = stage.site.serve();
        // Each row in a statement of its own, each with a data key.
        for id in 1..=WARM {
            stage.run(proxy.address(), &format!("{INSERT} ({id}, 1, '{}', NULL)", email(id))).unwrap();
        }
        assert_eq!(proxy.stop(), 0, "{}", proxy.log());
        let proxy = stage.site.serve();
        stage.set(&json!({"latency_ms": 200}));
        let from = stage.server.log().len();
        let barrier = Arc::new(Barrier::new(SESSIONS));
        let address = proxy.address();
        stage.runtime.block_on(async {
            let sessions: Vec<_> = (0..SESSIONS)
                .map(|_| {
                    let barrier = barrier.clone();
                    tokio::spawn(async move {
                        let client = connect_at(address, "app").await;
                        barrier.wait().await;
                        let all = "SELECT email FROM users WHERE account_id = 1 ORDER BY id";
                        first_values(&client, all).await
                    })
                })
                .collect();
            let expected: Vec<String> = (1..=WARM).map(email).collect();
            for session in sessions {
                assert_eq!(session.await.unwrap(), Ok(expected.clone()), "{wrapping}");
            }
        });
        let mut calls: BTreeMap<String, usize> = BTreeMap::new();
        for entry in stage.server.log().iter().skip(from).filter(|entry| entry["operation"] == "Decrypt") {
            // Confirmations come with time, not with sessions.
            if entry["context"]["rowseal:purpose"] != "canary" {
                *calls.entry(entry["context"].to_string()).or_default() += 1;
            }
        }
        assert_eq!((calls.len(), calls.values().max()), (keys, Some(&1)), "{wrapping}: {calls:?}");
    }
}
