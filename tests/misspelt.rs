//! Names that mean nothing: what stands beside them may be meant for a sealed column. The error is Postgres's own, as a
//! plain twin shows it, and the server is not told the value (T5). What means something is not touched by that.
use crate::support::peer::{Message, Out, Peer, field, show};
use crate::support::postgres::Version;
use crate::support::tap::{Tap, contains};
use crate::wire::{Wired, wired_behind};

/// Statements with a name that means nothing, or not what it should, and a value that is not for the server.
const MISSPELT: &[&str] = &[
    "INSERT INTO users (id, account_id, emial) VALUES (7, 1, 'canary7f3')",
    "INSERT INTO users (id, account_id, email, emial) VALUES (7, 1, 'é canary7f3', E'canary7f3\\'x'), (8, 1, 'y', $$canary7f3$$)",
    "INSERT INTO users (id, account_id, agee) VALUES (7, 1, 7003007)",
    "INSERT INTO users (id, account_id, emial) SELECT 7, 1, 'canary7f3'",
    "INSERT INTO users (id, account_id, email) VALUES (7, 1, 'canary7f3') ON CONFLICT (id) DO UPDATE SET emial = 'canary7f3'",
    "INSERT INTO users (id, account_id, email) VALUES (7, 1, 'x') ON CONFLICT (id) DO UPDATE SET email = 'y' WHERE excluded.emial = 'canary7f3'",
    "INSERT INTO users (id, account_id, email) VALUES (7, 1, 'x') ON CONFLICT (emial) DO UPDATE SET note = 'canary7f3'",
    "INSERT INTO users (id, account_id, email) VALUES (7, 1, 'x') RETURNING email, emial = 'canary7f3'",
    "INSERT INTO users (id, account_id, note) VALUES (7, 1, emial || 'canary7f3')",
    "UPDATE users SET emial = 'canary7f3' WHERE id = 1",
    "UPDATE users SET emial = 'canary7f3'",
    "UPDATE users SET (note, emial) = ('canary7f3', 'canary7f3')",
    "UPDATE users SET email = 'canary7f3' WHERE emial = 'canary7f3'",
    "UPDATE users AS u SET email = 'canary7f3' WHERE u.emial = 'canary7f3' RETURNING id",
    "DELETE FROM users WHERE emial = 'canary7f3'",
    "SELECT id FROM users WHERE emial = 'canary7f3'",
    "SELECT id FROM users WHERE 'canary7f3' = emial AND account_id = 1",
    "SELECT id FROM users WHERE users.emial = 'canary7f3'",
    "SELECT id FROM users u WHERE u.emial IN ('canary7f3', 'x', U&'canary7f3')",
    "SELECT id FROM users u WHERE public.users.email = 'canary7f3'",
    "SELECT id FROM users u WHERE usr.email = 'canary7f3'",
    "SELECT id FROM public.users WHERE public.users.emial = 'canary7f3'",
    "SELECT u.id FROM users u JOIN notes n ON n.boddy = 'canary7f3' AND n.id = u.id",
    "SELECT id FROM users WHERE account_id = 1 AND (emial LIKE 'canary7f3%' OR note = 'é')",
    "SELECT id FROM users WHERE borne > DATE '1970-01-01' AND agee BETWEEN 7003007 AND 7003008",
    "SELECT id FROM users WHERE borne > now() - INTERVAL '7003007 days' AND activ = FALSE",
    "SELECT id FROM users WHERE emial OPERATOR(pg_catalog.=) 'canary7f3'",
    "SELECT id FROM users WHERE (emial, age) = ('canary7f3', 7003007)",
    "SELECT id FROM users WHERE emial = ANY (ARRAY['canary7f3', 'x'])",
    "SELECT id FROM users WHERE EXISTS (SELECT 1 FROM notes WHERE notes.id = users.id AND emial = 'canary7f3')",
    "SELECT id FROM users, LATERAL (SELECT emial || 'canary7f3' AS x) s WHERE x = 'canary7f3'",
    "SELECT id FROM users, generate_series(1, 2) WHERE emial = 'canary7f3'",
    "SELECT id FROM users, json_to_record('{\"a\": 1}') AS j (a int) WHERE emial = 'canary7f3' AND a = 1",
    "WITH w AS (SELECT id AS number FROM users WHERE account_id = 1) SELECT number FROM w WHERE nummer = 7003007",
    "SELECT id, CASE emial WHEN 'canary7f3' THEN 1 END FROM users",
    "SELECT count(*) FILTER (WHERE emial = 'canary7f3') FROM users",
    "SELECT note FROM users GROUP BY note HAVING max(emial) = 'canary7f3'",
    "SELECT id AS x FROM users WHERE x = 7003007",
    "SELECT id FROM users ORDER BY emial = 'canary7f3'",
    "EXPLAIN SELECT id FROM users WHERE emial = 'canary7f3'",
    "EXPLAIN (COSTS off) INSERT INTO users (id, account_id, emial) VALUES (7, 1, 'canary7f3')",
    "/* é */ SELECT id\n FROM users -- x\n WHERE \"emial\" = 'canary7f3'",
];

/// The error of a reply: SQLSTATE, message, hint and position.
fn error(messages: &[Message]) -> Option<[String; 4]> {
    let (_, body) = messages.iter().find(|(tag, _)| *tag == b'E')?;
    Some([b'C', b'M', b'H', b'P'].map(|code| field(body, code)))
}

fn asked(peer: &mut Peer, out: &Out) -> (Option<[String; 4]>, String) {
    peer.send(&out.0);
    let replies = peer.until_ready(1);
    (error(&replies), show(&replies))
}

fn assert_untold(wired: &Wired, what: &str) {
    let told = wired.tap.as_ref().unwrap().to_server();
    for value in [&b"canary7f3"[..], b"7003007"] {
        assert!(!contains(&told, value), "{what}: a value reached the server");
    }
}

#[test]
fn misspelt_names_are_for_the_server_to_refuse_on_15() {
    misspelt(Version::V15);
}

#[test]
fn misspelt_names_are_for_the_server_to_refuse_on_18() {
    misspelt(Version::V18);
}

fn misspelt(version: Version) {
    let wired = wired_behind(version, Tap::start);
    let (mut sealed, mut plain) = wired.pair();
    let mut wrong = Vec::new();
    for sql in MISSPELT {
        let ways = [
            Out::new().query(sql),
            Out::new().run(sql, &[]).sync(),
            Out::new().parse("", sql).flush().sync(),
            Out::new().parse("n", sql).describe('S', "n").flush().sync(),
        ];
        for begin in [false, true] {
            for way in &ways {
                for peer in [&mut sealed, &mut plain] {
                    peer.ask(if begin { "BEGIN" } else { "SELECT 1" });
                }
                let expected = asked(&mut plain, way);
                assert!(expected.0.is_some(), "{sql}: {}", expected.1);
                let got = asked(&mut sealed, way);
                if got != expected {
                    wrong.push(format!("{sql}\n{got:?}\n{expected:?}"));
                }
                for peer in [&mut sealed, &mut plain] {
                    peer.ask("ROLLBACK");
                }
            }
        }
        assert_untold(&wired, sql);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(sealed.ask("SELECT email FROM users WHERE id = 1").contains("a@x"));
}

/// Values of parameters are not for the server either, though they come in the same pipeline.
#[test]
fn parameters_beside_misspelt_names_stay_here() {
    let wired = wired_behind(Version::Any, Tap::start);
    let (mut sealed, mut plain) = wired.pair();
    for (sql, params) in [
        ("INSERT INTO users (id, account_id, emial) VALUES (7, 1, $1)", &[Some("canary7f3")][..]),
        ("SELECT id FROM users WHERE account_id = 1 AND email = $1 AND emial = $2", &[Some("x"), Some("canary7f3")]),
        ("UPDATE users SET emial = $1 WHERE id = $2", &[Some("canary7f3"), Some("1")]),
        ("SELECT id FROM users u WHERE u.emial = $1", &[Some("canary7f3")]),
    ] {
        let named = Out::new().parse("s", sql).bind("", "s", params, 0).execute("", 0).sync();
        let typed = Out::new().parse_as("t", sql, &[25]).bind("", "t", params, 0).execute("", 0).sync();
        let queued = Out::new().query("SELECT 1").run("SELECT 2", &[]).run(sql, params).sync();
        for (way, syncs) in [(Out::new().run(sql, params).sync(), 1), (named, 1), (typed, 1), (queued, 2)] {
            for peer in [&mut sealed, &mut plain] {
                peer.send(&way.0);
            }
            let (expected, got) = (plain.until_ready(syncs), sealed.until_ready(syncs));
            assert_eq!((error(&got), show(&got)), (error(&expected), show(&expected)), "{sql}");
        }
        // The name was not taken.
        let again = Out::new().bind("", "s", params, 0).execute("", 0).sync();
        let expected = asked(&mut plain, &again);
        assert_eq!(asked(&mut sealed, &again).0.map(|e| e[0].clone()), expected.0.map(|e| e[0].clone()));
    }
    assert_untold(&wired, "parameters");
}

/// The server is asked before any of a text runs. What the text would have committed by then is not left out unseen.
#[test]
fn what_is_committed_before_a_misspelt_name_is_not_left_out() {
    let wired = wired_behind(Version::Any, Tap::start);
    let (mut peer, _) = wired.pair();
    for end in ["COMMIT", "BEGIN; SELECT 1; END"] {
        let sql = format!(
            "INSERT INTO users (id, account_id, note) VALUES (30, 1, 'n'); {end}; SELECT id FROM users WHERE emial = 'canary7f3'"
        );
        let (error, shown) = asked(&mut peer, &Out::new().query(&sql));
        assert_eq!(error.unwrap()[0], "0A000", "{shown}");
    }
    assert_untold(&wired, "texts that commit");
}

/// A name in double quotes is rather a value that somebody has quoted so.
#[test]
fn values_in_double_quotes_stay_here() {
    let wired = wired_behind(Version::Any, Tap::start);
    let (mut peer, _) = wired.pair();
    for sql in [
        "SELECT id FROM users WHERE account_id = 1 AND email = \"ada@canary7f3.org\"",
        "SELECT id FROM users WHERE \"ada@canary7f3.org\" = email",
        "INSERT INTO users (id, account_id, email) VALUES (7, 1, \"ada canary7f3\")",
        "UPDATE users SET email = \"canary7f3 x\"",
        "SELECT id FROM users WHERE note = \"7003007\"",
        "SELECT id FROM users, generate_series(1, 2) WHERE note = \"canary7f3 x\"",
    ] {
        for way in [Out::new().query(sql), Out::new().run(sql, &[]).sync()] {
            let (error, _) = asked(&mut peer, &way);
            assert_eq!(error.unwrap()[0], "0A000", "{sql}");
        }
    }
    assert_untold(&wired, "double quotes");
}

/// A column that has just come is not taken for a misspelt one, nor one of this very transaction.
#[test]
fn columns_that_have_just_come_are_known() {
    let wired = wired_behind(Version::Any, Tap::start);
    let (mut sealed, mut plain) = wired.pair();
    let mut both = |sql: &str| {
        let shown = [&mut sealed, &mut plain].map(|peer| peer.ask(sql));
        assert_eq!(shown[0], shown[1], "{sql}");
        assert!(!shown[0].contains("E("), "{sql}: {}", shown[0]);
    };
    for n in 0..6 {
        for db in ["app", "twin"] {
            wired.cluster.psql(db, &format!("ALTER TABLE users ADD COLUMN nick{n} text"));
        }
        both(&match n {
            0 => "UPDATE users SET nick0 = 'x' WHERE id = 1".to_owned(),
            1 => "SELECT id FROM users u WHERE u.nick1 = 'x'".to_owned(),
            2 => "INSERT INTO users (id, account_id, email, nick2) VALUES (20, 1, 'z', 'x') RETURNING email, nick2"
                .to_owned(),
            3 => "SELECT id FROM users WHERE nick3 IS NULL AND note IS NULL ORDER BY 1".to_owned(),
            _ => format!(
                "SELECT u.nick{n}, u.email FROM users u, generate_series(1, 1) WHERE nick{n} IS DISTINCT FROM 'x' ORDER BY id"
            ),
        });
    }
    for n in 6..9 {
        both("BEGIN");
        for db in ["app", "twin"] {
            wired.cluster.psql(db, &format!("ALTER TABLE users ADD COLUMN nick{n} text"));
        }
        both(&format!("UPDATE users SET nick{n} = 'x' WHERE id = 1"));
        both(&format!("SELECT email FROM users WHERE nick{n} = 'x'"));
        both("COMMIT");
    }
    both("BEGIN");
    both("ALTER TABLE users ADD COLUMN own text");
    both("SELECT id, email FROM users WHERE own = 'x' OR id < 3 ORDER BY id");
    both("SELECT own, email FROM users u WHERE u.id = 2");
    both("ROLLBACK");
    for peer in [&mut sealed, &mut plain] {
        assert!(peer.ask("SELECT id FROM users WHERE own = 'x'").starts_with("E(ERROR 42703)"));
    }
}

/// Names that mean something without being a column of a table that the proxy knows.
const WELL_SPELT: &[&str] = &[
    "SELECT users.*, u2::text FROM users JOIN notes u2 USING (id) ORDER BY 1",
    "SELECT id AS number, note AS remark FROM users WHERE note IS DISTINCT FROM 'x' ORDER BY number, remark",
    "SELECT note, count(*) FROM users WHERE id <> 77 GROUP BY 1 ORDER BY count",
    "SELECT lower(note), count(*) FROM users WHERE id <> 77 GROUP BY lower ORDER BY lower, 2",
    "SELECT upper(note) AS big FROM users WHERE id <> 77 GROUP BY big ORDER BY big",
    "SELECT count(*), max(id) FROM users WHERE note IS NULL OR note = 'x'",
    "SELECT id, row_number() OVER w AS n, rank() OVER (w ROWS 5 PRECEDING) FROM users WHERE id < 7 WINDOW w AS (ORDER BY id) ORDER BY n",
    "SELECT email, email::text FROM users WHERE account_id = 1 AND email = 'a@x'",
    "SELECT id, ctid IS NULL, tableoid = 5, xmin IS NULL, users.xmax IS NULL FROM users WHERE id = 1",
    "SELECT g, id FROM users, generate_series(1, 3) g WHERE g = 2 AND id < 3 ORDER BY 2",
    "SELECT g.g, id FROM users, generate_series(1, 3) g WHERE g.g = id ORDER BY 2",
    "SELECT n, id FROM users, generate_series(1, 3) AS g (n) WHERE n = id ORDER BY 2",
    "SELECT generate_series, id FROM users, generate_series(1, 3) WHERE generate_series = id AND id <> 77 ORDER BY 2",
    "SELECT key, value, id FROM users, json_each('{\"a\": 1, \"b\": 2}') WHERE key = 'a' AND id < 3 ORDER BY id",
    "SELECT key, count(*) FROM users, json_each('{\"a\": 1, \"b\": 2}') WHERE id <> 77 GROUP BY key, 1 ORDER BY 1",
    "SELECT key, note, count(*) FROM users, json_each('{\"a\": 1}') WHERE id <> 77 GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT x.a, b, id FROM users, json_to_recordset('[{\"a\": 1, \"b\": \"c\"}]') AS x (a int, b text) WHERE a = 1 AND b = 'c' AND id = 1",
    "SELECT x, n, id FROM users, unnest(ARRAY['p', 'q']) AS u (x) CROSS JOIN LATERAL (SELECT 5 AS n) s WHERE x = 'p' AND n = 5 AND id = 1",
    "SELECT id, v.a FROM users, (VALUES (1, 'one'), (2, 'two')) AS v (a, b) WHERE b = 'one' AND v.a = id",
    "SELECT column2, id FROM users, (VALUES (1, 'one')) v WHERE column1 = id AND column2 = 'one'",
    "SELECT count, note FROM (SELECT note, count(*) FROM users WHERE id <> 77 GROUP BY note) s WHERE count > 1",
    "SELECT coalesce FROM (SELECT coalesce(note, 'none') FROM users WHERE id = 1) s WHERE coalesce = 'none'",
    "SELECT id, (SELECT body FROM notes n WHERE n.id = users.id AND body <> 'x') FROM users WHERE id = 1",
    "SELECT id, (SELECT max(body || note || 'x') FROM notes WHERE notes.id = 1) FROM users WHERE id = 1",
    "SELECT id FROM users WHERE EXISTS (SELECT 1 FROM notes WHERE note IS NULL AND body <> 'x') ORDER BY id",
    "WITH w (number, remark) AS (SELECT id, note FROM users WHERE id <> 77) SELECT number FROM w WHERE number = 2",
    "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT n, email FROM t JOIN users ON id = n WHERE n > 3",
    "WITH moved AS (UPDATE users SET note = 'm' WHERE id = 5 RETURNING id, note AS was) SELECT was FROM moved WHERE was = 'm'",
    "SELECT id FROM users u WHERE (u.id, u.account_id) = (1, 1) AND ROW(id, note) IS NOT NULL",
    "SELECT id FROM users WHERE current_date > DATE '2000-01-01' AND current_user <> 'x' AND localtimestamp > TIMESTAMP '2000-01-01 00:00' AND id = 1",
    "SELECT user <> 'x', current_schema = 'public', id FROM users WHERE id = 1",
    "SELECT extract(year FROM DATE '2001-02-03'), id FROM users WHERE id = 1",
    "SELECT id FROM users NATURAL JOIN notes WHERE body <> 'x' ORDER BY id",
    "SELECT a.id, b.body FROM users a LEFT JOIN notes b USING (id) WHERE id = 2 AND b.body <> 'x'",
    "SELECT id FROM users FULL JOIN notes USING (id) WHERE id = 2",
    "INSERT INTO users AS u (id, account_id, note) VALUES (1, 1, 'n') ON CONFLICT (id) DO UPDATE SET note = excluded.note || u.note || 'x' WHERE u.id = 1 AND excluded.id = 1 RETURNING u.note, xmax = 0",
    "UPDATE users u SET note = s.body || 'x' FROM notes s WHERE s.id = u.id AND s.id = 3 RETURNING body, u.note",
    "UPDATE users SET note = DEFAULT WHERE id = 3 RETURNING note IS NULL",
    "DELETE FROM users USING notes n WHERE n.id = users.id AND n.body = 'x' RETURNING users.*",
    "SELECT id FROM users UNION SELECT id FROM notes WHERE body <> 'x' ORDER BY id",
    "SELECT count(*) FROM users WHERE id <> 77 UNION ALL SELECT count(*) FROM notes ORDER BY count",
    "SELECT s.body FROM users u CROSS JOIN LATERAL (SELECT body FROM notes WHERE notes.id = u.id AND body <> 'x' LIMIT 1) s ORDER BY body LIMIT 2 OFFSET 1",
    "SELECT DISTINCT ON (account_id) account_id, id FROM users WHERE id <> 77 ORDER BY account_id, id DESC",
    "SELECT n.notes::text FROM (SELECT notes FROM notes WHERE id = 1) n, users WHERE users.id = 1 AND users.note IS DISTINCT FROM 'x'",
    "SELECT body(n) || 'x' FROM notes n, users u WHERE n.id = u.id AND u.id = 1",
    "SELECT n.body || 'x', n.tripled FROM notes n JOIN users u ON n.id = u.id AND u.id = 1 WHERE n.tripled = 3",
    "SELECT word || 'x', id FROM pg_get_keywords(), users WHERE word = 'select' AND catcode = 'R' AND id = 1",
    "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relname = 'users' AND nspname = 'public'",
    "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) IS NULL FROM pg_attribute a WHERE a.attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    "SELECT id FROM users WHERE note COLLATE \"C\" > 'a' OR id = 1 ORDER BY note COLLATE \"C\", id",
    "SELECT id FROM users WHERE id = ANY (ARRAY[1, 2]) AND id IN (1, 2, 3) AND id BETWEEN 1 AND 2 ORDER BY id DESC NULLS LAST FETCH FIRST 1 ROWS ONLY",
    "SELECT id, \"Odd name\" FROM users, (SELECT 5 AS \"Odd name\") s WHERE \"Odd name\" = 5 AND id = 1 ORDER BY \"Odd name\"",
    "SELECT sum(id) FILTER (WHERE note IS DISTINCT FROM 'x') AS total FROM users HAVING count(*) > 1",
    "SELECT array_agg(id ORDER BY id DESC) FROM users WHERE id < 4 AND note IS DISTINCT FROM 'x'",
    "EXPLAIN (COSTS off) SELECT id FROM users, generate_series(1, 2) n WHERE n = 1 AND id = 1",
    "BEGIN; SELECT value FROM users, json_array_elements('[1]') WHERE id = 1 AND value::text = '1'; COMMIT",
    "PREPARE well AS SELECT id, value FROM users, json_array_elements('[1]') WHERE id = $1 AND value::text = '1'",
    "EXECUTE well(2)",
    "BEGIN; DECLARE c CURSOR FOR SELECT id, value FROM users, json_array_elements('[1]') WHERE id < 3 AND value::text = '1' ORDER BY id; FETCH ALL c; COMMIT",
    "COPY (SELECT id, value FROM users, json_array_elements('[1]') WHERE id < 3 AND value::text = '1' ORDER BY id) TO STDOUT",
    "SELECT id, \"?column?\" FROM users, (SELECT 1 + 1) o WHERE \"?column?\" = 2 AND id = 1",
    "SELECT email FROM members WHERE account = 1 AND email = 'a@x' AND number = 1",
];

#[test]
fn names_that_mean_something_are_left_alone_on_15() {
    well_spelt(Version::V15);
}

#[test]
fn names_that_mean_something_are_left_alone_on_18() {
    well_spelt(Version::V18);
}

fn well_spelt(version: Version) {
    let wired = wired_behind(version, Tap::start);
    for db in ["app", "twin"] {
        wired.cluster.psql(
            db,
            "CREATE FUNCTION tripled(notes) RETURNS int8 LANGUAGE sql AS 'SELECT 3 * $1.id'; \
             CREATE VIEW members AS SELECT id AS number, account_id AS account, email FROM users",
        );
    }
    let (mut sealed, mut plain) = wired.pair();
    let mut wrong = Vec::new();
    for sql in WELL_SPELT {
        let expected = asked(&mut plain, &Out::new().query(sql));
        assert_eq!(expected.0, None, "{sql}");
        let got = asked(&mut sealed, &Out::new().query(sql));
        if got != expected {
            wrong.push(format!("{sql}\n{got:?}\n{expected:?}"));
            continue;
        }
        if !sql.contains(';') && !sql.starts_with("EXECUTE") && !sql.starts_with("PREPARE") && !sql.starts_with("COPY")
        {
            let run = Out::new().run(sql, &[]).sync();
            let expected = asked(&mut plain, &run);
            assert_eq!(asked(&mut sealed, &run), expected, "{sql}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Where the server says something else of a statement without its values, that is no error of the client's, but told.
#[test]
fn errors_that_may_come_of_other_values_are_told_as_such() {
    let wired = wired_behind(Version::Any, Tap::start);
    let mut peer = wired.peer();
    for sql in [
        "SELECT emial FROM users, nowhere('canary7f3') WHERE emial = 'canary7f3'",
        "SELECT id FROM users, generate_series(1, 5) WHERE upper(7003007) = 'x' AND emial = 'canary7f3'",
    ] {
        peer.send(&Out::new().query(sql).0);
        let replies = peer.until_ready(1);
        assert_eq!(error(&replies).unwrap()[0], "0A000", "{sql}");
        let detail = field(&replies[0].1, b'D');
        assert!(detail.contains("says: function "), "{sql}: {detail}");
    }
    assert_untold(&wired, "other errors");
}
