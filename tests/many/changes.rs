//! What is changed by way of one proxy, or by a command, holds at all three.
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::Value;

use super::crew::{Crew, PROXIES};
use crate::support::guard::poll;
use crate::support::peer::Peer;

/// How soon every proxy goes by a revocation, as docs/threat-model.md says, and what a machine that does much else adds.
const BOUND_SECONDS: f64 = 2.0 + 8.0;
const DONE: &str = "C(INSERT 0 1\\x00) Z(I)";
const REFUSED: &str = "E(ERROR 55000) Z(I)";

#[test]
fn every_change_reaches_all_three_in_direct_mode() {
    every_change_reaches_all_three(&Crew::start("direct"));
}

#[test]
fn every_change_reaches_all_three_in_hierarchical_mode() {
    every_change_reaches_all_three(&Crew::start("hierarchical"));
}

fn every_change_reaches_all_three(crew: &Crew) {
    // Sessions that are there from the start and have everything cached.
    let mut peers = crew.peers();
    peers.extend(crew.peers_in_front(2 * PROXIES));
    for (n, peer) in peers.iter_mut().enumerate() {
        assert_eq!(peer.ask(&insert(n, 1)), DONE);
        assert_eq!(peer.ask(&insert(100 + n, 2)), DONE);
    }
    for peer in &mut peers {
        assert!(peer.ask("SELECT email FROM users").ends_with("C(SELECT 18\\x00) Z(I)"));
    }
    a_registration(crew, &mut peers);
    a_rotation(crew, &mut peers);
    a_change_of_the_schema(crew, &mut peers);
    a_revocation(crew, &mut peers);
}

fn insert(id: usize, tenant: u32) -> String {
    format!("INSERT INTO users (id, account_id, email) VALUES ({id}, {tenant}, 'user{id}@x')")
}

fn a_registration(crew: &Crew, peers: &mut [Peer]) {
    for peer in peers.iter_mut() {
        assert_eq!(peer.ask(&insert(999, 3)), REFUSED, "it is not registered");
    }
    crew.sites[0].run_ok(&["tenant", "register", "3"]);
    for (n, peer) in peers.iter_mut().enumerate() {
        poll("the new tenant", || (peer.ask(&insert(200 + n, 3)) == DONE).then_some(()));
    }
}

fn a_rotation(crew: &Crew, peers: &mut [Peer]) {
    let rows = rotate_under_load(crew);
    assert_eq!(crew.cells_under_old_keys(), 0);
    let states = "SELECT string_agg(state, ',' ORDER BY version) FROM rowseal.master_key WHERE tenant = '1'";
    assert_eq!(crew.cluster.psql("app", states), "deactivated,active");
    for (n, peer) in peers.iter_mut().enumerate() {
        assert_eq!(peer.ask(&insert(300 + n, 1)), DONE);
        // Those from before and those that came meanwhile.
        let all = peer.ask("SELECT email FROM users WHERE account_id = 1 AND (id < 100 OR id >= 10000)");
        assert!(all.ends_with(&format!("C(SELECT {}\\x00) Z(I)", 9 + rows)), "{all}");
    }
    assert_eq!(crew.cells_under_old_keys(), 0);
}

/// Each proxy writes while the key is rotated, and no statement fails; gives how many rows came.
fn rotate_under_load(crew: &Crew) -> usize {
    let stop = AtomicBool::new(false);
    let write = |n: usize| {
        let (mut peer, mut rows) = (Peer::connect(crew.front(), "app"), 0);
        while !stop.load(SeqCst) {
            assert_eq!(peer.ask(&insert(10_000 * n + rows, 1)), DONE);
            rows += 1;
            std::thread::sleep(Duration::from_millis(3));
        }
        rows
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (1..=PROXIES)
            .map(|n| {
                scope.spawn({
                    let write = &write;
                    move || write(n)
                })
            })
            .collect();
        let rotated = crew.sites[1].run(&["key", "rotate", "1"]);
        stop.store(true, SeqCst);
        assert!(rotated.status.success(), "{rotated:?}");
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    })
}

fn a_change_of_the_schema(crew: &Crew, peers: &mut [Peer]) {
    let [first, .., last] = peers else { panic!("no peers") };
    assert_eq!(first.ask("ALTER TABLE users ADD COLUMN phone text"), "C(ALTER TABLE\\x00) Z(I)");
    let make = "CREATE TABLE notes (id int8, account_id int8 NOT NULL, text text)";
    assert_eq!(last.ask(make), "C(CREATE TABLE\\x00) Z(I)");
    for (n, peer) in peers.iter_mut().enumerate() {
        let update = format!("UPDATE users SET phone = '+49 30 {n}' WHERE id = {n} AND account_id = 1");
        poll("the new column", || (peer.ask(&update) == "C(UPDATE 1\\x00) Z(I)").then_some(()));
        let note = format!("INSERT INTO notes VALUES ({n}, 1, 'note {n}')");
        poll("the new table", || (peer.ask(&note) == DONE).then_some(()));
    }
    for peer in peers.iter_mut() {
        let shown = peer.ask("SELECT phone FROM users WHERE phone IS NOT NULL");
        assert!(shown.contains("+49 30 0") && shown.contains("C(SELECT 9\\x00)"), "{shown}");
        assert!(peer.ask("SELECT text FROM notes").contains("note 8"));
    }
    let stored =
        crew.cluster.psql("app", "SELECT phone FROM users WHERE phone IS NOT NULL UNION SELECT text FROM notes");
    assert!(stored.lines().all(|cell| cell.starts_with("\\xc15253")), "{stored}");
}

fn a_revocation(crew: &Crew, peers: &mut [Peer]) {
    let all = "SELECT email, phone FROM users WHERE account_id = 1";
    peers.iter_mut().for_each(|peer| assert!(peer.ask(all).ends_with("Z(I)"), "everything is cached"));
    let told = crew.sites[2].run_ok(&["key", "deactivate", "1", "--reason", "test", "--json"]);
    // What the command has waited for holds at once, whatever is cached.
    for (n, peer) in peers.iter_mut().enumerate() {
        for sql in [
            all,
            "SELECT text FROM notes",
            "SELECT id FROM users WHERE account_id = 1 AND email = 'user0@x'",
            "UPDATE users SET phone = 'x' WHERE id = 0 AND account_id = 1",
            &insert(400 + n, 1),
        ] {
            let answer = peer.ask(sql);
            assert!(answer.ends_with(REFUSED) && !answer.contains("D("), "{sql}: {answer}");
        }
        assert_eq!(peer.ask(&insert(400 + n, 2)), DONE, "the others notice nothing");
    }
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["proxies"], told["silent_proxies"].as_array().unwrap().len()), (&Value::from(PROXIES), 0));
    assert!(told["seconds"].as_f64().unwrap() < BOUND_SECONDS, "{told}");
    crew.sites[0].run_ok(&["key", "reactivate", "1"]);
    for peer in peers {
        poll("the tenant to be served", || peer.ask(all).ends_with("Z(I)").then_some(()));
        poll("its rows", || peer.ask("SELECT text FROM notes").contains("note 8").then_some(()));
    }
}
