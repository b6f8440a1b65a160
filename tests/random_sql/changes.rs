//! Writes statements that change rows, and such as fail.
use super::tables::{Column, MARK, ODD, TABLES, Table, VIEWS};
use super::writer::{Seen, Writer};

impl Writer<'_> {
    pub fn insert(&mut self) -> String {
        let table = if self.dice.one_in(12) { &VIEWS[0] } else { self.table() };
        if self.dice.one_in(12) && table.name == "people" {
            let (mail, id) = (self.value(table.column("email")), 900 + self.dice.below(50));
            let none = format!("NOT EXISTS (SELECT 1 FROM people WHERE id = {id})");
            return format!("INSERT INTO people (id, account_id, email) SELECT {id}, 1, {mail} WHERE {none}");
        }
        self.insert_into(table)
    }

    pub fn insert_into(&mut self, table: &Table) -> String {
        let mut columns: Vec<&Column> = vec![&table.columns[0]];
        columns.extend(table.columns[1..].iter().filter(|c| Some(c.name) == table.tenant || self.dice.one_in(2)));
        let names: Vec<&str> = columns.iter().map(|c| c.name).collect();
        let rows = 1 + self.dice.below(2) * self.dice.below(3);
        let rows: Vec<String> = (0..rows).map(|_| self.values_of(table, &columns)).collect();
        let alias = if self.dice.one_in(8) { " AS n" } else { "" };
        let mut sql = format!("INSERT INTO {}{alias} ({}) VALUES {}", table.name, names.join(", "), rows.join(", "));
        if self.dice.one_in(2) {
            sql += &self.on_conflict(table, alias);
        }
        let seen = Seen { table, alias: if alias.is_empty() { "" } else { "n" } };
        sql + &self.returning_of(seen)
    }

    pub fn on_conflict(&mut self, table: &Table, alias: &str) -> String {
        let key = table.key().join(", ");
        let target = match (table.name, self.dice.below(4)) {
            ("memos", 0 | 1) => "(body)".to_owned(),
            ("contacts", 0) => "(account_id, email, id)".to_owned(),
            ("people", 0) => "ON CONSTRAINT people_pkey".to_owned(),
            _ => format!("({key})"),
        };
        let own = if alias.is_empty() { table.name } else { "n" };
        let (column, plain) = (self.sealed(table), self.column(table));
        match self.dice.below(7) {
            0 => format!(" ON CONFLICT {target} DO NOTHING"),
            1 => " ON CONFLICT DO NOTHING".to_owned(),
            2 => format!(" ON CONFLICT {target} DO UPDATE SET {} = {}", column.name, self.value(column)),
            3 => format!(
                " ON CONFLICT {target} DO UPDATE SET {0} = coalesce(EXCLUDED.{0}, {own}.{0}) WHERE {own}.{1} < 5",
                column.name,
                table.id()
            ),
            4 if plain.name != table.id() && Some(plain.name) != table.tenant => format!(
                " ON CONFLICT {target} DO UPDATE SET {0} = EXCLUDED.{0}, {1} = EXCLUDED.{1}",
                column.name, plain.name
            ),
            5 => format!(" ON CONFLICT {target} DO UPDATE SET {0} = {own}.{0}", column.name),
            _ => format!(" ON CONFLICT {target} DO UPDATE SET {0} = EXCLUDED.{0}", column.name),
        }
    }

    fn values_of(&mut self, table: &Table, columns: &[&Column]) -> String {
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

    pub fn update(&mut self) -> String {
        let table = if self.dice.one_in(12) { &VIEWS[self.dice.below(2)] } else { self.table() };
        self.update_of(table)
    }

    pub fn update_of(&mut self, table: &Table) -> String {
        let seen = Seen { table, alias: self.dice.pick(&["", "", "x"]) };
        let (first, second) = (self.sealed(table), self.column(table));
        let mut sets = vec![(first.name, self.assigned(seen, first))];
        let fixed = [Some(table.id()), table.tenant, Some(first.name)];
        if !fixed.contains(&Some(second.name)) && self.dice.one_in(2) {
            sets.push((second.name, self.assigned(seen, second)));
        }
        let condition = match self.dice.below(4) {
            0 => {
                let pin = table.tenant.map_or(String::new(), |tenant| format!(" AND {} = 1", seen.of(tenant)));
                format!("{} = {}{pin}", seen.of(table.id()), 1 + self.dice.below(3))
            }
            _ => self.condition(seen),
        };
        let (from, joined) = match (table.name, self.dice.below(8)) {
            ("people", 0) if !seen.alias.is_empty() => (" FROM orders o", " AND o.person_id = x.id AND o.total > 5"),
            ("people", 1) if !seen.alias.is_empty() => {
                (" FROM contacts c", " AND c.account_id = x.account_id AND c.email = x.email AND c.id IN (1, 3)")
            }
            _ => ("", ""),
        };
        let joined = joined.to_owned();
        let target = self.written_name(seen);
        if let (Some(tenant), true) = (table.tenant, self.dice.one_in(16)) {
            sets.push((tenant, (1 + self.dice.below(2)).to_string()));
        }
        let set = if sets.len() == 2 && self.dice.one_in(6) {
            format!("({}, {}) = ({}, {})", sets[0].0, sets[1].0, sets[0].1, sets[1].1)
        } else {
            sets.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
        };
        // What is joined has columns of the same names.
        let returning = if from.is_empty() { self.returning(table) } else { self.returning_of(seen) };
        format!("UPDATE {target} SET {set}{from} WHERE ({condition}){joined}{returning}")
    }

    fn assigned(&mut self, seen: Seen<'_>, column: &Column) -> String {
        match self.dice.below(16) {
            0 => "DEFAULT".to_owned(),
            1 => format!("coalesce({}, {})", self.value(column), seen.of(column.name)),
            2 => seen.of(column.name),
            3 => {
                let (id, first) = (seen.of(seen.table.id()), self.value(column));
                format!("CASE {id} WHEN 1 THEN {first} ELSE {} END", seen.of(column.name))
            }
            _ => self.value(column),
        }
    }

    pub fn delete(&mut self) -> String {
        let table = if self.dice.one_in(12) { &VIEWS[self.dice.below(2)] } else { self.table() };
        self.delete_from(table)
    }

    pub fn delete_from(&mut self, table: &Table) -> String {
        if table.name == "people" && self.dice.one_in(3) {
            let seen = Seen { table, alias: "people" };
            let condition = self.condition(seen);
            let (using, on) = self.dice.pick(&[
                &("orders o", "o.person_id = people.id"),
                &("contacts c", "c.account_id = people.account_id AND c.email = people.email"),
                &("contacts c", "c.login = people.login"),
            ]);
            return format!("DELETE FROM people USING {using} WHERE {on} AND ({condition})") + &self.returning_of(seen);
        }
        let condition = self.condition(Seen { table, alias: "" });
        format!("DELETE FROM {} WHERE {condition}", table.name) + &self.returning(table)
    }

    /// Something that fails, perhaps with a value in it that must not show.
    pub fn wrong(&mut self) -> String {
        let people = &TABLES[0];
        let (email, age) = (people.column("email"), people.column("age"));
        let (mail, secret) = (self.literal(email), MARK);
        match self.dice.below(19) {
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
            13 => format!(
                "INSERT INTO memos (id, body) VALUES (901, 'zqwxvk-ann'), (902, 'zqwxvk-{}')",
                self.dice.below(2)
            ),
            14 => format!("UPDATE memos SET body = {mail}"),
            15 => format!("INSERT INTO parts (id, account_id, email) VALUES (900, 3, {mail})"),
            16 => format!(
                "INSERT INTO parts (id, account_id, price) VALUES (900, 1, 12345678901{}.5)",
                self.dice.below(9)
            ),
            17 => "SELECT email FROM people WHERE id = (SELECT id FROM contacts)".to_owned(),
            _ => format!("SELECT id FROM {ODD} WHERE \"Org\" = 1 AND \"Sealed Name\" = '{secret}'::int4"),
        }
    }
}
