//! Bytes and files that nobody should send or write: each ends in a clear answer, no panic, and leaves every other
//! connection alone (wire checklist, lines 5, 27, 28).
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::guard::poll;
use crate::support::peer::{Out, Peer, field, show, startup};
use crate::support::postgres::Version;
use crate::wire::{Wired, wired, wired_on};

/// A connection that works before, and must after.
struct Witness(Wired, Peer);

fn witness() -> Witness {
    let wired = wired();
    let mut peer = wired.peer();
    assert_eq!(
        peer.ask("INSERT INTO users (id, account_id, email) VALUES (1, 1, 'witness@x')"),
        "C(INSERT 0 1\\x00) Z(I)"
    );
    Witness(wired, peer)
}

impl Witness {
    fn unharmed(&mut self) {
        let seen = self.1.ask("SELECT email FROM users WHERE id = 1");
        assert!(seen.contains("witness@x") && seen.ends_with("Z(I)"), "{seen}");
        let log = self.0.proxy.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Bytes without pattern, the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn line_5_noise_on_the_port() {
    let mut witness = witness();
    let address = witness.0.proxy.address();
    for seed in 0..60 {
        let mut peer = Peer::bare(address);
        peer.send_anyway(&noise(seed, 1 + (seed as usize * 37) % 3000));
        peer.finish();
        peer.rest();
    }
    let whole = startup(&[("user", "postgres"), ("database", "app")]);
    for cut in 0..whole.len() {
        let mut peer = Peer::bare(address);
        peer.send_anyway(&whole[..cut]);
        peer.finish();
        peer.rest();
    }
    for start in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"\0\0\0\0\0\x03\0\0",
        b"\x7f\xff\xff\xff\0\x03\0\0",
        b"\0\0\0\x07abc",
        b"\0\0\x27\x11\0\x03\0\0",
    ] {
        let mut peer = Peer::bare(address);
        peer.send_anyway(start);
        peer.finish();
        peer.rest();
    }
    witness.unharmed();
}

#[test]
fn line_28_lying_lengths_after_login() {
    let mut witness = witness();
    let sealed = Out::new().parse("s", "INSERT INTO users (id, account_id, email) VALUES ($1, $2, $3)").sync();
    let header = |tag: u8, length: i32| [&[tag][..], &length.to_be_bytes()].concat();
    let lies: Vec<(&str, Vec<u8>)> = vec![
        ("length 0", header(b'Q', 0)),
        ("length 3", header(b'Q', 3)),
        ("negative length", header(b'P', -1)),
        ("more than 1 GiB", header(b'Q', 0x4000_0000)),
        ("a query without its end", Out::new().raw(b'Q', b"SELECT email FROM users").0),
        ("a query with its end inside", Out::new().raw(b'Q', b"SELECT 1\0; SELECT email FROM users\0").0),
        ("an empty query message", Out::new().raw(b'Q', b"").0),
        ("an empty parse", Out::new().raw(b'P', b"").0),
        ("a parse whose count lies", Out::new().raw(b'P', b"x\0SELECT email FROM users\0\x7f\xff\0\0").0),
        ("an empty bind", sealed.clone().raw(b'B', b"").0),
        ("a bind cut short", sealed.clone().raw(b'B', b"\0s\0\0\0\0\x03\0\0\0\x01").0),
        (
            "a bind whose value is too long",
            sealed.clone().raw(b'B', b"\0s\0\0\0\0\x03\0\0\0\x011\0\0\0\x011\x7f\xff\xff\xffx\0\0").0,
        ),
        (
            "a bind with a negative value",
            sealed.clone().raw(b'B', b"\0s\0\0\0\0\x03\0\0\0\x011\0\0\0\x011\xff\xff\xff\xfex\0\0").0,
        ),
        (
            "a bind with more after it",
            sealed.clone().raw(b'B', b"\0s\0\0\0\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0more").0,
        ),
        ("an empty execute", Out::new().raw(b'E', b"").0),
        ("an empty describe", Out::new().raw(b'D', b"").0),
        ("a describe of nothing known", Out::new().raw(b'D', b"Xs\0").0),
        ("an empty close", Out::new().raw(b'C', b"").0),
        ("a message nobody knows", Out::new().raw(b'?', b"what").0),
    ];
    for (what, bytes) in lies {
        let mut peer = witness.0.peer();
        peer.send_anyway(&bytes);
        peer.send_anyway(&Out::new().sync().0);
        peer.finish();
        let mut replies = Vec::new();
        while let Some(message) = peer.receive() {
            replies.push(message);
        }
        let error = replies.iter().find(|(tag, _)| *tag == b'E');
        let state = error.map(|(_, body)| field(body, b'C'));
        assert_eq!(state.as_deref(), Some("08P01"), "{what}: {}", show(&replies));
        assert!(!replies.iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"witness@x")), "{what}");
    }
    for seed in 0..60 {
        let mut peer = witness.0.peer();
        peer.send_anyway(&noise(seed, 2000));
        peer.finish();
        peer.rest();
    }
    witness.unharmed();
}

#[test]
fn values_that_look_like_cells_or_are_no_text() {
    let mut witness = witness();
    let cell = witness.0.cluster.psql("app", "SELECT email::bytea FROM users WHERE id = 1").trim().to_owned();
    let peer = &mut witness.1;
    assert_eq!(
        peer.ask(&format!("INSERT INTO users (id, account_id, email) VALUES (2, 1, '{cell}')")),
        "C(INSERT 0 1\\x00) Z(I)"
    );
    let seen = peer.ask("SELECT email FROM users WHERE id = 2");
    assert!(seen.contains(&cell.escape_default().to_string()), "a literal like a cell is data: {seen}");
    peer.send(
        &Out::new()
            .run("INSERT INTO users (id, account_id, email) VALUES (3, 1, $1) RETURNING email", &[Some(&cell)])
            .sync()
            .0,
    );
    let seen = show(&peer.until_ready(1));
    assert!(seen.contains(&cell.escape_default().to_string()), "a parameter like a cell is data: {seen}");
    let broken = [&b"INSERT INTO users (id, account_id, email) VALUES (4, 1, '"[..], b"\xff\xfe", b"')\0"].concat();
    peer.send(&Out::new().raw(b'Q', &broken).0);
    assert_eq!(show(&peer.until_ready(1)), "E(ERROR 22021) Z(I)");
    peer.send(
        &Out::new()
            .parse("", "INSERT INTO users (id, account_id, email) VALUES (4, 1, $1)")
            .raw(b'B', b"\0\0\0\0\0\x01\0\0\0\x02\xff\xfe\0\0")
            .execute("", 0)
            .sync()
            .0,
    );
    assert_eq!(show(&peer.until_ready(1)), "1 E(ERROR 22021) Z(I)");
    let broken = [&b"SELECT '"[..], b"\xff\xfe", b"'\0"].concat();
    peer.send(&Out::new().raw(b'Q', &broken).0);
    assert_eq!(show(&peer.until_ready(1)), "E(ERROR 22021) Z(I)");
    witness.unharmed();
}

/// The highest resident size so far, in MiB.
fn peak_mib(wired: &Wired) -> usize {
    let pid = fs::read_to_string(wired.site.path().join("pid")).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
fn line_27_a_value_of_200_megabytes() {
    let mut witness = witness();
    let value = "x".repeat(200 << 20);
    let before = peak_mib(&witness.0);
    let mut peer = witness.0.peer();
    // A plain table's value streams through, even with a sealed statement prepared.
    peer.send(&Out::new().parse("sealed", "SELECT email FROM users WHERE id = $1").sync().0);
    peer.until_ready(1);
    peer.send(&Out::new().run("INSERT INTO notes (id, body) VALUES (200, $1)", &[Some(&value)]).sync().0);
    let replies = peer.until_ready(1);
    assert!(show(&replies).contains("INSERT 0 1"), "{}", show(&replies));
    peer.send(&Out::new().run("SELECT body FROM notes WHERE id = 200", &[]).sync().0);
    assert!(peer.until_ready(1).iter().any(|(tag, body)| *tag == b'D' && body.len() > value.len()));
    // The same when the message's header has arrived alone.
    let insert = Out::new().bind("", "plain", &[Some(&value)], 0).execute("", 0).sync().0;
    let prepare = Out::new().parse("plain", "INSERT INTO notes (id, body) VALUES (201, $1)").flush().0;
    peer.send(&[&prepare, &insert[..5]].concat());
    peer.until(b'1');
    peer.send(&insert[5..]);
    assert_eq!(show(&peer.until_ready(1)), "2 C(INSERT 0 1\\x00) Z(I)");
    let streamed = peak_mib(&witness.0);
    assert!(streamed < before + 64, "{before} MiB before, {streamed} MiB after streaming");
    // A sealed one is refused, and so is a query that cannot be looked at.
    peer.send(
        &Out::new().run("INSERT INTO users (id, account_id, email) VALUES (200, 1, $1)", &[Some(&value)]).sync().0,
    );
    let replies = peer.until_ready(1);
    assert!(show(&replies).ends_with("E(ERROR 54000) Z(I)"), "{}", show(&replies));
    assert_eq!(
        peer.ask(&format!("INSERT INTO users (id, account_id, email) VALUES (200, 1, '{value}')")),
        "E(ERROR 54000) Z(I)"
    );
    assert!(peer.ask("SELECT email FROM users WHERE id = 1").contains("witness@x"));
    let after = peak_mib(&witness.0);
    assert!(after < before + 256, "{before} MiB before, {after} MiB after");
    witness.unharmed();
}

#[test]
fn line_27_the_configured_limit() {
    let wired = wired_on(Version::Any, "[limits]\nmessage_bytes_max = 65536\n");
    let mut peer = wired.peer();
    let big = "y".repeat(70_000);
    let insert = "INSERT INTO users (id, account_id, email) VALUES (1, 1, $1)";
    let literal = insert.replace("$1", &format!("'{big}'"));
    for out in
        [Out::new().run(insert, &[Some(&big)]).sync(), Out::new().query(&literal), Out::new().run(&literal, &[]).sync()]
    {
        peer.send(&out.0);
        let replies = peer.until_ready(1);
        let (_, error) = replies.iter().find(|(tag, _)| *tag == b'E').unwrap();
        assert_eq!(field(error, b'C'), "54000");
        assert!(field(error, b'D').contains("65536"), "{}", field(error, b'D'));
        assert!(field(error, b'H').contains("limits.message_bytes_max"), "{}", field(error, b'H'));
    }
    for piece in [1000, 100_000] {
        peer.send(&Out::new().query("COPY users (id, account_id, email) FROM STDIN").0);
        peer.until(b'G');
        let row = format!("1\t1\t{big}\n");
        peer.send(&row.as_bytes().chunks(piece).fold(Out::new(), |out, part| out.raw(b'd', part)).raw(b'c', b"").0);
        let replies = peer.until_ready(1);
        assert!(show(&replies).ends_with("E(ERROR 54000) Z(I)"), "{}", show(&replies));
        assert_eq!(field(&replies[0].1, b'W'), "COPY users, line 1");
    }
    // What is sealed within the limit can be read back, although its text form is larger than the limit.
    peer.send(&Out::new().run(insert, &[Some(&big[..60_000])]).sync().0);
    assert!(show(&peer.until_ready(1)).contains("INSERT 0 1"));
    for out in [Out::new().query("SELECT email FROM users"), Out::new().run("SELECT email FROM users", &[]).sync()] {
        peer.send(&out.0);
        assert!(
            peer.until_ready(1).iter().any(|(tag, body)| *tag == b'D' && body.ends_with(&big.as_bytes()[..60_000]))
        );
    }
    // A plain value of any size streams, in both directions.
    peer.send(&Out::new().run("INSERT INTO notes (id, body) VALUES (99, $1)", &[Some(&big)]).sync().0);
    assert!(show(&peer.until_ready(1)).contains("INSERT 0 1"));
    peer.send(&Out::new().query("SELECT body FROM notes WHERE id = 99").0);
    assert!(peer.until_ready(1).iter().any(|(tag, body)| *tag == b'D' && body.ends_with(big.as_bytes())));
    // A row that holds a cell and far more than the limit is refused, what follows it is dropped.
    wired
        .cluster
        .psql("app", "INSERT INTO users (id, account_id, note) VALUES (2, 1, repeat('z', 1000000)), (3, 1, 'z')");
    for out in [
        Out::new().query("SELECT email, note FROM users ORDER BY id"),
        Out::new().query("COPY (SELECT email, note FROM users ORDER BY id) TO STDOUT"),
        Out::new().run("SELECT email, note FROM users ORDER BY id", &[]).run("SELECT 1", &[]).sync(),
    ] {
        peer.send(&out.0);
        let replies = peer.until_ready(1);
        assert!(show(&replies).ends_with("E(ERROR 54000) Z(I)"), "{}", show(&replies[replies.len() - 2..]));
        assert!(!replies.iter().any(|(_, body)| body.ends_with(b"zz")));
    }
    assert!(peer.ask("SELECT id FROM users WHERE id = 3").contains("\\x013) C(SELECT 1"), "the connection afterwards");
}

#[test]
fn a_keyring_that_others_can_read_is_refused_at_the_start() {
    let wired = wired();
    wired.proxy.stop();
    let keyring = wired.site.path().join("keyring.toml");
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o644)).unwrap();
    let output = wired.site.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(1..=78)), "{}: {said}", output.status);
    assert!(said.contains("keyring") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_keyring_that_is_no_keyring_is_refused_at_the_start() {
    let wired = wired();
    wired.proxy.stop();
    fs::write(wired.site.path().join("keyring.toml"), "this is = not [a keyring").unwrap();
    let output = wired.site.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(1..=78)), "{}: {said}", output.status);
    assert!(said.contains("keyring") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_policy_that_names_a_missing_table_warns_and_serves() {
    let wired = wired();
    wired.proxy.stop();
    let config = fs::read_to_string(wired.site.config()).unwrap();
    let missing = "\n[[database.table]]\nname = \"public.nowhere\"\ntenant = { column = \"account_id\" }\n\n[database.table.columns]\nx = { type = \"text\" }\n";
    fs::write(wired.site.config(), config + missing).unwrap();
    let proxy = wired.site.serve();
    poll("the warning", || proxy.log().contains("nowhere").then_some(()));
    let mut peer = Peer::connect(proxy.address(), "app");
    assert!(peer.ask("SELECT email FROM users").ends_with("Z(I)"));
    assert_eq!(peer.ask("INSERT INTO nowhere (account_id, x) VALUES (1, 'x')"), "E(ERROR 42P01) Z(I)");
    let within = "BEGIN; INSERT INTO nowhere (account_id, x) VALUES (1, 'x'); COMMIT";
    assert_eq!(peer.ask(within), "E(ERROR 0A000) Z(I)");
    assert!(peer.ask("SELECT 1").ends_with("Z(I)"));
}

/// A Bind with its counts and codes as they are written here.
fn bind_raw(statement: &str, formats: &[i16], values: &[&str], results: &[i16]) -> Out {
    let codes = |codes: &[i16]| {
        let count = (codes.len() as i16).to_be_bytes().to_vec();
        codes.iter().fold(count, |body, code| [body, code.to_be_bytes().to_vec()].concat())
    };
    let mut body = [format!("\0{statement}\0").into_bytes(), codes(formats)].concat();
    body.extend((values.len() as i16).to_be_bytes());
    for value in values {
        body.extend((value.len() as i32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend(codes(results));
    Out::new().raw(b'B', &body)
}

/// Formats that there are not, and another number of them or of parameters than there should be.
#[test]
fn binds_that_do_not_fit_are_errors_as_in_postgres() {
    let wired = wired();
    let (mut sealed, mut plain) = wired.pair();
    let sql = "SELECT id, email FROM users WHERE account_id = $1 AND email = $2 AND id = $3";
    for peer in [&mut sealed, &mut plain] {
        peer.send(&Out::new().parse("s", sql).parse("", sql).sync().0);
        peer.until_ready(1);
    }
    let three = &["1", "a@x", "1"][..];
    let mut errors = 0;
    for (formats, values, results) in [
        (&[][..], three, &[][..]),
        (&[0], three, &[0]),
        (&[0, 0, 0], three, &[0, 1]),
        (&[2], three, &[]),
        (&[-1], three, &[]),
        (&[0, 5, 0], three, &[]),
        (&[0, 0, 7], three, &[]),
        (&[0, 0], three, &[]),
        (&[0, 0, 0, 0], three, &[]),
        (&[0, 0], &["1", "a@x"], &[]),
        (&[], &["1", "a@x"], &[]),
        (&[], &[], &[]),
        (&[9, 9], &[], &[]),
        (&[], &["1", "a@x", "1", "x"], &[]),
        (&[], three, &[2]),
        (&[], three, &[0, 3]),
        (&[], three, &[0, 0, 0]),
    ] {
        for name in ["", "s"] {
            let [expected, got] = [&mut plain, &mut sealed].map(|peer| {
                peer.send(&bind_raw(name, formats, values, results).execute("", 0).sync().0);
                let replies = peer.until_ready(1);
                let error = replies.iter().find(|(tag, _)| *tag == b'E');
                (show(&replies), error.map(|(_, body)| [field(body, b'C'), field(body, b'M')]))
            });
            assert_eq!(got, expected, "{name:?} {formats:?} {values:?} {results:?}");
            errors += usize::from(expected.1.is_some());
        }
    }
    assert!(errors >= 26, "{errors}");
}
