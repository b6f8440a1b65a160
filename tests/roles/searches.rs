//! Who may search: a role that may not open a column finds nothing out by comparing it.
use super::*;

/// Statements that tell something of `email` or `age` by comparing it, in all ways that there are.
const SEARCHES: &[&str] = &[
    "SELECT id FROM people WHERE account_id = 2 AND email = 'bob@example.com'",
    "SELECT id FROM people WHERE account_id = 2 AND 'bob@example.com' = email",
    "SELECT id FROM people WHERE account_id = 2 AND email <> 'x'",
    "SELECT id FROM people WHERE account_id = 2 AND email IN ('bob@example.com', 'x')",
    "SELECT id FROM people WHERE account_id = 2 AND email NOT IN ('x', 'y')",
    "SELECT id FROM people WHERE account_id = 2 AND email = ANY (ARRAY['bob@example.com'])",
    "SELECT id FROM people WHERE account_id = 2 AND email = ANY ('{bob@example.com}')",
    "SELECT id FROM people WHERE account_id = 2 AND email IS NOT DISTINCT FROM 'bob@example.com'",
    "SELECT id FROM people WHERE account_id = 2 AND age = 7",
    "SELECT email = 'bob@example.com' FROM people WHERE account_id = 2",
    "SELECT CASE WHEN email = 'bob@example.com' THEN 1 END FROM people WHERE account_id = 2",
    "SELECT count(*) FILTER (WHERE email = 'x') FROM people WHERE account_id = 2",
    "SELECT NULLIF(email, 'bob@example.com') IS NULL FROM people WHERE account_id = 2",
    "SELECT a.id FROM people a JOIN people b ON a.email = b.email AND a.account_id = b.account_id WHERE b.id = 2",
    "SELECT id FROM people a WHERE EXISTS (SELECT 1 FROM people b WHERE a.account_id = b.account_id AND a.email = b.email)",
    "SELECT count(*) FROM people a JOIN people b USING (account_id, email)",
    "SELECT id FROM people WHERE account_id = 2 AND email IN (SELECT email FROM people WHERE account_id = 2)",
    "SELECT count(*) FROM people WHERE account_id = 2 GROUP BY email",
    "SELECT count(*) FROM people GROUP BY account_id, email HAVING count(*) > 1",
    "SELECT count(DISTINCT email) FROM people WHERE account_id = 2",
    "SELECT count(*) FROM (SELECT DISTINCT email FROM people WHERE account_id = 2) x",
    "SELECT DISTINCT account_id, email FROM people",
    "SELECT DISTINCT ON (email) id FROM people WHERE account_id = 2",
    "SELECT rank() OVER (PARTITION BY account_id, email) FROM people",
    "SELECT count(*) FROM (SELECT email FROM people WHERE account_id = 2 UNION SELECT email FROM people WHERE account_id = 2) x",
    "SELECT count(*) FROM (SELECT account_id, email FROM people INTERSECT SELECT account_id, email FROM people WHERE account_id = 2) x",
    "SELECT count(*) FROM (SELECT account_id, email FROM people EXCEPT SELECT account_id, email FROM people WHERE account_id = 2) x",
    "SELECT id FROM seen WHERE account_id = 2 AND email = 'bob@example.com'",
    "SELECT number FROM again WHERE account_id = 2 AND mail = 'bob@example.com'",
    "WITH w AS (SELECT id FROM people WHERE account_id = 2 AND email = 'x') SELECT count(*) FROM w",
    "UPDATE people SET note = 'n' WHERE account_id = 2 AND email = 'bob@example.com'",
    "DELETE FROM people WHERE account_id = 2 AND email = 'nobody@example.com'",
    "INSERT INTO people (id, account_id, email) VALUES (90, 2, 'bob@example.com') ON CONFLICT (account_id, email) DO NOTHING",
    "INSERT INTO people AS p (id, account_id, age) VALUES (2, 2, NULL) ON CONFLICT (id) DO UPDATE SET note = 'n' WHERE p.account_id = 2 AND p.age = 7",
    "INSERT INTO plain SELECT id + 90, account_id FROM people WHERE account_id = 2 AND email = 'nobody@example.com'",
    "COPY (SELECT id FROM people WHERE account_id = 2 AND email = 'bob@example.com') TO STDOUT",
    "COPY (SELECT count(*) FROM people GROUP BY account_id, email) TO STDOUT",
    "EXPLAIN (COSTS off) SELECT id FROM people WHERE account_id = 2 AND email = 'bob@example.com'",
    "EXPLAIN (COSTS off, ANALYZE, TIMING off, SUMMARY off) SELECT count(*) FROM people GROUP BY account_id, email",
];

/// The same in more than one statement; the last but one searches.
const NAMED: &[&[&str]] = &[
    &[
        "PREPARE s AS SELECT id FROM people WHERE account_id = 2 AND email = $1",
        "EXECUTE s('bob@example.com')",
        "DEALLOCATE s",
    ],
    &["PREPARE s AS SELECT count(*) FROM people GROUP BY account_id, email", "EXECUTE s", "DEALLOCATE s"],
    &[
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT id FROM people WHERE account_id = 2 AND email = 'bob@example.com'",
        "FETCH ALL FROM c",
        "ROLLBACK",
    ],
    &[
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT count(*) FROM people GROUP BY account_id, email",
        "FETCH ALL FROM c",
        "ROLLBACK",
    ],
];

/// By order nobody searches, nor in what has no tokens.
const NEVER: &[&str] = &[
    "SELECT id FROM people ORDER BY email",
    "SELECT id FROM people WHERE account_id = 2 AND email LIKE 'bob%'",
    "SELECT id FROM people WHERE account_id = 2 AND age > 7",
    "SELECT max(email) FROM people",
    "SELECT id FROM people WHERE account_id = 2 AND ssn = '078-05-1120'",
    "SELECT count(DISTINCT ssn) FROM people WHERE account_id = 2",
    "SELECT id FROM people WHERE length(email) = 15",
    "SELECT id FROM people WHERE email::text = email::text || ''",
    "SELECT md5(email) FROM people",
];

/// Whether a value is NULL. A role that sees masks or cells sees that anyway.
const TESTS: &[&str] = &[
    "SELECT id FROM people WHERE email IS NULL",
    "SELECT email IS NOT NULL FROM people",
    "SELECT count(ssn) FROM people",
    "SELECT id FROM people WHERE account_id = 2 AND email IS DISTINCT FROM NULL",
    "SELECT CASE WHEN ssn IS NULL THEN 'no' ELSE 'yes' END FROM people",
    "PREPARE tested AS SELECT count(email) FROM people",
    "COPY (SELECT count(email) FROM people) TO STDOUT",
    "DELETE FROM people WHERE id = 77 AND email IS NULL",
];

#[test]
fn who_may_not_open_may_not_search_on_15() {
    searches(Version::V15);
}

#[test]
fn who_may_not_open_may_not_search_on_18() {
    searches(Version::V18);
}

fn searches(version: Version) {
    let scene = scene(version);
    let mut wrong = Vec::new();
    let one = |sql: &&str| vec![(*sql).to_owned()];
    let named = NAMED.iter().map(|all| all.iter().map(ToString::to_string).collect());
    let searches: Vec<Vec<String>> = SEARCHES.iter().map(one).chain(named).collect();
    for role in ["opener", "seeker", "masked", "clerk", "cells", "nobody"] {
        let mut peer = scene.login(role);
        let searcher = matches!(role, "opener" | "seeker");
        let mut check = |statements: &[String], expected: &[Option<&str>]| {
            for way in WAYS {
                let replies = replies(&mut peer, statements, way);
                let (state, shown) = (error(&replies), bytes(&replies));
                let told = if role == "opener" { None } else { tells(&shown) };
                if !expected.contains(&state.as_deref()) || told.is_some() || shows_cell(&shown) && role != "cells" {
                    wrong.push(format!("{role}, {way:?}, {statements:?}: {}", show(&replies)));
                }
                peer.send(&Out::new().query("ROLLBACK; DEALLOCATE ALL").0);
                peer.until_ready(1);
            }
        };
        for statements in &searches {
            check(statements, if searcher { &[None] } else { &[Some("42501")] });
        }
        for sql in NEVER {
            check(&one(sql), &[Some("0A000")]);
        }
        for sql in TESTS {
            check(&one(sql), if role == "nobody" { &[Some("42501")] } else { &[None] });
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    scene.assert_nothing_is_told();
}

/// Parameters search as literals do; what was prepared while searching was allowed is not run once it is not.
#[test]
fn prepared_searches_follow_the_role() {
    let scene = scene(Version::Any);
    let mut peer = Peer::connect(scene.proxy.address(), "app");
    let searched = "SELECT id FROM people WHERE account_id = $1 AND email = $2";
    let prepare = Out::new().parse("s", searched).parse("g", "SELECT email FROM people WHERE id = 2").sync();
    peer.send(&prepare.0);
    assert_eq!(error(&peer.until_ready(1)), None);
    for (role, code) in [
        ("seeker", None),
        ("masked", Some("42501")),
        ("cells", Some("42501")),
        ("nobody", Some("42501")),
        ("opener", None),
    ] {
        peer.ask(&format!("SET ROLE {role}"));
        let run = Out::new().bind("", "s", &[Some("2"), Some("bob@example.com")], 0).execute("", 0).sync();
        peer.send(&run.0);
        assert_eq!(error(&peer.until_ready(1)).as_deref(), code, "{role}");
        peer.send(&Out::new().bind("", "g", &[], 0).describe('P', "").execute("", 0).sync().0);
        let replies = peer.until_ready(1);
        assert_eq!(tells(&bytes(&replies)).is_some(), role == "opener", "{role}: {}", show(&replies));
        assert_eq!(error(&replies).is_some(), role == "nobody", "{role}: {}", show(&replies));
        peer.ask("RESET ROLE");
    }
    scene.assert_nothing_is_told();
}
