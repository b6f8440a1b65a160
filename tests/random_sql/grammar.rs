//! What is tried: a case is made from its seed alone, so that a seed is all one needs to see it again.
use super::compare::is_ordered;
use super::params::Param;
use super::tables::{TABLES, Table, Values};
use super::writer::{Writer, quoted};

/// Numbers that look random and are the same in each run (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) >> 33).unwrap() % n
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'l, T: ?Sized>(&mut self, list: &[&'l T]) -> &'l T {
        list[self.below(list.len())]
    }
}

/// How one statement is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// A simple query.
    Simple,
    /// Parse, Describe, Bind, Execute; results in this format.
    Extended { params: Vec<Param>, format: i16, portal: bool, execute: Execute },
    /// On another connection that goes to the server directly.
    Aside,
}

/// How a statement is executed once it is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execute {
    Once,
    /// Two rows, then the rest.
    InParts,
    /// Bound and executed twice.
    Twice,
}

/// One statement of a case.
#[derive(Debug, Clone)]
pub struct Step {
    /// What kind of statement it is, for the count of refusals.
    pub kind: &'static str,
    /// Its text; on the sealed side `{type}` and `{eq(column)}` are written as there.
    pub sql: String,
    pub run: Run,
}

/// A few statements that run one after the other.
#[derive(Debug)]
pub struct Case {
    pub steps: Vec<Step>,
    /// The rows may be others afterwards.
    pub dirty: bool,
}

/// The case of a seed.
pub fn case(seed: u64) -> Case {
    let mut dice = Dice::new(seed);
    let transaction = dice.one_in(3);
    let length = if transaction || dice.one_in(4) { 1 + dice.below(5) } else { 1 };
    let mut steps = Vec::new();
    if transaction {
        steps.push(plain_step("transaction", "BEGIN"));
    }
    for n in 0..length {
        let mut savepoint = transaction && dice.one_in(4);
        if savepoint {
            steps.push(plain_step("transaction", &format!("SAVEPOINT s{n}")));
        }
        steps.extend(statements(&mut dice, transaction));
        savepoint &= dice.one_in(2);
        if savepoint {
            steps.push(plain_step("transaction", &format!("ROLLBACK TO s{n} /* people */")));
        }
        if !transaction && dice.one_in(12) {
            steps.push(aside(&mut dice));
        }
    }
    if transaction {
        steps.push(plain_step("transaction", dice.pick(&["ROLLBACK", "ROLLBACK", "COMMIT"])));
    }
    Case { steps, dirty: true }
}

fn plain_step(kind: &'static str, sql: &str) -> Step {
    Step { kind, sql: sql.to_owned(), run: Run::Simple }
}

/// What happens to the tables from elsewhere.
fn aside(dice: &mut Dice) -> Step {
    let table = &TABLES[dice.below(TABLES.len())];
    let name = table.name;
    let sql = match dice.below(6) {
        0 => format!("TRUNCATE {name}"),
        1 => format!("DROP TABLE {name} CASCADE"),
        2 => format!("DROP TABLE {name} CASCADE; {}", table.create(false)),
        3 => format!("ALTER TABLE {name} ADD COLUMN extra int4"),
        4 => format!("ANALYZE {name}"),
        _ => format!("CREATE INDEX another ON {name} ({})", table.id()),
    };
    Step { kind: "aside", sql, run: Run::Aside }
}

/// One statement, or a few that belong together.
fn statements(dice: &mut Dice, transaction: bool) -> Vec<Step> {
    match dice.below(24) {
        0 => prepared(dice),
        1 if transaction => cursor(dice),
        2 => vec![several(dice)],
        _ => {
            let step = step(dice);
            let read = is_bulk(step.kind).then(|| whole(&step.sql)).flatten();
            std::iter::once(step).chain(read).collect()
        }
    }
}

/// True for kinds that change many rows, each with values of its own.
fn is_bulk(kind: &str) -> bool {
    matches!(kind, "insert select" | "unnest" | "insert from values" | "update from values" | "merge")
}

/// Reads all of the table that a statement names first.
fn whole(sql: &str) -> Option<Step> {
    let sql = sql.to_ascii_lowercase();
    let place = |table: &&Table| sql.find(&table.name.to_ascii_lowercase());
    let table = TABLES.iter().filter(|table| place(table).is_some()).min_by_key(place)?;
    let text = format!("SELECT * FROM {} ORDER BY {}", table.name, table.key().join(", "));
    Some(plain_step("select", &text))
}

/// A few statements in one text.
fn several(dice: &mut Dice) -> Step {
    let count = 2 + dice.below(3) / 2;
    let texts: Vec<String> = (0..count).map(|_| Writer::new(dice, false).short_statement()).collect();
    Step { kind: "several", sql: texts.join("; "), run: Run::Simple }
}

fn prepared(dice: &mut Dice) -> Vec<Step> {
    let mut writer = Writer::new(dice, true);
    let (_, text) = writer.statement();
    let (text, params) = writer.finish(&text);
    let literals: Vec<String> = params.iter().map(|p| p.text.as_deref().map_or("NULL".to_owned(), quoted)).collect();
    let arguments = if literals.is_empty() { String::new() } else { format!(" ({})", literals.join(", ")) };
    let execute = format!("EXECUTE p{arguments}");
    let texts = [format!("PREPARE p AS {text}"), execute.clone(), execute.clone(), "DEALLOCATE p".to_owned(), execute];
    // An EXECUTE of a name that has never been prepared is not tried: nothing says that it is about sealed columns.
    let skipped = 1 + dice.below(8);
    let kept = texts.into_iter().enumerate().filter(|(n, _)| *n != skipped);
    kept.map(|(_, sql)| Step { kind: "prepare", sql, run: Run::Simple }).collect()
}

fn cursor(dice: &mut Dice) -> Vec<Step> {
    let mut writer = Writer::new(dice, false);
    // FETCH takes some rows only: which ones must not be left to the server.
    let query = writer.ordered_query();
    let binary = if dice.one_in(6) { "BINARY " } else { "" };
    let texts = [
        format!("DECLARE c {binary}CURSOR FOR {query}"),
        format!("FETCH {}FROM c", dice.pick(&["", "2 ", "ALL ", "NEXT "])),
        "MOVE 1 IN c".to_owned(),
        "FETCH ALL FROM c".to_owned(),
        "CLOSE c".to_owned(),
    ];
    texts.into_iter().map(|sql| Step { kind: "cursor", sql, run: Run::Simple }).collect()
}

fn step(dice: &mut Dice) -> Step {
    let extended = dice.one_in(2);
    let mut writer = Writer::new(dice, extended);
    let (kind, sql) = writer.statement();
    let (mut sql, params) = writer.finish(&sql);
    if !sql.contains('$') && dice.one_in(3) {
        sql = decorated(dice, &sql);
    }
    let format = i16::from(dice.one_in(2));
    if dice.one_in(12) {
        sql = misspelt(dice, &sql);
    }
    if !extended {
        return Step { kind, sql, run: Run::Simple };
    }
    let execute = match dice.below(8) {
        0 if is_ordered(&sql) => Execute::InParts,
        1 => Execute::Twice,
        _ => Execute::Once,
    };
    let is_only = params.len() == 1;
    let params = params.into_iter().map(|param| param.dressed(dice, is_only, kind)).collect();
    let run = Run::Extended { params, format, portal: dice.one_in(3), execute };
    Step { kind, sql, run }
}

/// The statement with one of its columns misspelt.
fn misspelt(dice: &mut Dice, sql: &str) -> String {
    let places: Vec<_> = ["email", "login", "code", "age", "born", "amount", "account_id", "grp", "seen"]
        .iter()
        .flat_map(|name| sql.match_indices(name))
        .filter(|(at, name)| {
            let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '\''));
            let before = sql[..*at].chars().next_back().filter(|c| *c != '.');
            !part(before) && !part(sql[at + name.len()..].chars().next())
        })
        .collect();
    if places.is_empty() {
        return sql.to_owned();
    }
    let (at, name) = places[dice.below(places.len())];
    format!("{}{}x{}", &sql[..at], &name[..name.len() - 1], &sql[at + name.len()..])
}

/// The same statement with comments, line ends and upper and lower case where they change nothing.
fn decorated(dice: &mut Dice, sql: &str) -> String {
    let (mut out, mut inside, mut word_upper) = (String::new(), None, false);
    let mut before = ' ';
    for c in sql.chars() {
        match (inside, c) {
            (Some(quote), _) => {
                if c == quote {
                    inside = None;
                }
                out.push(c);
            }
            (None, '\'' | '"') => {
                inside = Some(c);
                out.push(c);
            }
            (None, ' ') if dice.one_in(9) => out.push_str(dice.pick(&[
                " /* it's */ ",
                " -- \"\n",
                "\n",
                "\t",
                " /* /* people */ ; $1 */ ",
                " -- it's $$ ?\r\n",
                "/**/",
            ])),
            (None, _) => {
                if !(before.is_alphanumeric() || before == '_') {
                    word_upper = dice.one_in(6);
                }
                // The prefix of a literal and what stands in braces stay as they are.
                out.push(if word_upper { c.to_ascii_uppercase() } else { c });
            }
        }
        before = c;
    }
    out
}

impl Writer<'_> {
    /// One that is seldom refused, for several in a text are refused together.
    fn short_statement(&mut self) -> String {
        match self.dice.below(8) {
            0 => self.insert(),
            1 => self.delete(),
            2 => self.update(),
            3 => self.wrong(),
            _ => self.ordered_query(),
        }
    }

    /// Any statement, and what kind it is.
    fn statement(&mut self) -> (&'static str, String) {
        match self.dice.below(30) {
            26.. => self.bulk(),
            24 | 25 => ("nested", self.nested()),
            0..=7 => ("select", self.query(2)),
            8 | 9 => ("group", self.grouped()),
            10 => ("setop", self.set_operation()),
            11 => ("with", self.with()),
            12..=14 => ("insert", self.insert()),
            15..=17 => ("update", self.update()),
            18 | 19 => ("delete", self.delete()),
            20 => ("error", self.wrong()),
            _ => ("join", self.join()),
        }
    }
}

#[test]
fn a_seed_makes_one_case() {
    for seed in 0..50 {
        assert_eq!(format!("{:?}", case(seed)), format!("{:?}", case(seed)));
    }
    assert!(Values::Age.is_number());
}

/// Shows the statements of `RANDOM_SQL_SEED`.
#[test]
fn a_seed_can_be_read() {
    let seed = std::env::var("RANDOM_SQL_SEED").map_or(1, |text| text.parse().unwrap());
    case(seed).steps.iter().for_each(|step| eprintln!("{step:?}"));
}
