//! Writes pieces of statements: values, conditions, select lists.
use super::grammar::Dice;
use super::params::Param;
use super::tables::{Column, Eq, Kind, TABLES, Table, VIEWS};

/// A table under the name that the statement gives it.
#[derive(Clone, Copy)]
pub struct Seen<'l> {
    pub table: &'l Table,
    pub alias: &'l str,
}

impl Seen<'_> {
    pub fn of(&self, column: &str) -> String {
        if self.alias.is_empty() { column.to_owned() } else { format!("{}.{column}", self.alias) }
    }

    /// What its rows are ordered by so that their order is one.
    pub fn key(&self) -> String {
        self.table.key().iter().map(|column| self.of(column)).collect::<Vec<_>>().join(", ")
    }
}

/// Writes one statement.
pub struct Writer<'d> {
    pub dice: &'d mut Dice,
    pub parameters: bool,
    pub params: Vec<Param>,
}

/// The type of an array of these.
fn array_of(kind: &str) -> &'static str {
    const ARRAYS: &[&str] =
        &["text[]", "varchar[]", "int8[]", "int4[]", "numeric[]", "uuid[]", "date[]", "timestamptz[]", "jsonb[]"];
    ARRAYS.iter().find(|array| array.strip_suffix("[]") == Some(kind)).unwrap()
}

fn array_text<T: AsRef<str>>(members: &[Option<T>]) -> String {
    let shown = |member: &Option<T>| {
        let quoted = |text: &T| format!("\"{}\"", text.as_ref().replace('\\', "\\\\").replace('"', "\\\""));
        member.as_ref().map_or("NULL".to_owned(), quoted)
    };
    format!("{{{}}}", members.iter().map(shown).collect::<Vec<_>>().join(","))
}

pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Writer<'_> {
    pub fn new(dice: &mut Dice, parameters: bool) -> Writer<'_> {
        Writer { dice, parameters, params: Vec::new() }
    }

    /// A statement with its parameters: those that did not get into it are left out, and the others numbered anew.
    pub fn finish(&mut self, sql: &str) -> (String, Vec<Param>) {
        let mut parts = sql.split('$');
        let (mut out, mut kept, mut numbers) = (parts.next().unwrap().to_owned(), Vec::new(), Vec::new());
        while let Some(part) = parts.next() {
            // The quotes of a text.
            if part == "q" {
                out += &format!("$q${}${}", parts.next().unwrap(), parts.next().unwrap());
                continue;
            }
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            out.push('$');
            if let Ok(number) = part[..digits].parse::<usize>() {
                let at = numbers.iter().position(|n| *n == number).unwrap_or_else(|| {
                    numbers.push(number);
                    kept.push(self.params[number - 1].clone());
                    numbers.len() - 1
                });
                out += &(at + 1).to_string();
            }
            out += &part[digits..];
        }
        self.params.clear();
        (out, kept)
    }

    /// A table to be written to.
    pub fn table(&mut self) -> &'static Table {
        &TABLES[[0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 4][self.dice.below(12)]]
    }

    /// A table or view to be read.
    pub fn relation(&mut self) -> &'static Table {
        if self.dice.one_in(8) { &VIEWS[self.dice.below(VIEWS.len())] } else { self.table() }
    }

    pub fn some_value(&mut self, column: &Column) -> Option<&'static str> {
        let values = column.values.texts();
        match self.dice.below(values.len() * 4 + 1) {
            0 => None,
            n => Some(values[n % values.len()]),
        }
    }

    /// The next parameter.
    pub fn parameter(&mut self, value: Option<String>, kind: &'static str) -> String {
        self.params.push(Param::new(value, kind));
        format!("${}", self.params.len())
    }

    /// A value for a column, as a literal or a parameter.
    pub fn value(&mut self, column: &Column) -> String {
        let value = self.some_value(column);
        if self.parameters && !self.dice.one_in(3) {
            let parameter = self.parameter(value.map(str::to_owned), column.kind);
            return if self.dice.one_in(8) { format!("{parameter}::{}", column.kind) } else { parameter };
        }
        let Some(value) = value else { return "NULL".to_owned() };
        match self.dice.below(10) {
            0 => format!("{}::{}", quoted(value), column.kind),
            1 => format!("CAST({} AS {})", quoted(value), column.kind),
            2..=6 if column.values.is_number() => value.to_owned(),
            7 => format!("E'{}'", value.replace('\'', "\\'").replace("q\\", "q\\\\")),
            8 if !value.contains('$') => format!("$q${value}$q$"),
            _ => quoted(value),
        }
    }

    pub fn literal(&mut self, column: &Column) -> String {
        let before = std::mem::replace(&mut self.parameters, false);
        let text = self.value(column);
        self.parameters = before;
        text
    }

    /// An array of values for a column.
    fn array(&mut self, column: &Column) -> String {
        let members: Vec<Option<&str>> = (0..self.dice.below(4)).map(|_| self.some_value(column)).collect();
        let text = array_text(&members);
        let kind = column.kind.split('(').next().unwrap();
        match self.dice.below(4) {
            0 | 1 if self.parameters => self.parameter(Some(text), array_of(kind)),
            0 => format!("{}::{kind}[]", quoted(&text)),
            1 => quoted(&text),
            _ => {
                let (a, b) = (self.literal(column), self.literal(column));
                let cast = if self.dice.one_in(2) { format!("::{kind}[]") } else { String::new() };
                format!("ARRAY[{a}, {b}]{cast}")
            }
        }
    }

    /// An array of these members, as a literal or a parameter.
    pub fn array_of_these(&mut self, members: &[Option<String>], column: &Column) -> String {
        let text = array_text(members);
        if self.parameters && !self.dice.one_in(4) {
            return self.parameter(Some(text), array_of(column.kind.split('(').next().unwrap()));
        }
        quoted(&text)
    }

    pub fn column<'t>(&mut self, table: &'t Table) -> &'t Column {
        &table.columns[self.dice.below(table.columns.len())]
    }

    pub fn sealed<'t>(&mut self, table: &'t Table) -> &'t Column {
        let sealed: Vec<&Column> = table.columns.iter().filter(|c| c.eq != Eq::Plain).collect();
        self.dice.pick(&sealed)
    }

    /// One of those that can be compared.
    pub fn searchable<'t>(&mut self, table: &'t Table) -> &'t Column {
        let all: Vec<&Column> = table.columns.iter().filter(|c| matches!(c.eq, Eq::Tenant | Eq::Global)).collect();
        self.dice.pick(&all)
    }

    /// A condition on one sealed or plain column.
    pub fn atom(&mut self, seen: Seen<'_>) -> String {
        let column = match self.dice.below(12) {
            0..=2 => self.column(seen.table),
            _ => self.searchable(seen.table),
        };
        let name = seen.of(column.name);
        match self.dice.below(28) {
            0..=5 => format!("{name} = {}", self.value(column)),
            6 => format!("{name} <> {}", self.value(column)),
            7 => format!("{name} IN ({}, {})", self.value(column), self.value(column)),
            8 => format!("{name} NOT IN ({}, {})", self.value(column), self.value(column)),
            9 => format!("{name} IS DISTINCT FROM {}", self.value(column)),
            10 => format!("{name} IS NOT DISTINCT FROM {}", self.value(column)),
            11 => format!("{name} IS NOT NULL"),
            12 => format!("{name} IS NULL"),
            13 | 14 => format!("{name} = ANY ({})", self.array(column)),
            15 => format!("{name} <> ALL ({})", self.array(column)),
            16 => format!("{} = {name}", self.value(column)),
            17 => format!("coalesce({name}, {}) = {}", self.literal(column), self.literal(column)),
            18 => {
                format!("CASE {name} WHEN {} THEN true WHEN {} THEN false END", self.value(column), self.value(column))
            }
            19 => format!("nullif({name}, {}) IS NULL", self.value(column)),
            20 => format!("({name} = {}) IS TRUE", self.value(column)),
            21 | 22 => self.row(seen, column),
            23 => format!("{name} = {name}"),
            24 if column.values.is_number() => {
                format!("{name} = {}", self.dice.pick(&["2.5", "50000000000", "1e3", "-0"]))
            }
            25 => format!("{} IN ({name})", self.value(column)),
            26 => format!("nullif({name}, {}) = {}", self.literal(column), self.literal(column)),
            _ => format!("{name}::{} = {}", column.kind, self.value(column)),
        }
    }

    /// A comparison of rows.
    fn row(&mut self, seen: Seen<'_>, column: &Column) -> String {
        let other = match seen.table.tenant {
            Some(tenant) if !self.dice.one_in(4) => seen.table.column(tenant),
            _ => self.column(seen.table),
        };
        let left = format!("({}, {})", seen.of(other.name), seen.of(column.name));
        let first = format!("({}, {})", self.literal(other), self.value(column));
        match self.dice.below(4) {
            n @ 0..=1 => {
                let second = format!("({}, {})", self.literal(other), self.value(column));
                format!("{left} {}IN ({first}, {second})", ["", "NOT "][n])
            }
            2 => format!("{left} <> {first}"),
            _ => format!("{left} = {first}"),
        }
    }

    /// A condition that pins the tenant, most times.
    pub fn condition(&mut self, seen: Seen<'_>) -> String {
        let before = self.params.len();
        let atom = self.atom(seen);
        let pin = match seen.table.tenant {
            Some(tenant) if !self.dice.one_in(8) => {
                let tenant = seen.of(tenant);
                match self.dice.below(6) {
                    0 => format!("{tenant} IN (1, 2)"),
                    1 => format!("{tenant} = 2"),
                    2 => format!("{tenant} = ANY ('{{1}}')"),
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
    pub fn item(&mut self, seen: Seen<'_>) -> String {
        let sealed = self.sealed(seen.table);
        let name = seen.of(sealed.name);
        let id = seen.of(seen.table.id());
        let text = match self.dice.below(27) {
            0 if seen.alias.is_empty() => return "*".to_owned(),
            0 => return format!("{}.*", seen.alias),
            1..=6 => name,
            7..=9 => seen.of(self.column(seen.table).name),
            10 => format!("CASE WHEN {id} < 3 THEN {name} END"),
            11 => format!("coalesce({name}, {})", self.value(sealed)),
            12 => {
                let column = self.searchable(seen.table);
                format!("nullif({}, {})", seen.of(column.name), self.literal(column))
            }
            13 => format!("{name}::{}", sealed.kind.split('(').next().unwrap()),
            14 => format!("{name} IS NULL"),
            15 => self.atom(seen),
            16 => {
                let function = self.dice.pick(&["first_value", "lag", "lead", "last_value"]);
                format!("{function}({name}) OVER (ORDER BY {})", seen.key())
            }
            17 => {
                let apart = self.apart(seen);
                format!("count(*) OVER (PARTITION BY {apart})")
            }
            18 => {
                let apart = self.apart(seen);
                format!("row_number() OVER (PARTITION BY {apart} ORDER BY {})", seen.key())
            }
            19 => {
                let column = self.dice.pick(&["email", "login"]);
                format!("(SELECT k.{column} FROM contacts k WHERE k.id = {id})")
            }
            20 => {
                let column = self.searchable(seen.table);
                let name = seen.of(column.name);
                format!("CASE {name} WHEN {} THEN 'a' ELSE 'b' END", self.literal(column))
            }
            21 => format!("CASE WHEN {id} < 3 THEN {name} ELSE {} END", self.value(sealed)),
            22 => format!("EXISTS (SELECT 1 FROM contacts k WHERE k.id = {id} AND k.login = 'zqwxvk.l1')"),
            23..=25 => self.built(seen),
            _ => format!("{id} + 1"),
        };
        match self.dice.below(6) {
            0 => format!("{text} AS shown"),
            1 => format!("{text} \"A b\""),
            _ => text,
        }
    }

    /// Something that the server builds around sealed values.
    fn built(&mut self, seen: Seen<'_>) -> String {
        let (a, b) = (self.sealed(seen.table), self.column(seen.table));
        let (name, other) = (seen.of(a.name), seen.of(b.name));
        let row = if seen.alias.is_empty() { seen.table.name } else { seen.alias };
        let id = seen.of(seen.table.id());
        match self.dice.below(18) {
            0 => format!("to_json({name})"),
            1 => format!("to_jsonb({row}.*)"),
            2 => format!("row_to_json({row})"),
            3 => format!("json_build_object('a', {name}, 'b', {other}, 'c', {id})"),
            4 => format!("jsonb_build_object('a', coalesce({name}, {}))", self.value(a)),
            5 => format!("jsonb_build_array({name}, to_json({other}), NULL)::text"),
            6 => format!("json_agg({name}) OVER (ORDER BY {})", seen.key()),
            7 => format!("coalesce((SELECT jsonb_agg(k ORDER BY k.id) FROM contacts k WHERE k.id < {id}), '[]')"),
            8 => format!(
                "ARRAY(SELECT k.{} FROM contacts k WHERE k.id <= {id} ORDER BY k.id)",
                self.sealed(&TABLES[1]).name
            ),
            9 => format!("array_agg({name}) OVER (ORDER BY {})", seen.key()),
            10 => format!("ARRAY[{name}, NULL, {name}]"),
            11 => format!("ROW({name}, {other}, {id})"),
            12 => format!("{row}::text"),
            13 => format!("CASE WHEN {id} > 1 THEN to_jsonb({row}) END"),
            14 => format!("to_jsonb({row}) ->> '{}'", a.name),
            15 | 16 => self.object(&name, &other),
            _ => format!("to_json({row}) IS NULL"),
        }
    }

    /// An object whose keys and plain values may be parameters.
    fn object(&mut self, name: &str, other: &str) -> String {
        let function = self.dice.pick(&["json_build_object", "jsonb_build_object"]);
        let mut key = |text: &str| match self.parameters {
            true => format!("{}::text", self.parameter(Some(text.to_owned()), "text")),
            false => quoted(text),
        };
        let (a, b, value) = (key("a b"), key("zz"), key("plain"));
        format!("{function}({a}, {name}, {b}, {other}, 'v', {value})")
    }

    /// Columns by which rows can be told apart, most times.
    pub fn apart(&mut self, seen: Seen<'_>) -> String {
        let key = self.searchable(seen.table);
        let tenant = seen.table.tenant.filter(|_| !self.dice.one_in(6)).map(|tenant| seen.of(tenant));
        tenant.into_iter().chain([seen.of(key.name)]).collect::<Vec<_>>().join(", ")
    }

    pub fn items(&mut self, seen: Seen<'_>) -> String {
        let n = 1 + self.dice.below(3);
        (0..n).map(|_| self.item(seen)).collect::<Vec<_>>().join(", ")
    }

    pub fn written_name(&mut self, seen: Seen<'_>) -> String {
        let schema = if self.dice.one_in(6) { "public." } else { "" };
        let only = if seen.table.kind == Kind::Table && self.dice.one_in(12) { "ONLY " } else { "" };
        match seen.alias {
            "" => format!("{only}{schema}{}", seen.table.name),
            alias if self.dice.one_in(2) => format!("{only}{schema}{} AS {alias}", seen.table.name),
            alias => format!("{only}{schema}{} {alias}", seen.table.name),
        }
    }
}
