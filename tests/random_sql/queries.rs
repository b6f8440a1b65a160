//! Writes queries.
use super::tables::{Column, Eq, TABLES, Table};
use super::writer::{Seen, Writer};

impl Writer<'_> {
    /// A query whose rows come in one order.
    pub fn ordered_query(&mut self) -> String {
        let table = self.table();
        let seen = Seen { table, alias: self.dice.pick(&["", "t", "\"T\""]) };
        let (items, from, condition) = (self.items(seen), self.written_name(seen), self.condition(seen));
        format!("SELECT {items} FROM {from} WHERE {condition} ORDER BY {}", seen.key())
    }

    pub fn query(&mut self, depth: usize) -> String {
        let table = self.relation();
        let seen = Seen { table, alias: self.dice.pick(&["", "t", "\"T\""]) };
        let from = if depth > 0 && self.dice.one_in(6) {
            let inner = self.condition(Seen { table, alias: "" });
            let alias = if seen.alias.is_empty() { "sub" } else { seen.alias };
            format!("(SELECT * FROM {} WHERE {inner}) {alias}", table.name)
        } else {
            self.written_name(seen)
        };
        if self.dice.one_in(14) {
            let (apart, condition) = (self.apart(seen), self.condition(seen));
            let name = seen.of(self.searchable(table).name);
            let sql = format!("FROM {from} WHERE {condition}");
            return match (self.dice.below(3), table.tenant) {
                (0, Some(tenant)) => {
                    let tenant = seen.of(tenant);
                    format!("SELECT DISTINCT ON ({tenant}, shown) {tenant}, {name} AS shown {sql}")
                }
                (1, None) => format!("SELECT DISTINCT ON (shown) {name} AS shown {sql}"),
                _ => format!("SELECT DISTINCT ON ({apart}) {apart} {sql}"),
            };
        }
        let (items, condition) = (self.items(seen), self.condition(seen));
        let distinct = if self.dice.one_in(10) { "DISTINCT " } else { "" };
        let mut sql = format!("SELECT {distinct}{items} FROM {from} WHERE {condition}");
        if depth > 1 && self.dice.one_in(4) {
            sql += &self.subquery(seen);
        }
        match self.dice.below(14) {
            0 | 1 if distinct.is_empty() => sql += &format!(" ORDER BY {}", seen.key()),
            2 if distinct.is_empty() => sql += &format!(" ORDER BY {} LIMIT 2 OFFSET 1", seen.key()),
            3 if distinct.is_empty() && self.parameters => {
                let limit = self.parameter(Some("2".to_owned()), "int8");
                sql += &format!(" ORDER BY {} LIMIT {limit}", seen.key());
            }
            4 if distinct.is_empty() => {
                sql += self.dice.pick(&[" FOR UPDATE", " FOR SHARE", " FOR UPDATE SKIP LOCKED"])
            }
            _ => {}
        }
        sql
    }

    fn subquery(&mut self, seen: Seen<'_>) -> String {
        let other = Seen { table: &TABLES[1], alias: "k" };
        let inner = self.condition(other);
        let name = |column: &str| seen.of(column);
        let people = seen.table.name == "people";
        match self.dice.below(8) {
            0 => format!(" AND EXISTS (SELECT 1 FROM contacts k WHERE {inner})"),
            1 if people => {
                let not = self.dice.pick(&["", "NOT "]);
                format!(
                    " AND {not}EXISTS (SELECT * FROM contacts k WHERE k.account_id = {} AND k.email = {} AND {inner})",
                    name("account_id"),
                    name("email")
                )
            }
            2 if people => {
                let not = self.dice.pick(&["", "NOT "]);
                format!(" AND {} {not}IN (SELECT k.login FROM contacts k WHERE {inner})", name("login"))
            }
            3 if people => format!(
                " AND ({}, {}) IN (SELECT k.account_id, k.email FROM contacts k WHERE {inner})",
                name("account_id"),
                name("email")
            ),
            4 if people => format!(" AND {} = ANY (SELECT k.login FROM contacts k WHERE {inner})", name("login")),
            5 if people => {
                format!(" AND {} = (SELECT k.login FROM contacts k WHERE {inner} ORDER BY k.id LIMIT 1)", name("login"))
            }
            _ => format!(" AND {} = (SELECT min(k.id) FROM contacts k WHERE {inner})", name(seen.table.id())),
        }
    }

    pub fn join(&mut self) -> String {
        let (a, b) = (Seen { table: &TABLES[0], alias: "a" }, Seen { table: &TABLES[1], alias: "b" });
        let (left, right, condition) = (self.joined(a), self.joined(b), self.condition(a));
        match self.dice.below(12) {
            0 => {
                let on = "a.account_id = b.account_id AND a.email = b.email";
                return format!("SELECT {left}, {right} FROM people a, contacts b WHERE {on} AND {condition}");
            }
            1 => {
                return format!(
                    "SELECT {left}, b.* FROM people a NATURAL {}JOIN (SELECT account_id, email, note FROM contacts) b \
                     WHERE {condition}",
                    self.dice.pick(&["", "LEFT "])
                );
            }
            2 => {
                return format!(
                    "SELECT {left}, x.email FROM people a {}JOIN LATERAL (SELECT k.email FROM contacts k \
                     WHERE k.account_id = a.account_id AND k.email = a.email ORDER BY k.id LIMIT 1) x ON true \
                     WHERE {condition}",
                    self.dice.pick(&["", "LEFT "])
                );
            }
            3 => {
                let own = Seen { table: &TABLES[0], alias: "b" };
                let right = self.joined(own);
                return format!(
                    "SELECT {left}, {right} FROM people a JOIN people b ON a.account_id = b.account_id AND a.age = b.age \
                     WHERE {condition}"
                );
            }
            4 => {
                let on = "p.account_id = a.account_id AND p.email = a.email";
                return format!("SELECT {left}, p.price, p.email FROM people a JOIN parts p ON {on} WHERE {condition}");
            }
            _ => {}
        }
        let kind = self.dice.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "JOIN", "INNER JOIN"]);
        let on = self.dice.pick(&[
            "ON a.account_id = b.account_id AND a.email = b.email",
            "ON (a.account_id, a.email) = (b.account_id, b.email)",
            "ON a.login = b.login",
            "USING (account_id, email)",
            "USING (login)",
            "ON a.id = b.id",
        ]);
        let orders = if self.dice.one_in(4) { " LEFT JOIN orders o ON o.person_id = a.id" } else { "" };
        format!("SELECT {left}, {right} FROM people a {kind} contacts b {on}{orders} WHERE {condition}")
    }

    pub fn grouped(&mut self) -> String {
        let table = self.relation();
        let seen = Seen { table, alias: self.dice.pick(&["", "g"]) };
        let key = self.searchable(table);
        let mut keys = vec![seen.of(key.name)];
        if let Some(tenant) = table.tenant.filter(|_| !self.dice.one_in(5)) {
            keys.insert(0, seen.of(tenant));
        }
        let keys = keys.join(", ");
        let (id, other) = (seen.of(table.id()), self.searchable(table));
        let aggregate = match self.dice.below(8) {
            0 => format!("count(DISTINCT {})", seen.of(other.name)),
            1 => format!("min({id})"),
            2 => format!("(array_agg({} ORDER BY {}))[1]", seen.of(self.sealed(table).name), seen.key()),
            3 => format!("count(*) FILTER (WHERE {})", self.atom(seen)),
            4 => format!("sum(CASE WHEN {} THEN 1 ELSE 0 END)", self.atom(seen)),
            _ => format!("count({})", seen.of(key.name)),
        };
        let mut sql = format!("SELECT {keys}, count(*), {aggregate} FROM {}", self.written_name(seen));
        if self.dice.one_in(2) {
            sql += &format!(" WHERE {}", self.condition(seen));
        }
        sql += &match self.dice.below(6) {
            0 if keys.contains(", ") => " GROUP BY 1, 2".to_owned(),
            1 if !keys.contains(", ") => " GROUP BY 1".to_owned(),
            _ => format!(" GROUP BY {keys}"),
        };
        match self.dice.below(8) {
            0 => sql += " HAVING count(*) >= 1",
            1 => sql += &format!(" HAVING {} IS NOT NULL", seen.of(key.name)),
            2 if table.tenant.is_none() || key.eq == Eq::Global => {
                sql += &format!(" HAVING {} <> {}", seen.of(key.name), self.value(key));
            }
            _ => {}
        }
        sql
    }

    /// Queries within queries.
    pub fn nested(&mut self) -> String {
        let (people, contacts) = (Seen { table: &TABLES[0], alias: "x" }, Seen { table: &TABLES[1], alias: "" });
        match self.dice.below(10) {
            0 => format!("SELECT * FROM ({}) g", self.grouped()),
            1 => format!("SELECT count(*) FROM ({}) d", self.query(1)),
            2 => format!("WITH s AS ({}) SELECT * FROM s", self.set_operation()),
            3 => {
                let (items, condition) = (self.joined(people), self.condition(people));
                format!(
                    "SELECT {items}, g.n FROM people x JOIN (SELECT login, count(*) AS n FROM contacts GROUP BY login) g \
                     ON g.login = x.login WHERE {condition}"
                )
            }
            4 => {
                let (items, condition) = (self.joined(people), self.condition(people));
                let inner = self.condition(contacts);
                format!(
                    "SELECT {items} FROM people x WHERE x.login IN (SELECT login FROM contacts WHERE {inner} UNION \
                     SELECT login FROM people) AND {condition}"
                )
            }
            5 => {
                let (items, condition) = (self.joined(people), self.condition(people));
                format!(
                    "WITH k AS (SELECT DISTINCT account_id, email FROM contacts) SELECT {items}, k.email FROM people x JOIN k \
                     ON k.account_id = x.account_id AND k.email = x.email WHERE {condition}"
                )
            }
            6 => {
                let condition = self.condition(contacts);
                format!(
                    "SELECT a.login, b.login FROM (SELECT login FROM contacts WHERE {condition}) a LEFT JOIN \
                     (SELECT login, id FROM people WHERE id < 4) b ON a.login = b.login"
                )
            }
            7 => {
                let (inner, outer) = (self.condition(contacts), self.condition(Seen { table: &TABLES[1], alias: "s" }));
                format!(
                    "SELECT s.id, s.email FROM (SELECT * FROM (SELECT * FROM contacts WHERE {inner}) r) s WHERE {outer} \
                     ORDER BY s.id"
                )
            }
            8 => {
                let gone = self.delete_from(&TABLES[1]);
                let gone = gone.split(" RETURNING ").next().unwrap();
                format!(
                    "WITH gone AS ({gone} RETURNING id, account_id, email, login) SELECT p.id, gone.email FROM gone \
                     JOIN people p ON p.login = gone.login"
                )
            }
            _ => {
                let condition = self.condition(people);
                format!(
                    "SELECT x.id, (SELECT count(*) FROM contacts k WHERE k.account_id = x.account_id AND k.email = x.email), \
                     (SELECT k.email FROM contacts k WHERE k.id = x.id) AS other FROM people x WHERE {condition}"
                )
            }
        }
    }

    pub fn set_operation(&mut self) -> String {
        let table = self.relation();
        let seen = Seen { table, alias: "" };
        let global: Vec<&Column> = table.columns.iter().filter(|c| matches!(c.eq, Eq::Global | Eq::Plain)).collect();
        let (column, tenant) = (self.dice.pick(&global), table.tenant);
        let columns = match tenant {
            _ if self.dice.one_in(6) => format!("{}, {}", table.key().join(", "), self.sealed(table).name),
            Some(tenant) if self.dice.one_in(2) => format!("{tenant}, {}", self.searchable(table).name),
            _ => column.name.to_owned(),
        };
        let mut sql = format!("SELECT {columns} FROM {} WHERE {}", table.name, self.condition(seen));
        for _ in 0..1 + self.dice.below(4) / 3 {
            let operation =
                self.dice.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT", "UNION ALL", "UNION DISTINCT"]);
            sql += &format!(" {operation} SELECT {columns} FROM {} WHERE {}", table.name, self.condition(seen));
        }
        match self.dice.below(6) {
            0 => format!("SELECT count(*) FROM ({sql}) u"),
            1 => format!("SELECT * FROM ({sql}) u"),
            _ => sql,
        }
    }

    pub fn with(&mut self) -> String {
        let table = self.table();
        let seen = Seen { table, alias: "" };
        let inner = match self.dice.below(7) {
            0 => self.delete_from(table),
            1 => self.insert_into(table),
            2 => self.update_of(table),
            _ => {
                let condition = self.condition(seen);
                let items = self.items(seen);
                format!("SELECT {items} FROM {} WHERE {condition}", table.name)
            }
        };
        let materialized = self.dice.pick(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "]);
        match self.dice.below(8) {
            0 => {
                let (sealed, condition) = (self.sealed(table).name, self.condition(seen));
                format!(
                    "WITH w (a, b) AS {materialized}(SELECT {}, {sealed} FROM {} WHERE {condition}) SELECT b, a FROM w \
                     ORDER BY a",
                    table.id(),
                    table.name
                )
            }
            1 => format!(
                "WITH RECURSIVE r AS (SELECT id, email FROM people WHERE id = 1 UNION ALL SELECT p.id, p.email FROM people p \
                 JOIN r ON p.id = r.id + 1) SELECT {} FROM r",
                self.dice.pick(&["id, email", "count(email)", "*"])
            ),
            2 => {
                let condition = self.condition(Seen { table: &TABLES[0], alias: "p" });
                format!(
                    "WITH k AS {materialized}(SELECT id FROM contacts WHERE login = 'zqwxvk.l1'), w AS (SELECT * FROM people) \
                     SELECT p.email, p.login FROM w p WHERE p.id IN (SELECT id FROM k) AND {condition}"
                )
            }
            _ => {
                format!("WITH w AS {materialized}({inner}) SELECT {} FROM w", self.dice.pick(&["*", "w.*", "count(*)"]))
            }
        }
    }

    /// RETURNING, or nothing.
    pub fn returning(&mut self, table: &Table) -> String {
        self.returning_of(Seen { table, alias: "" })
    }

    pub fn returning_of(&mut self, seen: Seen<'_>) -> String {
        if self.dice.one_in(2) {
            return String::new();
        }
        // Windows are not allowed there.
        let items = if self.dice.one_in(30) { self.items(seen) } else { self.joined(seen) };
        format!(" RETURNING {items}")
    }

    /// Something to select where rows may be there twice, so that windows over them are not ordered in one way.
    fn joined(&mut self, seen: Seen<'_>) -> String {
        let mut items = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            let mut item = self.item(seen);
            while item.contains(" OVER (") {
                item = self.item(seen);
            }
            items.push(item);
        }
        items.join(", ")
    }
}
