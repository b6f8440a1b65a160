//! Statements that once differed from Postgres: each gives on sealed tables, and describes, all that it does on plain
//! ones. None is refused, and none is among the [`known`](super::known) differences.
use super::compare::Twins;
use super::grammar::{Case, Execute, Run, Step};
use super::params::Param;
use crate::support::postgres::Version;

/// One statement.
enum Sent {
    /// A simple query.
    Q(&'static str),
    /// With parameters, described before it is bound; results in binary.
    P(&'static str, &'static [&'static str]),
}

use Sent::{P, Q};

/// Each with what has to run before it.
const CASES: &[&[Sent]] = &[
    // NULLIF has a name of its own, also where others read it.
    &[P("SELECT nullif(login, 'zqwxvk.l1'), nullif(email, 'zqwxvk-ann') AS e FROM people WHERE account_id = 1", &[])],
    &[P(
        "WITH w AS (SELECT nullif(born, $q$1971-08-23$q$), doc FROM people WHERE account_id = 2) SELECT w.* FROM w",
        &[],
    )],
    &[Q("WITH w AS (SELECT nullif(age, 1204857733), code FROM people WHERE account_id = 1) SELECT \"nullif\" FROM w")],
    &[Q("SELECT CASE WHEN id = 1 THEN login ELSE nullif(login, 'zqwxvk.l1') END FROM people")],
    // A comment before SET is no part of what comes after it.
    &[Q("UPDATE people AS x -- \"\nSET email = 'zqwxvk-bob' WHERE x.account_id = 2 RETURNING id, email")],
    &[P("UPDATE people -- it's\n SET born = '1903-11-27' WHERE -- \"\n account_id = $1 RETURNING id, born", &["1"])],
    // Arguments of a statement without parameters are not looked at.
    &[
        Q("PREPARE p AS SELECT account_id, age, count(*) FROM people GROUP BY account_id, age"),
        Q("EXECUTE p ('3', '5')"),
        Q("PREPARE q AS SELECT id FROM memos WHERE body = 'zqwxvk-ann'"),
        Q("EXECUTE q ('zqwxvk-bob')"),
        Q("EXECUTE q ('3', 1 + 1)"),
    ],
    // An expression over a column has the length that Postgres gives it.
    &[P(
        "SELECT tag, CASE WHEN id = 1 THEN tag END, CASE WHEN id = 1 THEN tag ELSE tag END, coalesce(tag, tag), \
         coalesce(tag, 'x'), coalesce(tag, 'x'::text), coalesce('x'::text, tag) FROM memos ORDER BY id",
        &[],
    )],
    &[P(
        "SELECT first_value(tag) OVER w, lag(tag) OVER w, nullif(tag, 'zqwxvk-red'), (SELECT tag FROM memos WHERE id = 1), \
         coalesce(nullif(tag, 'zqwxvk-red'), tag) FROM memos WINDOW w AS (ORDER BY id) ORDER BY id",
        &[],
    )],
    &[P("SELECT (array_agg(tag ORDER BY id))[1] FROM memos", &[])],
    &[P("SELECT tag FROM memos WHERE id = 1 UNION ALL SELECT tag FROM memos WHERE id = 3", &[])],
    &[P("SELECT tag FROM memos WHERE id = 1 UNION ALL SELECT NULL", &[])],
    &[P("SELECT tag FROM memos UNION SELECT tag FROM memos WHERE id > 2", &[])],
    // A column of INTERSECT or EXCEPT is no table's.
    &[P("SELECT account_id, email FROM people EXCEPT SELECT account_id, email FROM people WHERE id = 1", &[])],
    &[P("SELECT login, grp FROM people INTERSECT SELECT login, grp FROM people WHERE id IN (1, 5) ORDER BY grp", &[])],
    // The type of a parameter.
    &[P("SELECT id FROM memos WHERE tag = $1", &["zqwxvk-red"])],
    &[P("SELECT id FROM memos WHERE tag IN ($1)", &["zqwxvk-red"])],
    &[P("SELECT id FROM memos WHERE tag IN ($1, $2)", &["zqwxvk-red", "a longer one than it has"])],
    &[P("SELECT id FROM memos WHERE tag NOT IN ($1, 'zqwxvk-red'::text)", &["zqwxvk-red"])],
    &[P("SELECT id FROM memos WHERE tag = $1::varchar OR body = $2::varchar", &["zqwxvk-red", "zqwxvk-ann"])],
    &[P("SELECT id FROM memos WHERE body = $1::text AND coalesce(tag, $2) = $3", &["zqwxvk-ann", "x", "zqwxvk-red"])],
    &[P("SELECT id FROM memos WHERE tag = ANY (ARRAY[$1, 'zqwxvk-red'])", &["zqwxvk-blue"])],
    &[P(
        "INSERT INTO memos (id, body, tag) VALUES (90, $1, $2), (91, NULL, $3)",
        &["zqwxvk-n", "zqwxvk-m", "zqwxvk-k"],
    )],
    &[P("UPDATE memos SET tag = coalesce($1, tag) WHERE tag = $2 RETURNING tag", &["zqwxvk-m", "zqwxvk-red"])],
    // Columns of one name.
    &[Q("WITH w AS (DELETE FROM memos WHERE id = 1 RETURNING tag, tag, id) SELECT * FROM w")],
    &[P("WITH w AS (DELETE FROM people WHERE id = 1 RETURNING email, account_id, email) SELECT * FROM w", &[])],
    &[P("SELECT * FROM (SELECT email, account_id, email FROM people WHERE id < 3) s", &[])],
    &[P("SELECT s.* FROM (SELECT email, account_id, account_id FROM people WHERE id < 3) s", &[])],
    // An array of texts is compared with texts only.
    &[Q("SELECT id FROM people WHERE code = ANY (ARRAY['5f0c9d7e-3b1a-4c2d-8e9f-0a1b2c3d4e5f', NULL])")],
    &[P("SELECT id FROM people WHERE account_id = 1 AND age <> ALL (ARRAY['1731845099'])", &[])],
    &[P(
        "DELETE FROM people WHERE account_id = 1 AND born = ANY (ARRAY['1971-08-23', '1903-11-27']) RETURNING id",
        &[],
    )],
    &[P("SELECT id FROM people WHERE account_id = 1 AND age = ANY (ARRAY[1731845099, $1])", &["1204857733"])],
    &[P("SELECT id FROM people WHERE code = ANY (ARRAY['5f0c9d7e-3b1a-4c2d-8e9f-0a1b2c3d4e5f']::uuid[])", &[])],
    // A bad literal is found when a statement is prepared, one that is too long when it runs.
    &[P("SELECT id FROM people WHERE account_id = 1 AND age = 'zqwxvk'", &[])],
    &[P("UPDATE people SET code = 'zqwxvk' WHERE account_id = 1 AND email = $1", &["zqwxvk-ann"])],
    &[P("INSERT INTO memos (id, tag) VALUES (900, 'zqwxvk-is too long')", &[])],
    &[P("SELECT coalesce(age, 'zqwxvk') FROM people WHERE id = 1", &[])],
    &[Q("SELECT coalesce(born, 'zqwxvk') FROM people WHERE id = 1")],
    &[P("SELECT id FROM people WHERE account_id = 1 AND age = ANY ('{1, zqwxvk}')", &[])],
    &[Q("PREPARE p AS SELECT id FROM people WHERE account_id = 1 AND age = 'zqwxvk'")],
    &[Q("PREPARE p AS INSERT INTO memos (id, tag) VALUES (900, 'zqwxvk-is too long')"), Q("EXECUTE p")],
    // A parameter that is not in the text is not sent.
    &[P("SELECT id FROM people WHERE login = $2", &["zqwxvk-x", "zqwxvk.l1"])],
    // A name for what stands in place of a literal.
    &[P("SELECT CASE WHEN id < 3 THEN body ELSE 'x' END, coalesce(body, 'x') FROM memos", &[])],
    // DISTINCT ON of an output column by its name.
    &[Q("SELECT DISTINCT ON (e) email AS e FROM contacts JOIN orders o ON o.id > 0 WHERE contacts.account_id = 1")],
    &[P(
        "SELECT DISTINCT ON (c.account_id, e) c.account_id, c.email AS e FROM contacts c JOIN orders o ON o.id > 0",
        &[],
    )],
    // UNION ALL keeps what a UNION within it has told apart, and gives the rest as it is.
    &[Q(
        "SELECT login FROM people UNION SELECT login FROM people WHERE id > 2 UNION ALL SELECT login FROM people UNION \
         SELECT login FROM people WHERE id = 1",
    )],
    // A column of WITH RECURSIVE is no table's.
    &[P(
        "WITH RECURSIVE r AS (SELECT id, email FROM people WHERE id = 1 UNION ALL SELECT p.id, p.email FROM people p \
         JOIN r ON p.id = r.id + 1) SELECT r.*, email FROM r",
        &[],
    )],
    &[P("SELECT nullif(tag, NULL), nullif(body, NULL)::text FROM memos WHERE nullif(body, NULL) = 'zqwxvk-ann'", &[])],
    // A cast that leaves the value as it is.
    &[P("SELECT tag::varchar, tag::text, CAST(tag AS text) AS t, body::varchar, body::text FROM memos", &[])],
    &[P("SELECT price::numeric, nullif(price, 5)::numeric, price FROM parts", &[])],
    &[Q("SELECT tag::text FROM memos WHERE tag::text = 'zqwxvk-red' ORDER BY id")],
    // A comparison with NULL is one of groups too.
    &[Q("SELECT account_id, email, count(*) FILTER (WHERE email = NULL) FROM people GROUP BY account_id, email")],
    // A table of the policy that does not exist.
    &[Q("SELECT id FROM awaited WHERE x = 'zqwxvk-a'"), P("INSERT INTO public.awaited (x) VALUES ($1)", &["zqwxvk-a"])],
    &[P("UPDATE awaited SET x = 'zqwxvk-a'", &[]), Q("DELETE FROM people USING awaited WHERE email = 'zqwxvk-a'")],
    // Values that have no type from what stands around them.
    &[
        Q(
            "PREPARE p AS UPDATE memos u SET body = v.body FROM (VALUES (1::int8, $1::text)) AS v(id, body) WHERE u.id = v.id",
        ),
        Q("EXECUTE p ('zqwxvk-n')"),
        Q("SELECT body FROM memos ORDER BY id"),
    ],
    &[
        Q("PREPARE p AS INSERT INTO memos (id, body) SELECT * FROM unnest($1::int8[], '{zqwxvk-n,zqwxvk-m}'::text[])"),
        Q("EXECUTE p ('{90, 91}')"),
        Q("SELECT body FROM memos WHERE id > 89 ORDER BY id"),
    ],
    // Rows are described once all of them are changed.
    &[Q("UPDATE memos SET body = 'zqwxvk-ann' WHERE id > 1 RETURNING id, body")],
    &[Q("BEGIN"), Q("UPDATE memos SET tag = 'zqwxvk-n', id = 1 RETURNING tag"), Q("ROLLBACK")],
    &[Q("UPDATE memos SET tag = 'zqwxvk-n' WHERE body IS NOT NULL RETURNING id, tag")],
];

fn step(sent: &Sent) -> Step {
    let (sql, run) = match sent {
        Q(sql) => (sql, Run::Simple),
        P(sql, params) => {
            let params = params.iter().map(|param| Param::new(Some((*param).to_owned()), "text")).collect();
            (sql, Run::Extended { params, format: 1, portal: true, execute: Execute::Once })
        }
    };
    Step { kind: "pinned", sql: (*sql).to_owned(), run }
}

fn check(version: Version) {
    let mut twins = Twins::start(version);
    let mut wrong = Vec::new();
    for (n, sent) in CASES.iter().enumerate() {
        let before = twins.counts.get("pinned").map_or(0, |count| count.refused);
        let case = Case { steps: sent.iter().map(step).collect(), dirty: true };
        wrong.extend(twins.run(&case).map(|(fault, text)| format!("case {n}: {fault:?}: {text}")));
        if twins.counts["pinned"].refused > before {
            wrong.push(format!("case {n} is refused: {:?}", case.steps));
        }
    }
    assert!(wrong.is_empty(), "{version:?}: {} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    let told = |reason: &&&str| reason.starts_with("a table of the policy that does not exist");
    assert_eq!(twins.allowed.keys().filter(told).count(), twins.allowed.len(), "{version:?}: {:?}", twins.allowed);
}

#[test]
fn what_once_differed_is_the_same_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn what_once_differed_is_the_same_on_postgres_18() {
    check(Version::V18);
}
