//! Where an error points to: the client's own text, although the server saw a rewritten one (T1, T5). Every field a
//! client shows or reads must be what Postgres says of the plain twin.
use crate::support::peer::{Message, Out, Peer, field};
use crate::wire::wired;

/// Texts with a fault that the server finds, after or beside what is rewritten.
const FAULTY: &[&str] = &[
    "SELECT email, nothing FROM users",
    "SELECT nothing, email FROM users",
    "SELECT email, age, code, nothing FROM users WHERE account_id = 1",
    "SELECT id FROM users WHERE account_id = 1 AND email = 'Zoë ☃' AND nothing = 1",
    "SELECT id FROM users WHERE account_id = 1 AND email IN ('é', 'ü', 'x') AND id = 'seven'",
    "SELECT u.email, 'ééé' || nothing FROM users AS u /* ☃ */ ORDER BY 2",
    "\n\t-- ☃ first\nSELECT email\nFROM users\nWHERE nothing",
    "INSERT INTO users (id, account_id, email, nothing) VALUES (7, 1, 'é', 40)",
    "INSERT INTO users (id, account_id, email, note) VALUES (7, 1, 'é', nothing)",
    "INSERT INTO users (id, account_id, email, age, note) VALUES (7, 1, 'é', 4, 'x'), (8, 1, 'ü', 5, nothing)",
    "INSERT INTO users (id, account_id, email) VALUES (7, 1, 'é') RETURNING email, nothing",
    "INSERT INTO users (account_id, email, id) VALUES (1, 'é', 'seven')",
    "UPDATE users SET age = 5, nothing = 1 WHERE account_id = 1 AND id = 1",
    "UPDATE users SET email = 'ééé', note = nothing WHERE account_id = 1 AND id = 1",
    "DELETE FROM users WHERE account_id = 1 AND email = 'ééé' AND nothing",
    "SELECT email FROM users; SELECT age, nothing FROM users",
    "SELECT email FROM users WHERE id = 1 AND id = missing_function(1)",
    "SELECT email, 1/0 FROM users",
];

/// The error of a reply: SQLSTATE, message, hint, position, and the fields of an internal query.
fn error(messages: &[Message]) -> Option<[String; 7]> {
    let (_, body) = messages.iter().find(|(tag, _)| *tag == b'E')?;
    Some([b'C', b'M', b'H', b'P', b'p', b'q', b'W'].map(|code| field(body, code)))
}

fn asked(peer: &mut Peer, out: Out) -> Option<[String; 7]> {
    peer.send(&out.0);
    error(&peer.until_ready(1))
}

#[test]
fn errors_point_into_the_clients_text() {
    let wired = wired();
    let (mut sealed, mut plain) = wired.pair();
    let mut pointed = 0;
    for sql in FAULTY {
        let mut ways = vec![Out::new().query(sql)];
        if !sql.contains(';') {
            ways.push(Out::new().run(sql, &[]).sync());
            ways.push(Out::new().parse("", sql).flush().sync());
        }
        for way in ways {
            let expected = asked(&mut plain, way.clone());
            assert_eq!(asked(&mut sealed, way), expected, "{sql}\n{}", wired.proxy.log());
            pointed += usize::from(expected.is_some_and(|fields| !fields[3].is_empty()));
        }
    }
    assert!(pointed > 40, "only {pointed} errors had a position");
}

/// A statement that was good when it was prepared: its fault comes with the Bind, for the table has changed.
#[test]
fn errors_of_a_bind_point_into_the_clients_text() {
    let wired = wired();
    let (mut sealed, mut plain) = wired.pair();
    let sql = "SELECT email, age, note FROM users WHERE account_id = $1 AND email = $2";
    for peer in [&mut sealed, &mut plain] {
        peer.send(&Out::new().parse("s", sql).sync().0);
        assert_eq!(peer.until_ready(1)[0].0, b'1');
    }
    for db in ["app", "twin"] {
        wired.cluster.psql(db, "ALTER TABLE users RENAME COLUMN note TO remark");
    }
    let bind = || Out::new().bind("", "s", &[Some("1"), Some("é")], 0).execute("", 0).sync();
    let expected = asked(&mut plain, bind());
    assert_eq!(expected.as_ref().map(|fields| fields[3].as_str()), Some("20"));
    assert_eq!(asked(&mut sealed, bind()), expected);
}

/// What the proxy refuses, it refuses through a statement of its own: nothing of that shows.
#[test]
fn refusals_do_not_show_how_they_are_raised() {
    let wired = wired();
    let mut peer = wired.peer();
    for sql in
        ["SELECT id FROM users WHERE email LIKE 'a%'", "INSERT INTO users (id, account_id, age) VALUES (9, 1, 'x')"]
    {
        for way in [Out::new().query(sql), Out::new().run(sql, &[]).sync()] {
            let fields = asked(&mut peer, way).unwrap();
            assert!(["0A000", "22P02"].contains(&fields[0].as_str()), "{fields:?}");
            assert_eq!(fields[3..].concat(), "", "{sql}");
        }
    }
    // An error of the query that finds the rows of an UPDATE points nowhere rather than into a text nobody wrote.
    let fields = asked(&mut peer, Out::new().query("UPDATE users SET email = 'x' WHERE nothing(1)")).unwrap();
    assert_eq!((fields[0].as_str(), fields[3].as_str()), ("42883", ""));
}

/// Errors inside functions of the client's own keep what Postgres tells of them.
#[test]
fn errors_inside_functions_keep_their_internal_query() {
    let wired = wired();
    for db in ["app", "twin"] {
        wired.cluster.psql(
            db,
            "CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT nothing FROM pg_class); END'",
        );
    }
    let (mut sealed, mut plain) = wired.pair();
    for sql in ["SELECT fails()", "SELECT fails(), email FROM users"] {
        let expected = asked(&mut plain, Out::new().query(sql));
        assert!(expected.as_ref().is_some_and(|fields| fields[5].contains("SELECT nothing")), "{expected:?}");
        assert_eq!(asked(&mut sealed, Out::new().query(sql)), expected);
    }
}
