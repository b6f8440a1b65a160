//! Parameters that stand in for sealed values, `coalesce(email, $1)`: shown as over plain columns, and never sent on.
use super::{Pair, columns, pair};
use crate::support::peer::Out;
use crate::support::postgres::Version;

/// A parameter: its format and bytes.
type Param<'a> = (i16, Option<&'a [u8]>);

impl Pair {
    /// By the extended protocol with results in text and in binary.
    fn stands(&mut self, sql: &str, oids: &[u32], params: &[Param<'_>]) {
        for format in [0, 1] {
            let out = Out::new().parse_as("", sql, oids).describe('S', "").bind_as("", params, &[format]);
            // A portal is described as it was planned: beside NULL a column is itself, with its length.
            let is_null = params.iter().any(|(_, value)| value.is_none());
            let out = if is_null { out } else { out.describe('P', "") };
            self.compare(&format!("{sql} as {format}, or fails"), &out.execute("", 0).sync());
        }
    }
}

fn every_type(pair: &mut Pair) {
    for (name, ty, values) in columns() {
        for value in values.iter().take(3).map(|value| Some(value.as_bytes())).chain([None]) {
            pair.stands(&format!("SELECT id, coalesce({name}, $1) FROM t ORDER BY id"), &[], &[(0, value)]);
            let case = format!("SELECT CASE WHEN id < 9 THEN {name} ELSE $1 END AS c FROM t ORDER BY id");
            pair.stands(&case, &[], &[(0, value)]);
        }
        let first = values.first().map(|value| value.as_bytes());
        if !ty.contains('(') {
            pair.stands(&format!("SELECT coalesce({name}, $1::{ty}) FROM t ORDER BY id"), &[], &[(0, first)]);
        }
        let document = format!("SELECT json_build_object('v', coalesce({name}, $1)) FROM t ORDER BY id");
        pair.stands(&document, &[], &[(0, first)]);
        pair.stands(&format!("SELECT coalesce({name}, $1) FROM t"), &[], &[(0, Some(b"\xff"))]);
    }
}

fn other_roads(pair: &mut Pair) {
    let (text, four): (Param<'_>, Param<'_>) = ((1, Some(b"st'and \"in\"")), (1, Some(&[0, 0, 0, 4])));
    for (sql, oids, params) in [
        ("SELECT coalesce(email, $1), coalesce(age, $2) FROM users ORDER BY id", &[][..], vec![text, four]),
        ("SELECT coalesce(email, $1), coalesce(age, $2) FROM users ORDER BY id", &[1043, 23], vec![text, four]),
        ("SELECT coalesce(age, $1) FROM users ORDER BY id", &[23], vec![(0, Some(&b"x"[..]))]),
        ("SELECT coalesce(age, $1) FROM users ORDER BY id", &[], vec![(1, Some(&b"x"[..]))]),
        ("SELECT $1, coalesce($1, email) FROM users ORDER BY id", &[25], vec![text]),
        ("SELECT coalesce(email, $2, 'lit', $1) FROM users ORDER BY id", &[], vec![text, (0, None)]),
        ("SELECT id FROM users WHERE account_id = 1 AND coalesce(email, $1) = $1", &[], vec![text]),
        ("SELECT email FROM users WHERE id = 1 UNION ALL SELECT $1", &[], vec![text]),
        (
            "UPDATE users SET email = NULL WHERE id = 1 AND account_id = 1 RETURNING coalesce(email, $1)",
            &[],
            vec![text],
        ),
        ("UPDATE users SET email = $1 WHERE id < 4 RETURNING id, coalesce(NULL, email, $1)", &[], vec![text]),
        ("SELECT to_jsonb(coalesce(age, $1)), ARRAY[coalesce(age, $1), age] FROM users ORDER BY id", &[], vec![four]),
    ] {
        pair.stands(sql, oids, &params);
    }
    let fetch = |out: Out| out.parse("", "FETCH 3 FROM c").bind_as("", &[], &[1]).execute("", 0);
    let declare = "DECLARE c CURSOR FOR SELECT coalesce(email, $1), id FROM users ORDER BY id";
    let cursor = Out::new().parse("", "BEGIN").bind_as("", &[], &[]).execute("", 0);
    let cursor = cursor.parse("", declare).bind_as("", &[text], &[]).execute("", 0);
    let cursor = fetch(cursor).parse("", "COMMIT").bind_as("", &[], &[]).execute("", 0);
    pair.compare(declare, &cursor.sync());
    for sql in [
        "PREPARE p (text, int4) AS SELECT coalesce(email, $1), coalesce(age, $2), $2 FROM users ORDER BY id",
        "EXECUTE p ('stand in', 4)",
        "EXECUTE p (NULL, NULL)",
        "EXECUTE p ('fails', 'x')",
        "PREPARE q AS SELECT CASE id WHEN 1 THEN email ELSE $1 END FROM users ORDER BY id",
        "EXECUTE q ('it''s')",
    ] {
        pair.compare(sql, &Out::new().query(sql));
    }
}

/// Keys that are parameters, as ORMs bind them.
fn keys(pair: &mut Pair) {
    let text = |text: &'static str| -> Param<'static> { (0, Some(text.as_bytes())) };
    for (a, b) in [("zz", "a key \"\\ é"), ("same", "same"), ("id", "b"), ("", "a")] {
        let two = [text(a), (1, Some(b.as_bytes()))];
        let object = "SELECT jsonb_build_object($1::text, email, $2::varchar, age, 'id', id) FROM users ORDER BY id";
        pair.stands(object, &[], &two);
        let plain =
            "SELECT jsonb_build_object('e', email, $1::text, $2::text, 'n', to_jsonb(doc)) FROM users ORDER BY id";
        pair.stands(plain, &[25, 25], &two);
        let inner =
            "SELECT jsonb_agg(jsonb_build_object($1, jsonb_build_object($2, doc, 'e', email)) ORDER BY id) FROM users";
        pair.stands(inner, &[25, 1043], &two);
        pair.stands("SELECT json_build_object($1::text, email, $2::text, age) FROM users ORDER BY id", &[], &two);
    }
    pair.stands("SELECT jsonb_build_object($1::text, email) FROM users", &[], &[(0, None)]);
    pair.stands("SELECT jsonb_build_object($1, email) FROM users", &[], &[text("a")]);
    for sql in [
        "PREPARE k (text) AS SELECT jsonb_build_object($1, email, 'id', id) FROM users ORDER BY id",
        "EXECUTE k ('the key')",
        "EXECUTE k (5)",
    ] {
        pair.compare(sql, &Out::new().query(sql));
    }
}

fn stand_ins(version: Version) {
    let mut pair = pair(version);
    every_type(&mut pair);
    other_roads(&mut pair);
    keys(&mut pair);
    assert!(!pair.cluster.log().contains("st'and"), "the server was sent a plaintext");
    pair.done(400);
}

#[test]
fn parameters_stand_in_for_sealed_values_on_15() {
    stand_ins(Version::V15);
}

#[test]
fn parameters_stand_in_for_sealed_values_on_18() {
    stand_ins(Version::V18);
}
