//! Writes statements that change many rows with what other rows, arrays or VALUES have.
use super::tables::{Column, Eq, TABLES, Table, Values};
use super::writer::{Seen, Writer};

/// How a column is called beside others of its name.
fn bare(column: &Column) -> String {
    column.name.trim_matches('"').to_ascii_lowercase().replace(' ', "_")
}

impl Writer<'_> {
    /// One of these, and what kind it is.
    pub fn bulk(&mut self) -> (&'static str, String) {
        match self.dice.below(10) {
            8 | 9 => ("insert from values", self.insert_from_values()),
            0..=2 => ("insert select", self.insert_select()),
            3 | 4 => ("unnest", self.insert_unnested()),
            5 | 6 => ("update from values", self.update_from_values()),
            _ => ("merge", self.merge()),
        }
    }

    /// The key, the tenant, a sealed column and some others.
    fn written_columns<'t>(&mut self, table: &'t Table) -> Vec<&'t Column> {
        let sealed = self.sealed(table).name;
        let fixed = |column: &Column| [Some(table.id()), table.tenant, Some(sealed)].contains(&Some(column.name));
        table.columns.iter().filter(|column| fixed(column) || self.dice.one_in(4)).collect()
    }

    fn insert_select(&mut self) -> String {
        let (target, source) = (self.table(), self.relation());
        let alias = self.dice.pick(&["", "", "s"]);
        let seen = Seen { table: source, alias };
        let columns = self.written_columns(target);
        let items: Vec<String> = columns.iter().map(|column| self.selected(target, column, seen)).collect();
        let condition = self.condition(seen);
        let from = if self.dice.one_in(8) {
            let inner = if alias.is_empty() { "sub" } else { alias };
            format!("(SELECT * FROM {}) {inner}", source.name)
        } else {
            self.written_name(seen)
        };
        let distinct = if self.dice.one_in(12) { "DISTINCT " } else { "" };
        let mut query = format!("SELECT {distinct}{} FROM {from} WHERE {condition}", items.join(", "));
        match self.dice.below(8) {
            _ if !distinct.is_empty() => {}
            0..=2 => query += &format!(" ORDER BY {}", seen.key()),
            3 => query += &format!(" ORDER BY {} LIMIT 2", seen.key()),
            4 => query += &format!(" UNION ALL {query}"),
            _ => {}
        }
        self.insert_of(target, &columns, &query)
    }

    /// What a query gives for a column of the table that is written.
    fn selected(&mut self, target: &Table, column: &Column, from: Seen<'_>) -> String {
        if column.name == target.id() {
            let more = self.dice.pick(&[" + 200", " + 200", " + 1", ""]);
            return format!("{}{more}", from.of(from.table.id()));
        }
        if Some(column.name) == target.tenant {
            return match from.table.tenant {
                Some(tenant) if !self.dice.one_in(4) => from.of(tenant),
                _ => self.dice.pick(&["1", "2", "'1'", "NULL"]).to_owned(),
            };
        }
        let like = |other: &&Column| {
            other.values == column.values || (other.kind == column.kind && matches!(other.values, Values::Name))
        };
        let others: Vec<&Column> = from.table.columns.iter().filter(like).collect();
        if others.is_empty() || self.dice.one_in(4) {
            return self.value(column);
        }
        let other = self.dice.pick(&others);
        match self.dice.below(16) {
            0 => format!("CASE WHEN {} < 3 THEN {} END", from.of(from.table.id()), from.of(other.name)),
            1 => format!("{}::{}", from.of(other.name), column.kind),
            _ => from.of(other.name),
        }
    }

    fn insert_of(&mut self, target: &Table, columns: &[&Column], query: &str) -> String {
        let names: Vec<&str> = columns.iter().map(|c| c.name).collect();
        let mut sql = format!("INSERT INTO {} ({}) {query}", target.name, names.join(", "));
        if self.dice.one_in(3) {
            sql += &self.on_conflict(target, "");
        }
        sql + &self.returning(target)
    }

    fn insert_unnested(&mut self) -> String {
        let target = self.table();
        let (columns, rows) = (self.written_columns(target), self.dice.below(4));
        let arrays: Vec<String> = columns.iter().map(|column| self.unnested(target, column, rows)).collect();
        let names: Vec<String> = columns.iter().map(|column| bare(column)).collect();
        let query = match self.dice.below(8) {
            0..=3 => format!("SELECT * FROM unnest({})", arrays.join(", ")),
            4 => format!("SELECT * FROM ROWS FROM (unnest({})) AS u", arrays.join("), unnest(")),
            5 => {
                let each: Vec<String> = arrays.iter().map(|array| format!("unnest({array})")).collect();
                format!("SELECT {}", each.join(", "))
            }
            n => {
                let tail = ["", " WHERE u.{} > 101", " ORDER BY u.{} DESC", " ORDER BY u.{} LIMIT 1"]
                    [if n == 6 { 0 } else { self.dice.below(4) }];
                let items: Vec<String> = names.iter().map(|name| format!("u.{name}")).collect();
                let (items, names) = (items.join(", "), names.join(", "));
                format!(
                    "SELECT {items} FROM unnest({}) AS u({names}){}",
                    arrays.join(", "),
                    tail.replace("{}", &bare(columns[0]))
                )
            }
        };
        self.insert_of(target, &columns, &query)
    }

    /// The array of a column for so many rows, mostly.
    fn unnested(&mut self, target: &Table, column: &Column, rows: usize) -> String {
        let rows = if self.dice.one_in(20) { rows + 1 } else { rows };
        let members: Vec<Option<String>> = (0..rows)
            .map(|row| {
                if column.name == target.id() {
                    Some((if self.dice.one_in(8) { row + 1 } else { row + 100 }).to_string())
                } else if Some(column.name) == target.tenant && !self.dice.one_in(30) {
                    Some((1 + self.dice.below(2)).to_string())
                } else {
                    self.some_value(column).map(str::to_owned)
                }
            })
            .collect();
        let kind = column.kind.split('(').next().unwrap();
        let array = self.array_of_these(&members, column);
        if self.dice.one_in(10) { array } else { format!("{array}::{kind}[]") }
    }

    /// An INSERT of rows of VALUES that a SELECT reads, mostly with a counter that says their order.
    fn insert_from_values(&mut self) -> String {
        let target = self.table();
        let (columns, count, typed) = (self.written_columns(target), 1 + self.dice.below(3), self.dice.below(4));
        let is_counted = !self.dice.one_in(6);
        let mut rows = Vec::new();
        for row in 0..count {
            let mut values: Vec<String> = Vec::new();
            for column in &columns {
                let value = self.value_of_row(target, column, row);
                let cast = (typed == 0 || (typed == 1 && row == 0)) && !value.contains("::");
                values.push(if cast { format!("{value}::{}", column.kind) } else { value });
            }
            values.extend(is_counted.then(|| (count - row).to_string()));
            rows.push(format!("({})", values.join(", ")));
        }
        let mut names: Vec<String> = columns.iter().map(|column| bare(column)).collect();
        let items: Vec<String> = columns.iter().map(|column| self.item_of_values(target, column)).collect();
        let items = if is_counted || self.dice.one_in(3) { items.join(", ") } else { "*".to_owned() };
        names.extend(is_counted.then(|| "n".to_owned()));
        let tail = match self.dice.below(8) {
            _ if !is_counted => "",
            0 => " WHERE v.n > 1 ORDER BY n",
            1 => " ORDER BY v.n DESC LIMIT 2",
            2 => " WHERE n IN (SELECT 1 UNION SELECT 2)",
            3 => "",
            _ => " ORDER BY n",
        };
        let query = format!("SELECT {items} FROM (VALUES {}) AS v({}){tail}", rows.join(", "), names.join(", "));
        self.insert_of(target, &columns, &query)
    }

    fn value_of_row(&mut self, target: &Table, column: &Column, row: usize) -> String {
        if column.name == target.id() {
            (if self.dice.one_in(8) { row + 1 } else { row + 100 }).to_string()
        } else if Some(column.name) == target.tenant && !self.dice.one_in(30) {
            (1 + self.dice.below(2)).to_string()
        } else {
            self.value(column)
        }
    }

    /// A column of VALUES, most often cast to the type of the one that it goes to.
    fn item_of_values(&mut self, target: &Table, column: &Column) -> String {
        let (name, kind) = (bare(column), column.kind);
        match self.dice.below(8) {
            0 => name,
            1 => format!("v.{name}"),
            2 => format!("CAST(v.{name} AS {kind})"),
            3 if column.name != target.id() => format!("({name})::{kind}"),
            _ => format!("{name}::{kind}"),
        }
    }

    fn update_from_values(&mut self) -> String {
        let table = self.table();
        let target = Seen { table, alias: "u" };
        let columns = self.written_columns(table);
        // What is not given to a sealed column is no value of one.
        let (mut given, mut sets) = (Vec::new(), Vec::new());
        for column in columns {
            if column.name == table.id() || Some(column.name) == table.tenant {
                given.push(column);
                continue;
            }
            sets.push(match self.dice.below(12) {
                0 => format!("{} = {}", column.name, self.value(column)),
                n => {
                    given.push(column);
                    let value = format!("v.{}", bare(column));
                    let value = if n == 1 { format!("coalesce({value}, u.{})", column.name) } else { value };
                    format!("{} = {value}", column.name)
                }
            });
        }
        let rows = self.values_rows(table, &given);
        let names: Vec<String> = given.iter().map(|column| bare(column)).collect();
        let on = self.matched(target, "v");
        let more = if self.dice.one_in(5) { format!(" AND {}", self.atom(target)) } else { String::new() };
        let returning = self.returning_of(target);
        format!(
            "UPDATE {} u SET {} FROM (VALUES {rows}) AS v({}) WHERE {on}{more}{returning}",
            table.name,
            sets.join(", "),
            names.join(", ")
        )
    }

    /// Rows of VALUES, each with a key of its own; most have the types of their columns.
    fn values_rows(&mut self, table: &Table, columns: &[&Column]) -> String {
        let (count, typed) = (1 + self.dice.below(3), !self.dice.one_in(5));
        let mut rows = Vec::new();
        for row in 0..count {
            let mut values = Vec::new();
            for column in columns {
                let value = if column.name == table.id() {
                    (row + 1 + 3 * self.dice.below(2)).to_string()
                } else if Some(column.name) == table.tenant {
                    (1 + self.dice.below(2)).to_string()
                } else {
                    self.value(column)
                };
                let cast = if typed && row == 0 && !value.contains("::") {
                    format!("::{}", column.kind)
                } else {
                    String::new()
                };
                values.push(format!("{value}{cast}"));
            }
            rows.push(format!("({})", values.join(", ")));
        }
        rows.join(", ")
    }

    /// How rows of VALUES or a source belong to those of the table.
    fn matched(&mut self, target: Seen<'_>, source: &str) -> String {
        let id = bare(target.table.column(target.table.id()));
        let key = format!("{} = {source}.{id}", target.of(target.table.id()));
        match target.table.tenant {
            Some(tenant) if self.dice.one_in(5) => format!("{key} AND {} = 1", target.of(tenant)),
            Some(tenant) if !self.dice.one_in(8) => {
                format!("{} = {source}.{} AND {key}", target.of(tenant), bare(target.table.column(tenant)))
            }
            _ => key,
        }
    }

    fn merge(&mut self) -> String {
        if self.dice.one_in(4) {
            return self.merge_from_table();
        }
        let table = self.table();
        let target = Seen { table, alias: "x" };
        let (mut columns, kind, inserts) = (self.written_columns(table), self.dice.below(6), !self.dice.one_in(5));
        // What is not given to a sealed column is no value of one.
        if kind < 2 && !inserts {
            columns.retain(|column| column.eq == Eq::Plain);
        }
        let names: Vec<String> = columns.iter().map(|column| bare(column)).collect();
        let source = if self.dice.one_in(3) {
            let row: Vec<String> = columns
                .iter()
                .map(|column| {
                    let value = match column.name {
                        name if name == table.id() => (1 + self.dice.below(8)).to_string(),
                        name if Some(name) == table.tenant => (1 + self.dice.below(2)).to_string(),
                        _ => self.value(column),
                    };
                    let cast = if value.contains("::") { String::new() } else { format!("::{}", column.kind) };
                    format!("{value}{cast} AS {}", bare(column))
                })
                .collect();
            format!("(SELECT {}) s", row.join(", "))
        } else {
            format!("(VALUES {}) AS s({})", self.values_rows(table, &columns), names.join(", "))
        };
        let on = self.matched(target, "s");
        let set: Vec<String> = columns
            .iter()
            .filter(|column| column.name != table.id() && Some(column.name) != table.tenant)
            .map(|column| format!("{} = s.{}", column.name, bare(column)))
            .collect();
        let condition = if self.dice.one_in(6) { format!(" AND {}", self.atom(target)) } else { String::new() };
        let matched = match kind {
            0 => "DELETE".to_owned(),
            1 => "DO NOTHING".to_owned(),
            _ => format!("UPDATE SET {}", set.join(", ")),
        };
        let given: Vec<String> = names.iter().map(|name| format!("s.{name}")).collect();
        let own: Vec<&str> = columns.iter().map(|column| column.name).collect();
        let insert = format!(" WHEN NOT MATCHED THEN INSERT ({}) VALUES ({})", own.join(", "), given.join(", "));
        let insert = if inserts { insert } else { String::new() };
        format!("MERGE INTO {} AS x USING {source} ON {on} WHEN MATCHED{condition} THEN {matched}{insert}", table.name)
    }

    fn merge_from_table(&mut self) -> String {
        let people = Seen { table: &TABLES[0], alias: "people" };
        let (source, on) = self.dice.pick(&[
            &("(SELECT DISTINCT person_id FROM orders) o", "o.person_id = people.id"),
            &("memos o", "o.id = people.id"),
            &("contacts o", "o.id = people.id AND o.account_id = people.account_id"),
            &("contacts o", "o.id = people.id AND o.account_id = people.account_id AND o.email = people.email"),
        ]);
        let condition = if self.dice.one_in(3) { format!(" AND {}", self.atom(people)) } else { String::new() };
        let plain: Vec<&Column> = people.table.columns.iter().filter(|c| c.eq == Eq::Plain).collect();
        let column = plain[2 + self.dice.below(plain.len() - 2)];
        let matched = match self.dice.below(4) {
            0 => "DELETE".to_owned(),
            1 => format!("UPDATE SET {} = {}", column.name, self.value(column)),
            2 => {
                let sealed = self.sealed(people.table);
                format!("UPDATE SET {} = {}", sealed.name, self.value(sealed))
            }
            _ => "UPDATE SET name = 'merged', email = NULL".to_owned(),
        };
        format!("MERGE INTO people USING {source} ON {on} WHEN MATCHED{condition} THEN {matched}")
    }
}
