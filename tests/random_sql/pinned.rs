//! Statements that once differed from Postgres: each gives on sealed tables, and describes, all that it does on plain
//! ones. None is refused, and none is among the [`known`](super::known) differences.
use super::compare::Twins;
use super::grammar::{Case, Run, Step};
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
    &[P("WITH w AS (SELECT nullif(born, $q$1971-08-23$q$), doc FROM people WHERE account_id = 2) SELECT w.* FROM w", &[])],
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
];

fn step(sent: &Sent) -> Step {
    let (sql, run) = match sent {
        Q(sql) => (sql, Run::Simple),
        P(sql, params) => {
            let params = params.iter().map(|param| Some((*param).to_owned())).collect();
            (sql, Run::Extended { params, format: 1, portal: true })
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
    assert!(twins.allowed.is_empty(), "{version:?}: {:?}", twins.allowed);
}

#[test]
fn what_once_differed_is_the_same_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn what_once_differed_is_the_same_on_postgres_18() {
    check(Version::V18);
}
