//! Stored bytes changed behind the proxy's back: XX001 or a refused write, never a value (docs/format.md 2; STYLE
//! "stored bytes wrong or foreign"). Whoever can write to the table cannot make the proxy show something it did not seal.
use crate::support::peer::{Out, Peer, field, show};
use crate::wire::{Wired, wired};

const EMAIL: &str = "SELECT email FROM users WHERE id = 1";
const RESTORE: &str =
    "UPDATE users SET (email, age, account_id) = (SELECT email, age, account_id FROM kept WHERE kept.id = users.id)";

fn sealed() -> (Wired, Peer) {
    let wired = wired();
    let mut peer = wired.peer();
    for (id, tenant, email) in [(1, 1, "one@x"), (2, 1, "two@x"), (3, 2, "one@x")] {
        let sql = format!(
            "INSERT INTO users (id, account_id, email, age, code) VALUES ({id}, {tenant}, '{email}', 3{id}, 'c')"
        );
        assert_eq!(peer.ask(&sql), "C(INSERT 0 1\\x00) Z(I)");
    }
    wired.cluster.psql("app", "CREATE TABLE kept AS SELECT * FROM users");
    (wired, peer)
}

/// What one statement gives, extended and with fresh keys where the connection has none: a value or an SQLSTATE.
fn outcome(peer: &mut Peer, sql: &str) -> Result<Vec<Vec<u8>>, String> {
    peer.send(&Out::new().run(sql, &[]).sync().0);
    let replies = peer.until_ready(1);
    assert_eq!(replies.last().unwrap().1, b"I", "{}", show(&replies));
    match replies.iter().find(|(tag, _)| *tag == b'E') {
        Some((_, body)) => Err(field(body, b'C')),
        None => Ok(replies.into_iter().filter(|(tag, _)| *tag == b'D').map(|(_, body)| body).collect()),
    }
}

fn damaged(peer: &mut Peer, sql: &str, what: &str) {
    assert_eq!(outcome(peer, sql), Err("XX001".to_owned()), "{what}");
    assert_eq!(peer.ask("SELECT 1").matches("D(").count(), 1, "the connection is usable after {what}");
}

/// Which byte of the cell a bit is in: the slot's key id and wrapped key are not looked at while the key is cached.
fn slot_key(cell: &[u8]) -> std::ops::Range<usize> {
    let slot = 8 + usize::from(cell[6]) + usize::from(cell[7]);
    let wrapped = usize::from(u16::from_be_bytes([cell[slot + 33], cell[slot + 34]]));
    slot + 17..slot + 35 + wrapped
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.trim().trim_start_matches("\\x");
    (0..digits.len() / 2).map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).unwrap()).collect()
}

/// Sets every bit of a cell in turn, each in a row of its own copy, so that one statement prepares them all.
#[test]
fn every_flipped_bit_is_damage_or_refused_by_the_domain() {
    let (wired, mut peer) = sealed();
    let good = outcome(&mut peer, EMAIL).unwrap();
    let cell = bytes(&wired.cluster.psql("app", "SELECT email::bytea FROM users WHERE id = 1"));
    let key = slot_key(&cell);
    wired.cluster.psql("app", "CREATE FUNCTION flip(n int8, c bytea) RETURNS text LANGUAGE plpgsql AS \
        'BEGIN INSERT INTO users (id, account_id, email) VALUES (n, 1, set_bit(c, n - 1000, 1 - get_bit(c, n - 1000))); \
         RETURN ''stored''; EXCEPTION WHEN check_violation THEN RETURN ''refused''; END'");
    let flip = format!(
        "SELECT string_agg(flip(n, k.email::bytea), ' ' ORDER BY n) FROM kept k, generate_series(1000, {}) n WHERE k.id = 1",
        1000 + cell.len() * 8 - 1
    );
    let stored = wired.cluster.psql("app", &flip);
    let stored: Vec<&str> = stored.split_whitespace().collect();
    assert_eq!(stored.len(), cell.len() * 8);
    let (mut refused, mut damage) = (0, 0);
    for (bit, stored) in stored.iter().enumerate() {
        if *stored == "refused" {
            refused += 1;
            continue;
        }
        let sql = format!("SELECT email FROM users WHERE id = {}", 1000 + bit);
        match outcome(&mut peer, &sql) {
            Err(state) => {
                assert!(state == "XX001", "bit {bit}: {state}");
                damage += 1;
            }
            // Only here may a bit go unnoticed, and the value is right all the same.
            Ok(rows) => assert!(key.contains(&(bit / 8)) && rows == good, "bit {bit} of byte {} gave a row", bit / 8),
        }
    }
    assert!(refused > 30 && damage > 8 * (16 + 16 + 12 + 32 + 16), "{refused} refused, {damage} damaged");
    assert_eq!(outcome(&mut peer, EMAIL), Ok(good));
    assert!(!wired.proxy.log().contains("panicked"), "{}", wired.proxy.log());
    // A proxy that has to unwrap the key notices those bits as well.
    wired.proxy.stop();
    let proxy = wired.site.serve();
    let mut peer = Peer::connect(proxy.address(), "app");
    for byte in key.filter(|byte| stored[byte * 8 + byte % 8] == "stored") {
        let sql = format!("SELECT email FROM users WHERE id = {}", 1000 + byte * 8 + byte % 8);
        assert_eq!(outcome(&mut peer, &sql), Err("XX001".to_owned()), "byte {byte}, key not cached");
    }
    assert!(outcome(&mut peer, EMAIL).is_ok());
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

#[test]
fn a_cell_in_another_place_is_damage() {
    let (wired, mut peer) = sealed();
    let moves = [
        ("another column", "UPDATE users SET age = email::bytea WHERE id = 1", "SELECT age FROM users WHERE id = 1"),
        (
            "another column of the same type",
            "UPDATE users SET code = email::bytea WHERE id = 1",
            "SELECT code FROM users WHERE id = 1",
        ),
        ("another tenant's row", "UPDATE users SET email = (SELECT email FROM kept WHERE id = 3) WHERE id = 1", EMAIL),
        ("a row given to another tenant", "UPDATE users SET account_id = 2 WHERE id = 1", EMAIL),
        ("a row given to nobody", "UPDATE users SET account_id = 77 WHERE id = 1", EMAIL),
    ];
    for (what, tamper, read) in moves {
        wired.cluster.psql("app", tamper);
        match what {
            "a row given to nobody" => assert!(outcome(&mut peer, read).is_err(), "{what}"),
            _ => damaged(&mut peer, read, what),
        }
        wired.cluster.psql("app", &format!("{RESTORE}; UPDATE users SET code = NULL"));
    }
    // In the same tenant and column a cell is at home in any row: docs/format.md 2 says so.
    wired.cluster.psql("app", "UPDATE users SET email = (SELECT email FROM kept WHERE id = 2) WHERE id = 1");
    assert!(outcome(&mut peer, EMAIL).is_ok());
}

#[test]
fn a_cut_longer_or_unknown_cell_is_refused_or_damage() {
    let (wired, mut peer) = sealed();
    let cell = bytes(&wired.cluster.psql("app", "SELECT email::bytea FROM users WHERE id = 1"));
    let changed = [
        "substring(email::bytea FROM 1 FOR length(email::bytea) - 1)",
        "substring(email::bytea FROM 1 FOR 100)",
        "substring(email::bytea FROM 1 FOR 8)",
        "email::bytea || '\\x00'::bytea",
        "email::bytea || email::bytea",
        "set_byte(email::bytea, 3, 2)",
        "set_byte(email::bytea, 4, 2)",
        "set_byte(email::bytea, 5, 4)",
        "set_byte(email::bytea, 6, 0)",
        "set_byte(email::bytea, 7, 1)",
        "''::bytea",
        "'\\x00'::bytea",
        "'plain text'::bytea",
    ];
    let mut refused = 0;
    for change in changed {
        match wired.cluster.try_psql("app", &format!("UPDATE users SET email = {change} WHERE id = 1")) {
            Err(error) => {
                assert!(error.contains("check constraint"), "{change}: {error}");
                refused += 1;
            }
            Ok(_) => damaged(&mut peer, EMAIL, change),
        }
        wired.cluster.psql("app", RESTORE);
    }
    assert!(refused >= 5, "{refused}");
    // The token taken away: no longer found, and not opened as if nothing were.
    let bare = format!(
        "UPDATE users SET email = set_byte(substring(email::bytea FROM 1 FOR 8), 6, 0) || substring(email::bytea FROM 25 FOR {}) WHERE id = 1",
        cell.len() - 24
    );
    if wired.cluster.try_psql("app", &bare).is_ok() {
        let found = outcome(&mut peer, "SELECT id FROM users WHERE account_id = 1 AND email = 'one@x'");
        assert_eq!(found, Ok(vec![]));
    }
    // Another value's token put on: the row is found by it, and errs.
    wired.cluster.psql("app", RESTORE);
    wired.cluster.psql(
        "app",
        "UPDATE users SET email = overlay(email::bytea PLACING (SELECT substring(email::bytea FROM 9 FOR 16) FROM kept \
        WHERE id = 2) FROM 9) WHERE id = 1",
    );
    damaged(&mut peer, "SELECT email FROM users WHERE account_id = 1 AND email = 'two@x'", "a foreign token");
    damaged(&mut peer, EMAIL, "a foreign token");
}
