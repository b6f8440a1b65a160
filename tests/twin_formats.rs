//! The extended protocol in every combination of formats: text and binary parameters, text and binary results, one code
//! for all or one for each. Descriptions, values, tags and errors must be those of the plain twin (T1, T3).
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::Version;
use crate::twin::{TYPES, Tables, quote, tables};

/// Both ends of a comparison, and what was found to differ.
struct Pair {
    tables: Tables,
    plain: Peer,
    sealed: Peer,
    cases: usize,
    differences: Vec<String>,
}

fn pair(version: Version) -> Pair {
    let tables = tables(version, "direct");
    let mut plain = Peer::connect(tables.cluster.host_port(), "app");
    assert!(plain.ask("SET search_path = plain").ends_with("Z(I)"));
    let sealed = Peer::connect(tables.proxy.address(), "app");
    Pair { tables, plain, sealed, cases: 0, differences: Vec::new() }
}

type Param<'a> = (i16, Option<&'a [u8]>);

impl Pair {
    fn compare(&mut self, what: &str, out: &Out) {
        self.cases += 1;
        let [expected, got] = [&mut self.plain, &mut self.sealed].map(|peer| {
            peer.send(&out.0);
            show(&peer.until_ready(1))
        });
        // A binary value that ends early is a broken message for Postgres; for RowSeal it is a bad value like the others.
        let same = expected == got || expected.replace("ERROR 08P01", "ERROR 22P03") == got;
        if !same {
            self.differences.push(format!("{what}\n  plain:  {expected}\n  sealed: {got}"));
        }
    }

    /// Prepares, describes, binds, describes again, executes.
    fn run(&mut self, sql: &str, params: &[Param<'_>], results: &[i16]) {
        let out = Out::new().parse("", sql).describe('S', "").bind_as("", params, results).describe('P', "");
        let formats: Vec<i16> = params.iter().map(|(format, _)| *format).collect();
        self.compare(&format!("{sql} {formats:?} {results:?}"), &out.execute("", 0).sync());
    }

    /// The binary form of a value, as the server itself gives it.
    fn binary(&mut self, value: &str, ty: &str) -> Vec<u8> {
        let sql = format!("SELECT {}::{ty}", quote(value));
        self.plain.send(&Out::new().parse("", &sql).bind_as("", &[], &[1]).execute("", 0).sync().0);
        let replies = self.plain.until_ready(1);
        let (_, row) = replies.iter().find(|(tag, _)| *tag == b'D').unwrap();
        row[6..].to_vec()
    }

    fn value(&mut self, id: usize, column: &str, text: &[u8], binary: &[u8]) {
        let insert = |id: usize| {
            format!(
                "INSERT INTO t (id, account_id, {column}) VALUES ({id}, 1, $1) RETURNING {column}, id, {column} AS b"
            )
        };
        let select = format!("SELECT id, {column}, note FROM t WHERE account_id = 1 AND {column} = $1 ORDER BY id");
        let update = format!("UPDATE t SET {column} = $1 WHERE account_id = $3 AND id = $2 RETURNING {column}, id");
        for (n, (format, bytes)) in [(0, text), (1, binary)].into_iter().enumerate() {
            for result in [0, 1] {
                let id = id + 2 * n + usize::from(result == 1);
                let key = (id as i64).to_be_bytes();
                self.run(&insert(id), &[(format, Some(bytes))], &[result]);
                self.run(&select, &[(format, Some(bytes))], &[result]);
                self.run(&select, &[(format, Some(bytes))], &[1 - result, result, result]);
                self.run(&update, &[(format, Some(bytes)), (1, Some(&key)), (0, Some(b"1"))], &[result, 0]);
                self.run(&update, &[(format, None), (1, Some(&key)), (0, Some(b"1"))], &[result]);
                self.run(&update, &[(format, Some(bytes)), (1, Some(&key)), (0, Some(b"1"))], &[]);
            }
        }
        // Too short, too long, nothing at all: each is an error of its type, or not, as Postgres has it.
        for broken in [&binary[..binary.len().saturating_sub(1)], &[binary, &[0][..]].concat(), b""] {
            self.run(&insert(id + 4), &[(1, Some(broken))], &[0]);
            self.compare("clean up", &Out::new().query(&format!("DELETE FROM t WHERE id = {}", id + 4)));
        }
    }

    fn every_type(&mut self) {
        for (at, (column, ty, values, bad)) in TYPES.iter().enumerate() {
            for (n, value) in values.iter().enumerate() {
                let binary = self.binary(value, ty);
                self.value(1000 * (at + 1) + 10 * n, column, value.as_bytes(), &binary);
            }
            let Some(bad) = bad else { continue };
            for result in [0, 1] {
                let insert = format!("INSERT INTO t (id, account_id, {column}) VALUES (1, 1, $1) RETURNING {column}");
                self.run(&insert, &[(0, Some(bad.as_bytes()))], &[result]);
                self.run(
                    &format!("SELECT id FROM t WHERE account_id = 1 AND {column} = $1"),
                    &[(0, Some(bad.as_bytes()))],
                    &[result],
                );
            }
        }
    }

    fn whole_rows(&mut self) {
        let formats: Vec<i16> = (0..TYPES.len() as i16 + 3).map(|n| n % 2).collect();
        for results in [&[][..], &[0], &[1], &formats, &[0, 1]] {
            self.run("SELECT * FROM t ORDER BY id", &[], results);
            self.run("SELECT * FROM t WHERE account_id = $1 ORDER BY id DESC", &[(0, Some(b"1"))], results);
        }
        for params in [&[][..], &[(0, Some(&b"1"[..])), (0, Some(b"1"))], &[(2, Some(b"1"))]] {
            self.run("SELECT c_text FROM t WHERE account_id = $1", params, &[0]);
        }
        self.run("SELECT c_text FROM t WHERE account_id = $1", &[(0, Some(b"1"))], &[2]);
    }

    /// Parameters declared to be of a type near the column's, as drivers do.
    fn declared(&mut self) {
        let int = |n: i64, bytes: usize| n.to_be_bytes()[8 - bytes..].to_vec();
        let (small, large, far) = (int(-7, 2), int(70_000, 4), int(5_000_000_000, 8));
        let near: Vec<(&str, u32, &str, Option<Vec<u8>>)> = vec![
            ("c_int4", 21, "-7", Some(small.clone())),
            ("c_int4", 20, "-7", Some(int(-7, 8))),
            ("c_int4", 20, "5000000000", None),
            ("c_int8", 21, "-7", Some(small.clone())),
            ("c_int8", 23, "70000", Some(large.clone())),
            ("c_numeric", 21, "-7", Some(small)),
            ("c_numeric", 23, "70000", Some(large)),
            ("c_numeric", 20, "5000000000", Some(far)),
            ("c_text", 1043, "a varchar", Some(b"a varchar".to_vec())),
            ("c_varchar", 25, "a text", Some(b"a text".to_vec())),
            ("c_varchar", 25, "longer than twenty characters", None),
            ("c_varchar", 1043, "a varchar", Some(b"a varchar".to_vec())),
            ("c_timestamptz", 1114, "2024-02-29 12:34:56.789", None),
            ("c_timestamptz", 1082, "2024-02-29", None),
            ("c_jsonb", 114, "{\"b\": 1, \"a\": 2}", None),
            ("c_uuid", 2950, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None),
            ("c_int8", 705, "-7", None),
        ];
        for (n, (column, oid, text, binary)) in near.into_iter().enumerate() {
            let values = [(0, Some(text.as_bytes())), (1, binary.as_deref())];
            for (m, param) in values.into_iter().filter(|(_, value)| value.is_some()).enumerate() {
                let id = 100_000 + 10 * n + m;
                for sql in [
                    format!("INSERT INTO t (id, account_id, {column}) VALUES ({id}, 2, $1) RETURNING {column}"),
                    format!("UPDATE t SET {column} = $1 WHERE account_id = 2 AND id = {id} RETURNING {column}"),
                ] {
                    let out = Out::new().parse_as("", &sql, &[oid]).describe('S', "");
                    let out = out.bind_as("", &[param], &[0]).execute("", 0).sync();
                    self.compare(&format!("{sql} declared {oid} {}", param.0), &out);
                }
                if text != "5000000000" && column != "c_jsonb" {
                    let sql = format!("SELECT id FROM t WHERE account_id = 2 AND {column} = $1 ORDER BY id");
                    let out = Out::new().parse_as("", &sql, &[oid]).bind_as("", &[param], &[0]).execute("", 0).sync();
                    self.compare(&format!("{sql} declared {oid} {}", param.0), &out);
                }
            }
        }
    }

    /// A text that the statement casts to the column's type, as Java programs write what their driver has no type for.
    fn declared_and_cast(&mut self) {
        let texts = [
            ("c_jsonb", "jsonb", "{\"b\": 1, \"a\": 2}"),
            ("c_int4", "int4", " 42 "),
            ("c_numeric", "numeric(12,2)", "1.005"),
            ("c_date", "date", "2024-02-29"),
            ("c_timestamptz", "timestamptz", "2024-02-29 12:00:00+05"),
            ("c_uuid", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("c_bool", "bool", "yes"),
            ("c_int4", "int4", "none"),
        ];
        for (n, (column, ty, text)) in texts.into_iter().enumerate() {
            for (m, (oid, format)) in [(25, 0), (25, 1), (1043, 0), (1043, 1)].into_iter().enumerate() {
                let id = 200_000 + 10 * n + m;
                let sql =
                    format!("INSERT INTO t (id, account_id, {column}) VALUES ({id}, 2, $1::{ty}) RETURNING {column}");
                let out = Out::new().parse_as("", &sql, &[oid]).describe('S', "");
                let out = out.bind_as("", &[(format, Some(text.as_bytes()))], &[0]).execute("", 0).sync();
                self.compare(&format!("{sql} declared {oid} {format}"), &out);
            }
        }
    }

    /// Parameters declared to be of a type whose values mean something else there are refused, never taken for it.
    fn declared_otherwise(&mut self) {
        let eight = 1.5_f64.to_be_bytes();
        for (column, oid) in [("c_int8", 701), ("c_numeric", 701), ("c_int8", 1114), ("c_uuid", 25), ("c_date", 1114)] {
            let sql = format!("INSERT INTO t (id, account_id, {column}) VALUES (1, 1, $1)");
            self.sealed.send(
                &Out::new().parse_as("", &sql, &[oid]).bind_as("", &[(1, Some(&eight))], &[]).execute("", 0).sync().0,
            );
            assert_eq!(show(&self.sealed.until_ready(1)), "E(ERROR 0A000) Z(I)", "{column} {oid}");
        }
        let insert = "INSERT INTO t (id, account_id, c_timestamptz) VALUES (1, 1, $1)";
        let zoned = Some(&b"2024-02-29 12:00:00+05"[..]);
        self.sealed
            .send(&Out::new().parse_as("", insert, &[1114]).bind_as("", &[(0, zoned)], &[]).execute("", 0).sync().0);
        assert_eq!(show(&self.sealed.until_ready(1)), "1 E(ERROR 22007) Z(I)");
    }

    fn done(self) {
        let log = self.tables.proxy.log();
        assert!(!log.contains("panicked"), "{log}");
        assert!(self.cases > 1000, "only {} cases", self.cases);
        let all = self.differences.join("\n");
        assert!(self.differences.is_empty(), "{} of {} cases differ\n{all}", self.differences.len(), self.cases);
    }
}

fn check(version: Version) {
    let mut pair = pair(version);
    pair.every_type();
    pair.whole_rows();
    pair.declared();
    pair.declared_and_cast();
    pair.declared_otherwise();
    pair.done();
}

#[test]
fn formats_agree_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn formats_agree_on_postgres_18() {
    check(Version::V18);
}
