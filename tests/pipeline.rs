//! Pipelines far longer than any buffer, whose replies nobody reads before the end (wire checklist, line 31), and the
//! promise that each of their rows has a data key of its own (E2).
use crate::support::peer::{Out, Peer, show};
use crate::wire::wired;

/// What the server answers to all: `n` times BindComplete and CommandComplete, then ReadyForQuery.
fn assert_all_inserted(peer: &mut Peer, n: usize) {
    let replies = peer.until_ready(1);
    let error = replies.iter().position(|(tag, _)| *tag == b'E');
    assert_eq!(error, None, "{}", error.map_or_else(String::new, |at| show(&replies[at..=at])));
    assert_eq!(replies.iter().filter(|(tag, body)| *tag == b'C' && body == b"INSERT 0 1\0").count(), n);
}

#[test]
fn a_hundred_thousand_plain_inserts_unread() {
    const ROWS: usize = 100_000;
    let wired = wired();
    let mut peer = wired.peer();
    let mut out = Out::new().parse("i", "INSERT INTO notes (id, body) VALUES ($1, $2)");
    for n in 0..ROWS {
        out = out.bind("", "i", &[Some(&(n + 10).to_string()), Some("a note")], 0).execute("", 0);
    }
    peer.send(&out.sync().0);
    assert_all_inserted(&mut peer, ROWS);
    let rows = wired.cluster.psql("app", "SELECT count(DISTINCT id) FROM notes WHERE id >= 10");
    assert_eq!(rows.trim(), ROWS.to_string());
}

#[test]
fn twenty_thousand_sealed_inserts_unread_have_a_key_each() {
    const ROWS: usize = 20_000;
    let wired = wired();
    let mut peer = wired.peer();
    let mut out = Out::new().parse("i", "INSERT INTO users (id, account_id, email, age) VALUES ($1, $2, $3, $4)");
    for n in 0..ROWS {
        let (id, tenant) = (n.to_string(), (n % 2 + 1).to_string());
        out = out.bind("", "i", &[Some(&id), Some(&tenant), Some("same@x"), Some("7")], 0).execute("", 0);
    }
    peer.send(&out.sync().0);
    assert_all_inserted(&mut peer, ROWS);
    // Header 8 bytes, token 16, then the dek_id; age has no token.
    let keys = "SELECT count(*), count(DISTINCT substring(email::bytea FROM 25 FOR 16)), count(DISTINCT substring(age::bytea FROM 9 FOR 16)), \
                bool_and(substring(email::bytea FROM 25 FOR 16) = substring(age::bytea FROM 9 FOR 16)) FROM users";
    assert_eq!(wired.cluster.psql("app", keys).trim(), format!("{ROWS}|{ROWS}|{ROWS}|t"));
    let shown = peer.ask("SELECT count(*) FROM users WHERE account_id = 1 AND email = 'same@x'");
    assert!(shown.contains(&(ROWS / 2).to_string()), "{shown}");
    // Reading them all back unread, too: the proxy must not hold what the client does not take.
    peer.send(&Out::new().run("SELECT id, email, age FROM users ORDER BY id", &[]).sync().0);
    let rows =
        peer.until_ready(1).into_iter().filter(|(tag, body)| *tag == b'D' && body.ends_with(b"same@x\0\0\0\x017"));
    assert_eq!(rows.count(), ROWS);
}
