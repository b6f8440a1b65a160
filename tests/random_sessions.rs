//! Random sequences of client messages, in any pieces, through the proxy on sealed tables and directly on a plain twin:
//! every reply must be equal (T1, wire checklist 12 to 21). What is known to differ is said at [`alike`].
//!
//! `PROPTEST_RNG_SEED` and `PROPTEST_CASES` change what is tried; sequences that failed are kept in tests/data/.
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngSeed, TestError, TestRunner};

use crate::support::peer::{Message, Out, Peer, show};
use crate::support::postgres::Version;
use crate::support::tap::Tap;
use crate::wire::{ROWS, Wired, wired_behind};

/// Statements without or with parameters, sealed and plain.
const TEXTS: &[(&str, usize)] = &[
    ("SELECT id, email, age, code, amount FROM users ORDER BY id", 0),
    ("SELECT id, body FROM notes ORDER BY id, body", 0),
    ("SELECT email, id FROM users WHERE account_id = 1 AND email = $1 ORDER BY id", 1),
    ("SELECT body FROM notes WHERE id = $1 ORDER BY body", 1),
    ("INSERT INTO users (id, account_id, email, age) VALUES ($1, 1, $2, $3) RETURNING email, id, age", 3),
    ("INSERT INTO notes (id, body) VALUES ($1, $2)", 2),
    ("UPDATE users SET email = $2 WHERE account_id = 1 AND id = $1 RETURNING id, email", 2),
    ("UPDATE notes SET body = $2 WHERE id = $1", 2),
    ("DELETE FROM users WHERE account_id = 1 AND id = $1 RETURNING email", 1),
    ("SELECT count(*) FROM users WHERE email IS NOT NULL", 0),
    ("SELECT nothing FROM users", 0),
    ("SELECT 1/0 FROM users", 0),
    ("SELECT 1/(id - 3), email FROM users ORDER BY id", 0),
    ("SELECT 'plain', 1 / 0", 0),
    ("SELECT $1::text", 1),
    ("COPY (SELECT id, email, age FROM users ORDER BY id) TO STDOUT (FORMAT csv, HEADER)", 0),
    ("COPY (SELECT 1/(id - 3), email FROM users ORDER BY id) TO STDOUT", 0),
    ("SELEC", 0),
    ("", 0),
    ("BEGIN", 0),
    ("COMMIT", 0),
    ("ROLLBACK", 0),
    ("SET LOCAL DateStyle = 'German'", 0),
];

/// Texts that come by a simple query only.
const SIMPLE: &[&str] = &[
    "SELECT email FROM users ORDER BY id; SELECT 1; SELECT age FROM users ORDER BY id",
    "SELECT email FROM users ORDER BY id; SELECT 1/0; SELECT age FROM users",
    "BEGIN; INSERT INTO users (id, account_id, email) VALUES (20, 1, 'twenty'); COMMIT",
    "INSERT INTO users (id, account_id, email) VALUES (21, 1, 'a'), (22, 2, 'b') RETURNING id, email",
    "UPDATE users SET email = 'two steps', note = 'x' WHERE id > 2",
    "UPDATE users SET email = 'returned', age = 50 WHERE id < 3 RETURNING id, email, age",
    "INSERT INTO users (id, account_id, age) VALUES (23, 1, 'no number')",
    "DELETE FROM users WHERE id > 10",
    "COPY (SELECT id, email FROM users ORDER BY id) TO STDOUT; COPY (SELECT age FROM users ORDER BY id) TO STDOUT BINARY",
    "SAVEPOINT s",
    "ROLLBACK TO s /* users */",
    "DEALLOCATE ALL",
    "SET DateStyle = 'ISO'",
    ";",
];

/// COPY FROM, in both ways between proxy and server, and of a plain table.
const COPIES: &[&str] = &[
    "COPY users (id, account_id, email, age) FROM STDIN",
    "COPY users (id, account_id, email, age) FROM STDIN (DEFAULT '?')",
    "COPY users (id, account_id, email, age) FROM STDIN (FORMAT csv, DELIMITER E'\\t', HEADER)",
    "COPY users (id, account_id, email) FROM STDIN WHERE id < 31",
    "COPY notes (id, nothing) FROM STDIN",
    "COPY notes (id, body) FROM STDIN",
];

const LINES: &[&str] = &[
    "30\t1\ta@x\t5\n",
    "31\t2\t\\N\t\\N\n",
    "32\t1\tZo\u{eb}\t-1\n",
    "1\t1\there already\t1\n",
    "x\t1\tno number\t1\n",
    "33\t1\tno age\tx\n",
    "34\t1\n",
    "35\t1\t\"\"\t\n",
    "36\t7\n",
    "37\t1\tthree\n",
    "\\.\n",
];

const VALUES: &[Option<&str>] = &[Some("1"), Some("3"), Some("11"), Some("a@x"), Some(""), None];

const NAMES: &[&str] = &["", "one", "two"];

/// One thing a client does.
#[derive(Debug, Clone)]
enum Act {
    Parse {
        name: usize,
        text: usize,
    },
    Bind {
        portal: usize,
        name: usize,
        values: Vec<usize>,
        format: i16,
    },
    Describe {
        kind: char,
        name: usize,
    },
    Execute {
        portal: usize,
        rows_max: i32,
    },
    Close {
        kind: char,
        name: usize,
    },
    /// Always unnamed: `name` is 0.
    Run {
        name: usize,
        text: usize,
        values: Vec<usize>,
        format: i16,
    },
    Query(usize),
    Simple(usize),
    /// COPY FROM with these lines, in pieces of this many bytes, and how it ends. Nothing is awaited.
    CopyIn {
        text: usize,
        lines: Vec<usize>,
        piece: usize,
        fails: bool,
    },
    Flush,
    Sync,
}

fn act() -> impl Strategy<Value = Act> {
    let (name, text) = (0..NAMES.len(), 0..TEXTS.len());
    let values = prop::collection::vec(0..VALUES.len(), 3);
    let kind = prop_oneof![Just('S'), Just('P')];
    let lines = prop::collection::vec(0..LINES.len(), 0..6);
    prop_oneof![
        3 => (name.clone(), text.clone()).prop_map(|(name, text)| Act::Parse { name, text }),
        3 => (name.clone(), name.clone(), values.clone(), 0..2_i16).prop_map(|(portal, name, values, format)| Act::Bind { portal, name, values, format }),
        2 => (kind.clone(), name.clone()).prop_map(|(kind, name)| Act::Describe { kind, name }),
        3 => (name.clone(), 0..4).prop_map(|(portal, rows_max)| Act::Execute { portal, rows_max }),
        1 => (kind, name).prop_map(|(kind, name)| Act::Close { kind, name }),
        4 => (text.clone(), values, 0..2_i16).prop_map(|(text, values, format)| Act::Run { name: 0, text, values, format }),
        2 => text.prop_map(Act::Query),
        2 => (0..SIMPLE.len()).prop_map(Act::Simple),
        2 => (0..COPIES.len(), lines, 1..40_usize, prop::bool::weighted(0.2))
            .prop_map(|(text, lines, piece, fails)| Act::CopyIn { text, lines, piece, fails }),
        1 => Just(Act::Flush),
        3 => Just(Act::Sync),
    ]
}

/// The messages of a sequence. A Bind is given as many values as the statement last prepared under that name takes. A
/// name stands for a sealed statement after a plain one, or the other way round, only after Sync and Close: where the
/// new Parse fails, the proxy does not let the old statement have values that were meant for the new one.
///
/// `careful`: Postgres 18 itself answers XX000 some time after a simple query that follows an Execute without Sync, and
/// its process may end with a segmentation fault when the unnamed portal that a failed simple query has left behind is
/// executed. So there every simple query gets a Sync before it, and no such portal is executed.
fn messages(acts: &[Act], careful: bool) -> Out {
    let mut takes = [0; NAMES.len()];
    let (mut out, mut left_behind) = (Out::new(), false);
    let mut sealed = [false; NAMES.len()];
    let picked = |values: &[usize], n: usize| values.iter().map(|v| VALUES[*v]).take(n).collect::<Vec<_>>();
    for act in acts {
        if let Act::Parse { name, text } | Act::Run { name, text, .. } = act {
            let now = TEXTS[*text].0.contains("users");
            if std::mem::replace(&mut sealed[*name], now) != now {
                out = out.sync().close('S', NAMES[*name]);
            }
        }
        match act {
            Act::Query(_) | Act::Simple(_) | Act::CopyIn { .. } if careful => (out, left_behind) = (out.sync(), true),
            Act::Bind { portal: 0, .. } | Act::Run { .. } => left_behind = false,
            Act::Execute { portal: 0, .. } if left_behind => continue,
            _ => {}
        }
        out = match act {
            Act::Parse { name, text } => {
                takes[*name] = TEXTS[*text].1;
                out.parse(NAMES[*name], TEXTS[*text].0)
            }
            Act::Bind { portal, name, values, format } => {
                out.bind(NAMES[*portal], NAMES[*name], &picked(values, takes[*name]), *format)
            }
            Act::Describe { kind, name } => out.describe(*kind, NAMES[*name]),
            Act::Execute { portal, rows_max } => out.execute(NAMES[*portal], *rows_max),
            Act::Close { kind, name } => out.close(*kind, NAMES[*name]),
            Act::Run { text, values, format, .. } => {
                takes[0] = TEXTS[*text].1;
                let values = picked(values, takes[0]);
                out.parse("", TEXTS[*text].0).bind("", "", &values, *format).describe('P', "").execute("", 0)
            }
            Act::Query(text) => out.query(TEXTS[*text].0),
            Act::Simple(text) => out.query(SIMPLE[*text]),
            Act::CopyIn { text, lines, piece, fails } => {
                let data: Vec<u8> = lines.iter().flat_map(|line| LINES[*line].bytes()).collect();
                let out = data.chunks(*piece).fold(out.query(COPIES[*text]), |out, piece| out.raw(b'd', piece));
                if *fails { out.raw(b'f', b"no more\0") } else { out.raw(b'c', b"") }
            }
            Act::Flush => out.flush(),
            Act::Sync => out.sync(),
        };
    }
    out
}

const END: &str = "the very end";

/// Sends everything in pieces and reads on to the last reply.
fn replies(peer: &mut Peer, out: &Out, pieces: &[usize]) -> Result<Vec<Message>, String> {
    let end = Out::new().sync().query("ROLLBACK").query(&format!("SELECT '{END}'"));
    let bytes = [&out.0[..], &end.0].concat();
    let mut rest = &bytes[..];
    for length in pieces.iter().cycle() {
        let (piece, after) = rest.split_at(rest.len().min(*length));
        peer.send(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let mut all: Vec<Message> = Vec::new();
    loop {
        match peer.try_receive() {
            Ok(Some(message)) => all.push(message),
            Ok(None) => return Err(format!("closed after {}", show(&all))),
            Err(error) => return Err(format!("{error} after {}", show(&all))),
        }
        let ended = |(tag, body): &Message| *tag == b'D' && body.ends_with(END.as_bytes());
        if all.last().is_some_and(|(tag, _)| *tag == b'Z') && all.iter().rev().take(3).any(ended) {
            return Ok(all);
        }
    }
}

/// True for replies that are equal, or differ in what is known to: an error of the extended protocol may have another
/// SQLSTATE where a message is wrong in two ways, for the proxy finds the second one first.
fn alike(plain: &Message, sealed: &Message) -> bool {
    let shown = [plain, sealed].map(|message| show(std::slice::from_ref(message)));
    let second_first = [
        // A Bind with the wrong number of values, or of a portal that exists, in a transaction that has failed.
        ("E(ERROR 08P01)", "E(ERROR 25P02)"),
        ("E(ERROR 42P03)", "E(ERROR 25P02)"),
        // A Bind, wrong in itself, of a statement that is gone.
        ("E(ERROR 26000)", "E(ERROR 08P01)"),
        ("E(ERROR 26000)", "E(ERROR 22P02)"),
        ("E(ERROR 26000)", "E(ERROR 25P02)"),
        // A bad value for a portal that exists.
        ("E(ERROR 42P03)", "E(ERROR 22P02)"),
        // A Parse under a name that exists.
        ("E(ERROR 42P05)", "E(ERROR 25P02)"),
        ("E(ERROR 25P02)", "E(ERROR 42P05)"),
        // What is no statement behind a COPY that was not begun: it may be rows of it.
        ("E(ERROR 42601)", "E(ERROR 0A000)"),
    ];
    shown[0] == shown[1] || second_first.iter().any(|(p, s)| shown[0] == *p && shown[1] == *s)
}

fn compare(wired: &Wired, out: &Out, pieces: &[usize]) -> Result<(), String> {
    let (mut sealed, mut plain) = (wired.peer(), Peer::connect(wired.cluster.host_port(), "twin"));
    for peer in [&mut sealed, &mut plain] {
        for sql in ["TRUNCATE users, notes", ROWS, "INSERT INTO notes VALUES (1, 'one'), (2, 'two')"] {
            assert!(peer.ask(sql).ends_with("Z(I)"));
        }
    }
    plain.wait_at_most(Duration::from_secs(10));
    sealed.wait_at_most(Duration::from_secs(10));
    let expected = replies(&mut plain, out, &[usize::MAX])?;
    let got = replies(&mut sealed, out, pieces).map_err(|why| format!("{why}\n  plain: {}", show(&expected)))?;
    let differs = expected.iter().zip(&got).position(|(plain, sealed)| !alike(plain, sealed));
    if differs.is_some() || expected.len() != got.len() {
        let at = differs.unwrap_or(expected.len().min(got.len()));
        let (plain, sealed) = (show(&expected), show(&got));
        return Err(format!("reply {at}\n  plain:  {plain}\n  sealed: {sealed}"));
    }
    Ok(())
}

fn check(version: Version, seed: u64) {
    let cluster_pieces: &[usize] = &[1, 2, 3, 5, 1000, 7, 64, 9000];
    let wired = wired_behind(version, |server| Tap::start_in(server, cluster_pieces));
    let base = Config::default();
    let config = Config {
        rng_seed: if base.rng_seed == RngSeed::Random { RngSeed::Fixed(seed) } else { base.rng_seed },
        cases: if std::env::var("PROPTEST_CASES").is_ok() { base.cases } else { 150 },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/data/random_sessions.seeds"))),
        max_shrink_iters: 150,
        ..base
    };
    let acts = prop::collection::vec(act(), 1..25);
    let pieces = prop::collection::vec(prop_oneof![1..8_usize, 1..500_usize], 1..6);
    let start = Instant::now();
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&(acts, pieces), |(acts, pieces)| {
        // Bounded on a slow machine too.
        if start.elapsed() < Duration::from_secs(15) {
            compare(&wired, &messages(&acts, version == Version::V18), &pieces).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
    match outcome {
        Err(TestError::Fail(why, (acts, pieces))) => {
            let log = wired.cluster.log();
            let crash: Vec<&str> = log.lines().filter(|line| line.contains("terminated by signal")).collect();
            panic!("{version:?}: {acts:?} in pieces {pieces:?}: {why}\n{crash:?}")
        }
        outcome => outcome.unwrap(),
    }
    assert!(!wired.proxy.log().contains("panicked"), "{}", wired.proxy.log());
}

#[test]
fn random_sessions_agree_on_postgres_15() {
    check(Version::V15, 15);
}

#[test]
fn random_sessions_agree_on_postgres_18() {
    check(Version::V18, 18);
}
