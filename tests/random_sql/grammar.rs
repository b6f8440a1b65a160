//! What is tried: a case is made from its seed alone, so that a seed is all one needs to see it again.
use super::tables::{Column, Eq, ODD, TABLES, Table, Values};

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
    Extended { params: Vec<Option<String>>, format: i16, portal: bool },
    /// On another connection that goes to the server directly.
    Aside,
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
    let (name, columns) = (table.name, table.columns_text());
    let sql = match dice.below(6) {
        0 => format!("TRUNCATE {name}"),
        1 => format!("DROP TABLE {name} CASCADE"),
        2 => format!("DROP TABLE {name} CASCADE; CREATE TABLE {name} ({columns})"),
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
        _ => vec![step(dice)],
    }
}

fn prepared(dice: &mut Dice) -> Vec<Step> {
    let mut writer = Writer::new(dice, true);
    let (_, text) = writer.statement();
    let params = std::mem::take(&mut writer.params);
    let literals: Vec<String> = params.iter().map(|p| p.as_deref().map_or("NULL".to_owned(), quoted)).collect();
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
    let query = writer.query(1);
    let binary = if dice.one_in(6) { "BINARY " } else { "" };
    let some = dice.pick(&["", "2 ", "ALL ", "NEXT "]);
    // Which rows of a query without an order come first is the server's choice.
    let ordered = query.contains("ORDER BY") && !query.contains("OVER (ORDER BY");
    let texts = [
        format!("DECLARE c {binary}CURSOR FOR {query}"),
        format!("FETCH {}FROM c", if ordered { some } else { "ALL " }),
        "MOVE 1 IN c".to_owned(),
        "FETCH ALL FROM c".to_owned(),
        "CLOSE c".to_owned(),
    ];
    texts.into_iter().map(|sql| Step { kind: "cursor", sql, run: Run::Simple }).collect()
}

fn step(dice: &mut Dice) -> Step {
    let extended = dice.one_in(2);
    let mut writer = Writer::new(dice, extended);
    let (kind, mut sql) = writer.statement();
    let params = std::mem::take(&mut writer.params);
    if !sql.contains('$') && dice.one_in(3) {
        sql = decorated(dice, &sql);
    }
    let format = i16::from(dice.one_in(2));
    let run = if extended { Run::Extended { params, format, portal: dice.one_in(3) } } else { Run::Simple };
    if dice.one_in(12) {
        sql = misspelt(dice, &sql);
    }
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

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
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

/// A table under the name that the statement gives it.
#[derive(Clone, Copy)]
struct Seen<'l> {
    table: &'l Table,
    alias: &'l str,
}

impl Seen<'_> {
    fn of(&self, column: &str) -> String {
        if self.alias.is_empty() { column.to_owned() } else { format!("{}.{column}", self.alias) }
    }
}

/// Writes one statement.
struct Writer<'d> {
    dice: &'d mut Dice,
    parameters: bool,
    params: Vec<Option<String>>,
}

impl Writer<'_> {
    fn new(dice: &mut Dice, parameters: bool) -> Writer<'_> {
        Writer { dice, parameters, params: Vec::new() }
    }

    fn statement(&mut self) -> (&'static str, String) {
        match self.dice.below(20) {
            0..=6 => ("select", self.query(2)),
            7 => ("group", self.grouped()),
            8 => ("setop", self.set_operation()),
            9 => ("with", self.with()),
            10..=12 => ("insert", self.insert()),
            13..=15 => ("update", self.update()),
            16 | 17 => ("delete", self.delete()),
            18 => ("error", self.wrong()),
            _ => ("join", self.join()),
        }
    }

    fn table(&mut self) -> &'static Table {
        &TABLES[[0, 0, 0, 1, 1, 2, 2, 3][self.dice.below(8)]]
    }

    /// A value for a column, as a literal or a parameter.
    fn value(&mut self, column: &Column) -> String {
        let values = column.values.texts();
        let value = match self.dice.below(values.len() * 4 + 1) {
            0 => None,
            n => Some(values[n % values.len()]),
        };
        if self.parameters && !self.dice.one_in(3) {
            self.params.push(value.map(str::to_owned));
            let n = self.params.len();
            return if self.dice.one_in(8) { format!("${n}::{}", column.kind) } else { format!("${n}") };
        }
        let Some(value) = value else { return "NULL".to_owned() };
        match self.dice.below(10) {
            0 => format!("{}::{}", quoted(value), column.kind),
            1 => format!("CAST({} AS {})", quoted(value), column.kind),
            2..=6 if column.values.is_number() => value.to_owned(),
            7 => format!("E{}", quoted(value)),
            8 if !value.contains('$') => format!("$q${value}$q$"),
            _ => quoted(value),
        }
    }

    fn literal(&mut self, column: &Column) -> String {
        let before = std::mem::replace(&mut self.parameters, false);
        let text = self.value(column);
        self.parameters = before;
        text
    }

    fn column<'t>(&mut self, table: &'t Table) -> &'t Column {
        &table.columns[self.dice.below(table.columns.len())]
    }

    fn sealed<'t>(&mut self, table: &'t Table) -> &'t Column {
        let sealed: Vec<&Column> = table.columns.iter().filter(|c| c.eq != Eq::Plain).collect();
        self.dice.pick(&sealed)
    }

    /// One of those that can be compared.
    fn searchable<'t>(&mut self, table: &'t Table) -> &'t Column {
        let all: Vec<&Column> = table.columns.iter().filter(|c| matches!(c.eq, Eq::Tenant | Eq::Global)).collect();
        self.dice.pick(&all)
    }

    /// A condition on one sealed or plain column.
    fn atom(&mut self, seen: Seen<'_>) -> String {
        let column = match self.dice.below(12) {
            0..=2 => self.column(seen.table),
            _ => self.searchable(seen.table),
        };
        let name = seen.of(column.name);
        match self.dice.below(16) {
            0..=4 => format!("{name} = {}", self.value(column)),
            5 => format!("{name} <> {}", self.value(column)),
            6 => format!("{name} IN ({}, {})", self.value(column), self.value(column)),
            7 => format!("{name} NOT IN ({}, {})", self.value(column), self.value(column)),
            8 => format!("{name} IS DISTINCT FROM {}", self.value(column)),
            9 => format!("{name} IS NOT DISTINCT FROM {}", self.value(column)),
            10 => format!("{name} IS NOT NULL"),
            11 => format!("{name} IS NULL"),
            12 => {
                let (a, b) = (self.literal(column), self.literal(column));
                let cast = if self.dice.one_in(2) { format!("::{}[]", column.kind) } else { String::new() };
                format!("{name} = ANY (ARRAY[{a}, {b}]{cast})")
            }
            13 => format!("{} = {name}", self.value(column)),
            14 => format!("coalesce({name}, {}) = {}", self.literal(column), self.literal(column)),
            _ => {
                let cast = column.kind;
                format!("{name}::{cast} = {}", self.value(column))
            }
        }
    }

    /// A condition that pins the tenant, most times.
    fn condition(&mut self, seen: Seen<'_>) -> String {
        let before = self.params.len();
        let atom = self.atom(seen);
        let pin = match seen.table.tenant {
            Some(tenant) if !self.dice.one_in(8) => {
                let tenant = seen.of(tenant);
                match self.dice.below(5) {
                    0 => format!("{tenant} IN (1, 2)"),
                    1 => format!("{tenant} = 2"),
                    _ => format!("{tenant} = 1"),
                }
            }
            _ => return atom,
        };
        match self.dice.below(8) {
            0 => format!("{pin} AND ({atom} OR {})", self.atom(seen)),
            1 => format!("{pin} AND NOT ({atom})"),
            2 => format!("{atom} AND {pin}"),
            3 => format!("({pin} AND {atom}) OR {} = 3", seen.of(seen.table.id())),
            4 => format!("{pin} AND {atom} AND {}", self.atom(seen)),
            5 => {
                self.params.truncate(before);
                pin
            }
            _ => format!("{pin} AND {atom}"),
        }
    }

    /// Something to select.
    fn item(&mut self, seen: Seen<'_>) -> String {
        let sealed = self.sealed(seen.table);
        let name = seen.of(sealed.name);
        let text = match self.dice.below(18) {
            0 if seen.alias.is_empty() => return "*".to_owned(),
            0 => return format!("{}.*", seen.alias),
            1..=6 => name,
            7..=9 => seen.of(self.column(seen.table).name),
            10 => format!("CASE WHEN {} < 3 THEN {name} END", seen.of(seen.table.id())),
            11 => format!("coalesce({name}, {})", self.literal(sealed)),
            12 => {
                let column = self.searchable(seen.table);
                format!("nullif({}, {})", seen.of(column.name), self.literal(column))
            }
            13 => format!("{name}::{}", sealed.kind),
            14 => format!("{name} IS NULL"),
            15 => self.atom(seen),
            16 => format!("first_value({name}) OVER (ORDER BY {})", seen.of(seen.table.id())),
            _ => format!("{} + 1", seen.of(seen.table.id())),
        };
        match self.dice.below(6) {
            0 => format!("{text} AS shown"),
            1 => format!("{text} \"A b\""),
            _ => text,
        }
    }

    fn items(&mut self, seen: Seen<'_>) -> String {
        let n = 1 + self.dice.below(3);
        (0..n).map(|_| self.item(seen)).collect::<Vec<_>>().join(", ")
    }

    fn written_name(&mut self, seen: Seen<'_>) -> String {
        let schema = if self.dice.one_in(6) { "public." } else { "" };
        match seen.alias {
            "" => format!("{schema}{}", seen.table.name),
            alias if self.dice.one_in(2) => format!("{schema}{} AS {alias}", seen.table.name),
            alias => format!("{schema}{} {alias}", seen.table.name),
        }
    }

    fn query(&mut self, depth: usize) -> String {
        let table = self.table();
        let seen = Seen { table, alias: self.dice.pick(&["", "t", "\"T\""]) };
        let from = if depth > 0 && self.dice.one_in(6) {
            let inner = self.condition(Seen { table, alias: "" });
            let alias = if seen.alias.is_empty() { "sub" } else { seen.alias };
            format!("(SELECT * FROM {} WHERE {inner}) {alias}", table.name)
        } else {
            self.written_name(seen)
        };
        let (items, condition) = (self.items(seen), self.condition(seen));
        let distinct = if self.dice.one_in(10) { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{items} FROM {from} WHERE {condition}");
        if depth > 1 && self.dice.one_in(5) {
            sql += &self.subquery(seen);
        }
        match self.dice.below(10) {
            0 if distinct.is_empty() => sql += &format!(" ORDER BY {}", seen.of(table.id())),
            1 if distinct.is_empty() => sql += &format!(" ORDER BY {} DESC LIMIT 2", seen.of(table.id())),
            2 if distinct.is_empty() => sql += " FOR UPDATE",
            _ => {}
        }
        sql
    }

    fn subquery(&mut self, seen: Seen<'_>) -> String {
        let other = Seen { table: &TABLES[1], alias: "k" };
        let inner = self.condition(other);
        let name = |column: &str| seen.of(column);
        match self.dice.below(4) {
            0 => format!(" AND EXISTS (SELECT 1 FROM contacts k WHERE {inner})"),
            1 if seen.table.name == "people" => {
                format!(" AND {} IN (SELECT k.login FROM contacts k WHERE {inner})", name("login"))
            }
            2 if seen.table.name == "people" => format!(
                " AND ({}, {}) IN (SELECT k.account_id, k.email FROM contacts k WHERE {inner})",
                name("account_id"),
                name("email")
            ),
            _ => format!(" AND {} = (SELECT min(k.id) FROM contacts k WHERE {inner})", name(seen.table.id())),
        }
    }

    fn join(&mut self) -> String {
        let (a, b) = (Seen { table: &TABLES[0], alias: "a" }, Seen { table: &TABLES[1], alias: "b" });
        let kind = self.dice.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "JOIN"]);
        let on = self.dice.pick(&[
            "ON a.account_id = b.account_id AND a.email = b.email",
            "ON a.login = b.login",
            "USING (account_id, email)",
            "USING (login)",
            "ON a.id = b.id",
        ]);
        let (left, right, condition) = (self.items(a), self.items(b), self.condition(a));
        let orders = if self.dice.one_in(4) { " LEFT JOIN orders o ON o.person_id = a.id" } else { "" };
        format!("SELECT {left}, {right} FROM people a {kind} contacts b {on}{orders} WHERE {condition}")
    }

    fn grouped(&mut self) -> String {
        let table = self.table();
        let seen = Seen { table, alias: self.dice.pick(&["", "g"]) };
        let key = self.searchable(table);
        let mut keys = vec![seen.of(key.name)];
        if let Some(tenant) = table.tenant.filter(|_| !self.dice.one_in(4)) {
            keys.insert(0, seen.of(tenant));
        }
        let keys = keys.join(", ");
        let mut sql = format!("SELECT {keys}, count(*), count({}) FROM {}", seen.of(key.name), self.written_name(seen));
        if self.dice.one_in(2) {
            sql += &format!(" WHERE {}", self.condition(seen));
        }
        sql += &format!(" GROUP BY {keys}");
        if self.dice.one_in(4) {
            sql += " HAVING count(*) >= 1";
        }
        sql
    }

    fn set_operation(&mut self) -> String {
        let table = self.table();
        let seen = Seen { table, alias: "" };
        let global: Vec<&Column> = table.columns.iter().filter(|c| matches!(c.eq, Eq::Global | Eq::Plain)).collect();
        let (column, tenant) = (self.dice.pick(&global), table.tenant);
        let columns = match tenant {
            Some(tenant) if self.dice.one_in(2) => format!("{tenant}, {}", self.searchable(table).name),
            _ => column.name.to_owned(),
        };
        let operation = self.dice.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT", "UNION ALL"]);
        let (left, right) = (self.condition(seen), self.condition(seen));
        let name = table.name;
        format!("SELECT {columns} FROM {name} WHERE {left} {operation} SELECT {columns} FROM {name} WHERE {right}")
    }

    fn with(&mut self) -> String {
        let table = self.table();
        let inner = match self.dice.below(5) {
            0 => self.delete_from(table),
            1 => self.insert_into(table),
            2 => self.update_of(table),
            _ => {
                let condition = self.condition(Seen { table, alias: "" });
                let items = self.items(Seen { table, alias: "" });
                format!("SELECT {items} FROM {} WHERE {condition}", table.name)
            }
        };
        let materialized = self.dice.pick(&["", "", "MATERIALIZED "]);
        format!("WITH w AS {materialized}({inner}) SELECT {} FROM w", self.dice.pick(&["*", "w.*", "count(*)"]))
    }

    fn returning(&mut self, table: &Table) -> String {
        if self.dice.one_in(2) {
            return String::new();
        }
        format!(" RETURNING {}", self.items(Seen { table, alias: "" }))
    }

    fn insert(&mut self) -> String {
        let table = self.table();
        self.insert_into(table)
    }

    fn insert_into(&mut self, table: &Table) -> String {
        let mut columns: Vec<&Column> = vec![&table.columns[0]];
        columns.extend(table.columns[1..].iter().filter(|c| Some(c.name) == table.tenant || self.dice.one_in(2)));
        let names: Vec<&str> = columns.iter().map(|c| c.name).collect();
        let rows = 1 + self.dice.below(2) * self.dice.below(3);
        let rows: Vec<String> = (0..rows).map(|_| self.row(table, &columns)).collect();
        let mut sql = format!("INSERT INTO {} ({}) VALUES {}", table.name, names.join(", "), rows.join(", "));
        let id = table.id();
        match self.dice.below(6) {
            0 => sql += &format!(" ON CONFLICT ({id}) DO NOTHING"),
            1 => {
                let column = self.sealed(table);
                let value = if self.dice.one_in(2) { format!("EXCLUDED.{}", column.name) } else { self.value(column) };
                sql += &format!(" ON CONFLICT ({id}) DO UPDATE SET {} = {value}", column.name);
            }
            2 => sql += " ON CONFLICT DO NOTHING",
            _ => {}
        }
        sql + &self.returning(table)
    }

    fn row(&mut self, table: &Table, columns: &[&Column]) -> String {
        let values: Vec<String> = columns
            .iter()
            .map(|column| {
                if column.name == table.id() {
                    (if self.dice.one_in(4) { 1 + self.dice.below(5) } else { 100 + self.dice.below(900) }).to_string()
                } else if Some(column.name) == table.tenant {
                    (1 + self.dice.below(2)).to_string()
                } else if self.dice.one_in(20) {
                    "DEFAULT".to_owned()
                } else {
                    self.value(column)
                }
            })
            .collect();
        format!("({})", values.join(", "))
    }

    fn update(&mut self) -> String {
        let table = self.table();
        self.update_of(table)
    }

    fn update_of(&mut self, table: &Table) -> String {
        let seen = Seen { table, alias: self.dice.pick(&["", "", "x"]) };
        let (first, second) = (self.sealed(table), self.column(table));
        let mut sets = vec![format!("{} = {}", first.name, self.assigned(seen, first))];
        let fixed = [Some(table.id()), table.tenant, Some(first.name)];
        if !fixed.contains(&Some(second.name)) && self.dice.one_in(2) {
            sets.push(format!("{} = {}", second.name, self.assigned(seen, second)));
        }
        let condition = match self.dice.below(4) {
            0 => {
                let pin = table.tenant.map_or(String::new(), |tenant| format!(" AND {} = 1", seen.of(tenant)));
                format!("{} = {}{pin}", seen.of(table.id()), 1 + self.dice.below(3))
            }
            _ => self.condition(seen),
        };
        let from = if table.name == "people" && self.dice.one_in(6) && !seen.alias.is_empty() {
            (" FROM orders o", " AND o.person_id = x.id AND o.total > 5")
        } else {
            ("", "")
        };
        let target = self.written_name(seen);
        let returning = self.returning(table);
        format!("UPDATE {target} SET {}{} WHERE ({condition}){}{returning}", sets.join(", "), from.0, from.1)
    }

    fn assigned(&mut self, seen: Seen<'_>, column: &Column) -> String {
        match self.dice.below(12) {
            0 => "DEFAULT".to_owned(),
            1 => format!("coalesce({}, {})", self.value(column), seen.of(column.name)),
            2 => seen.of(column.name),
            _ => self.value(column),
        }
    }

    fn delete(&mut self) -> String {
        let table = self.table();
        self.delete_from(table)
    }

    fn delete_from(&mut self, table: &Table) -> String {
        if table.name == "people" && self.dice.one_in(4) {
            let condition = self.condition(Seen { table, alias: "people" });
            return format!("DELETE FROM people USING orders o WHERE o.person_id = people.id AND ({condition})")
                + &self.returning_of(Seen { table, alias: "people" });
        }
        let condition = self.condition(Seen { table, alias: "" });
        format!("DELETE FROM {} WHERE {condition}", table.name) + &self.returning(table)
    }

    fn returning_of(&mut self, seen: Seen<'_>) -> String {
        if self.dice.one_in(2) { String::new() } else { format!(" RETURNING {}", self.items(seen)) }
    }

    /// Something that fails, perhaps with a value in it that must not show.
    fn wrong(&mut self) -> String {
        let people = &TABLES[0];
        let (email, age) = (people.column("email"), people.column("age"));
        let (mail, secret) = (self.literal(email), super::tables::MARK);
        match self.dice.below(14) {
            0 => "SELECT id, 1 / (id - 1), email FROM people".to_owned(),
            1 => format!("INSERT INTO people (id, account_id, age) VALUES (900, 1, '{secret}')"),
            2 => format!("INSERT INTO people (id, account_id, email) VALUES (1, 1, {mail})"),
            3 => format!("INSERT INTO people (id, account_id, grp, email) VALUES (900, 1, 1 / 0, {mail})"),
            4 => "SELECT id FROM people WHERE emial = 'a misspelt name is for the server to judge'".to_owned(),
            5 => format!("SELECT id FROM people p WHERE q.email = '{secret}'"),
            6 => format!("SELECT id FROM people WHERE account_id = 1 AND age = '{secret}'"),
            7 => format!("UPDATE people SET code = '{secret}' WHERE id = 1 AND account_id = 1"),
            8 => format!("INSERT INTO people (id, account_id, email) VALUES (900, NULL, {mail})"),
            9 => format!("INSERT INTO people (id, account_id, email, login) VALUES (900, 1, {mail})"),
            10 => format!("INSERT INTO memos (id, tag) VALUES (900, '{secret}-is too long')"),
            11 => format!("SELECT id FROM people WHERE account_id = 1 AND age = {} +", self.literal(age)),
            12 => format!("INSERT INTO people (id, account_id, name, email) VALUES (900, 1, 'bad', {mail})"),
            _ => format!("SELECT id FROM {ODD} WHERE \"Org\" = 1 AND \"Sealed Name\" = '{secret}'::int4"),
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
