//! The ways in which a statement is run: by either protocol, with its results in text or binary, with parameters of the
//! types that the plain server finds for them, and with parameters in place of its literals.

/// Values for a parameter of a type: one that stands in the rows, and one that does not. Those for sealed columns are told
/// from all others wherever they turn up.
pub fn values(oid: u32, is_sealed: bool) -> Option<[&'static str; 2]> {
    Some(match (oid, is_sealed) {
        (25 | 1043, true) => ["SECRET", "SECRET-x"],
        (25 | 1043, false) => ["7", "8"],
        (23 | 21, true) => ["5", "1731845099"],
        (23 | 21, false) => ["1", "99"],
        (20, _) => ["7", "1"],
        (1700, true) => ["1.50", "918273645546372819.25"],
        (1700, false) => ["5.5", "0"],
        (16, _) => ["true", "false"],
        (1082, true) => ["2020-01-01", "1903-11-27"],
        (1082, false) => ["2020-01-01", "1970-01-01"],
        (1184 | 1114, true) => ["2020-01-01 00:00:00+00", "1903-11-27 01:02:03+00"],
        (1184 | 1114, false) => ["2020-01-01 00:00:00+00", "1970-01-01 00:00:00+00"],
        (2950, _) => ["00000000-0000-0000-0000-000000000001", "5f0c9d7e-3b1a-4c2d-8e9f-0a1b2c3d4e5f"],
        (114 | 3802, true) => [r#"{"a": "SECRET"}"#, r#"[{"id": 1, "email": "SECRET"}]"#],
        (114 | 3802, false) => [r#"{"a": 1}"#, "[]"],
        (701, _) => ["1.5", "7"],
        (1009 | 1015, true) => ["{SECRET,a}", "{NULL,SECRET-x}"],
        (1009 | 1015, false) => ["{7,8}", "{1,2}"],
        (1007, true) => ["{5,41}", "{1731845099,NULL}"],
        (1007, false) => ["{1,2}", "{91,92}"],
        (1016, _) => ["{7,1}", "{8,8}"],
        (1231, _) => ["{1.50,5}", "{NULL}"],
        (1000, _) => ["{true,false}", "{NULL}"],
        (1182, _) => ["{2020-01-01,1970-01-01}", "{NULL}"],
        (1185, _) => ["{2020-01-01 00:00:00+00,NULL}", "{}"],
        (2951, _) => ["{00000000-0000-0000-0000-000000000001,NULL}", "{}"],
        _ => return None,
    })
}

/// The statement with a parameter in place of each literal, and what the literals say. `None` where it has none, or where
/// what stands in it cannot be told by so simple a reader.
pub fn parametrized(sql: &str) -> Option<(String, Vec<String>)> {
    let first = sql.split_whitespace().next()?.to_ascii_lowercase();
    if !["select", "insert", "update", "delete", "with", "merge", "(select", "values"].contains(&&*first)
        || sql.contains(';')
    {
        return None;
    }
    let (mut out, mut literals, mut rest) = (String::new(), Vec::new(), sql);
    while let Some(c) = rest.chars().next() {
        let before = out.chars().last().unwrap_or(' ');
        let in_word = before.is_alphanumeric() || "_\".&".contains(before);
        let taken = match c {
            '\'' if in_word => return None,
            '\'' => {
                let length = quoted(rest)?;
                literals.push(rest[1..length - 1].replace("''", "'"));
                out += &format!("${}", literals.len());
                length
            }
            '0'..='9' if !in_word => {
                let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
                if rest[length..].starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                    return None;
                }
                literals.push(rest[..length].to_owned());
                out += &format!("${}", literals.len());
                length
            }
            '$' => return None,
            '-' if rest.starts_with("--") => return None,
            '/' if rest.starts_with("/*") => return None,
            '"' => {
                let length = rest[1..].find('"')? + 2;
                out += &rest[..length];
                length
            }
            _ => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    (!literals.is_empty()).then_some((out, literals))
}

/// How long the string is that a text starts with.
fn quoted(text: &str) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find('\'')? + 1;
        if !text[at..].starts_with('\'') {
            return Some(at);
        }
        at += 1;
    }
}

#[test]
fn literals_become_parameters() {
    let of = |sql| parametrized(sql).unwrap();
    assert_eq!(
        of("SELECT t1.a FROM t1 WHERE \"x'1\" = 'it''s' AND b IN (1.5, 20)"),
        (
            "SELECT t1.a FROM t1 WHERE \"x'1\" = $1 AND b IN ($2, $3)".into(),
            vec!["it's".into(), "1.5".into(), "20".into()]
        )
    );
    for sql in ["SELECT a FROM t", "SELECT E'x'", "SELECT $1, 2", "SELECT 1 -- 'x", "DROP TABLE t1", "SELECT 1e5"] {
        assert_eq!(parametrized(sql), None, "{sql}");
    }
}
