//! Statements made at random: on sealed tables each is refused or gives what it gives on plain ones (T4, T5). What is
//! refused does not matter here; a silent difference does.
use super::{Outcome, simple, twins};

const STATEMENTS: usize = 1200;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn pick<'l>(&mut self, list: &[&'l str]) -> &'l str {
        list[self.below(list.len())]
    }
}

/// Conditions on one table, called `@`.
const ONE: &[&str] = &[
    "@.account_id = 1",
    "@.account_id = 1",
    "@.account_id = 2",
    "@.account_id IN (1, 2)",
    "@.account_id <> 1",
    "@.email = 'ann@x'",
    "@.email = 'ann@x'",
    "@.email <> 'ann@x'",
    "@.email IS NULL",
    "@.email IS DISTINCT FROM 'ann@x'",
    "@.email IS NOT DISTINCT FROM NULL",
    "@.email IN ('ann@x', 'zoe@x', NULL)",
    "@.email NOT IN ('ann@x', 'zoe@x')",
    "@.email = ANY ('{ann@x,bob@x}')",
    "@.email <> ALL (ARRAY['ann@x', 'zoe@x'])",
    "(@.account_id, @.email) = (1, 'ann@x')",
    "(@.account_id, @.email) NOT IN ((1, 'ann@x'), (2, ''))",
    "@.login = 'ann'",
    "@.login IS DISTINCT FROM 'eve'",
    "@.id < 3",
    "coalesce(@.email, '') = ''",
    "NULLIF(@.email, 'ann@x') = 'bob@x'",
    "CASE @.email WHEN 'ann@x' THEN true END",
];

/// Conditions on two tables, called `@` and `#`.
const TWO: &[&str] = &[
    "@.account_id = #.account_id",
    "@.account_id = #.account_id",
    "@.email = #.email",
    "@.email = #.email",
    "@.email <> #.email",
    "@.email IS NOT DISTINCT FROM #.email",
    "(@.account_id, @.email) = (#.account_id, #.email)",
    "@.login = #.login",
    "@.id = #.id",
    "coalesce(@.email, #.email) = 'ann@x'",
];

fn atom(dice: &mut Dice, tables: &[&str], depth: usize) -> String {
    let first = dice.pick(tables);
    if depth > 0 && dice.below(8) == 0 {
        let inner = condition(dice, &["k", first], depth - 1);
        return match dice.below(4) {
            0 => format!("EXISTS (SELECT 1 FROM contacts k WHERE {inner})"),
            1 => format!("{first}.email IN (SELECT k.email FROM contacts k WHERE {inner})"),
            2 => format!(
                "({first}.account_id, {first}.email) IN (SELECT k.account_id, k.email FROM contacts k WHERE {inner})"
            ),
            _ => format!("{first}.login NOT IN (SELECT k.login FROM contacts k WHERE {inner})"),
        };
    }
    match tables {
        [a, b] if dice.below(2) == 0 => dice.pick(TWO).replace('@', "\u{1}").replace('#', b).replace('\u{1}', a),
        _ => dice.pick(ONE).replace("@.", &format!("{first}.")),
    }
}

fn condition(dice: &mut Dice, tables: &[&str], depth: usize) -> String {
    if depth == 0 {
        return atom(dice, tables, 0);
    }
    let part = |dice: &mut Dice| condition(dice, tables, depth - 1);
    match dice.below(8) {
        0..=3 => format!("({} AND {})", part(dice), part(dice)),
        4 => format!("({} OR {})", part(dice), part(dice)),
        5 => format!("NOT ({})", part(dice)),
        6 => format!("(({}) IS TRUE)", part(dice)),
        _ => atom(dice, tables, depth),
    }
}

fn from(dice: &mut Dice) -> String {
    match dice.below(5) {
        0 => "users u, contacts c".to_owned(),
        1 => "users u JOIN contacts c USING (account_id, email)".to_owned(),
        _ => {
            let kind = dice.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            format!("users u {kind} contacts c ON {}", condition(dice, &["u", "c"], 1))
        }
    }
}

const KEYS: &[&str] =
    &["u.email", "u.account_id, u.email", "u.login", "u.age, u.account_id", "u.id, u.ssn", "u.email, u.login"];

fn statement(dice: &mut Dice) -> String {
    let own = condition(dice, &["u"], 2);
    let keys = dice.pick(KEYS);
    match dice.below(13) {
        0 | 1 => format!("SELECT u.id, u.email FROM users u WHERE {own}"),
        2 | 3 => {
            let from = from(dice);
            format!("SELECT u.id, c.id, u.email FROM {from} WHERE {}", condition(dice, &["u", "c"], 2))
        }
        4 => format!("SELECT {keys}, count(*) FROM users u WHERE {own} GROUP BY {keys}"),
        5 => {
            let from = from(dice);
            let filter = condition(dice, &["u", "c"], 1);
            format!("SELECT {keys}, count(DISTINCT c.email) FROM {from} WHERE {filter} GROUP BY {keys}")
        }
        6 => format!("SELECT DISTINCT {keys} FROM users u WHERE {own}"),
        7 => {
            let (operation, other) =
                (dice.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]), condition(dice, &["u"], 1));
            format!("SELECT {keys} FROM users u WHERE {own} {operation} SELECT {keys} FROM users u WHERE {other}")
        }
        8 => format!("SELECT u.id, count(*) OVER (PARTITION BY {keys}) FROM users u WHERE {own}"),
        9 => format!("SELECT u.id, {own} FROM users u"),
        10 => {
            let outer = condition(dice, &["x"], 1);
            format!("SELECT x.id, x.email FROM (SELECT * FROM users u WHERE {own}) x WHERE {outer}")
        }
        11 => {
            let on = condition(dice, &["x", "y"], 2);
            format!("WITH w AS (SELECT u.* FROM users u WHERE {own}) SELECT x.id, y.id FROM w x JOIN w y ON {on}")
        }
        _ => {
            let having = condition(dice, &["u"], 1);
            format!("SELECT u.account_id, u.email FROM users u GROUP BY u.account_id, u.email HAVING {having}")
        }
    }
}

#[test]
fn what_is_not_refused_is_answered_as_on_plain_tables() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let twins = twins().await;
        let (mut dice, mut answered, mut wrong) = (Dice(7), 0, Vec::new());
        for _ in 0..STATEMENTS {
            let sql = statement(&mut dice);
            let sealed = simple(&twins.sealed, &sql).await;
            if sealed == Outcome::Error("0A000".to_owned()) {
                continue;
            }
            answered += usize::from(!matches!(sealed, Outcome::Error(_)));
            let plain = simple(&twins.plain, &sql).await;
            if plain != sealed {
                wrong.push(format!("{sql}\n  plain:  {plain:?}\n  sealed: {sealed:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {answered} differ:\n{}", wrong.len(), wrong.join("\n"));
        assert!(answered * 4 >= STATEMENTS, "only {answered} of {STATEMENTS} were answered");
    });
}
