//! psql as a client: the same script on the plain table directly and on its sealed twin through the proxy. What psql
//! prints must be equal: rows, tags, prompts of errors with their SQLSTATE, and where it points in the text (T1, T5).
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::postgres::Version;
use crate::twin::{STATEMENTS, TYPES, Tables, quote, tables};

/// Before each case, so that its output can be found.
const MARK: &str = "===== case ";

/// Runs a script in one psql; gives both output streams, in order.
fn psql(tables: &Tables, address: SocketAddr, path: &str, verbosity: &str, cases: &[String]) -> Vec<String> {
    let mut script = format!("SET search_path = {path};\n\\set VERBOSITY {verbosity}\n\\set SHOW_CONTEXT always\n");
    for (n, case) in cases.iter().enumerate() {
        script += &format!("\\echo '{MARK}{n}'\n{case}\n");
    }
    let conninfo = format!("host={} port={} user=postgres dbname=app", address.ip(), address.port());
    // One stream for both, so that an error stands where it happened.
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .arg(tables.cluster.bin_dir().join("psql"))
        .args(["-X", "-A", "-t", "-f", "-", "-d", &conninfo])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = std::thread::spawn(move || stdin.write_all(script.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    text.split(MARK).skip(1).map(str::to_owned).collect()
}

/// Statements on each type.
fn typed() -> Vec<String> {
    let mut cases = Vec::new();
    for (at, (column, _, values, bad)) in TYPES.iter().enumerate() {
        for (n, value) in values.iter().enumerate() {
            let (id, q) = (1000 + 100 * at + n, quote(value));
            cases.push(format!(
                "INSERT INTO t (id, account_id, {column}) VALUES ({id}, 1, {q}) RETURNING id, {column};"
            ));
            cases.push(format!(
                "SELECT {column}, id, {column} AS again FROM t WHERE account_id = 1 AND {column} = {q} ORDER BY id;"
            ));
            cases.push(format!("UPDATE t SET {column} = {q}, note = 'u' WHERE id = {id} RETURNING {column}, note;"));
        }
        if let Some(bad) = bad {
            cases.push(format!("INSERT INTO t (id, account_id, {column}) VALUES (1, 1, {});", quote(bad)));
        }
        cases.push(format!("SELECT count({column}) FROM t WHERE account_id = 1 AND {column} IS NOT NULL;"));
    }
    cases
}

/// What psql has of its own: transactions, savepoints, prepared statements by \bind, expanded output, \gdesc, \gset.
fn special() -> Vec<String> {
    [
        "BEGIN; INSERT INTO t (id, account_id, c_text) VALUES (50, 1, 'in a block'); SELECT c_text FROM t WHERE id = 50; ROLLBACK; SELECT count(*) FROM t WHERE id = 50;",
        "BEGIN; SAVEPOINT s; INSERT INTO t (id, account_id, c_int4) VALUES (51, 1, 'x'); ROLLBACK TO s; INSERT INTO t (id, account_id, c_int4) VALUES (51, 1, '51'); COMMIT; SELECT c_int4 FROM t WHERE id = 51;",
        "BEGIN; SELECT 1/0; SELECT c_text FROM t; ROLLBACK;",
        "\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT nothing FROM t;\nSELECT c_int4 FROM t WHERE id = 51;\nCOMMIT;\n\\set ON_ERROR_ROLLBACK off",
        "\\set AUTOCOMMIT off\nUPDATE t SET c_text = 'not yet' WHERE id = 51;\nSELECT c_text FROM t WHERE id = 51;\nROLLBACK;\nSELECT c_text FROM t WHERE id = 51;\nCOMMIT;\n\\set AUTOCOMMIT on",
        "SELECT id, c_text, c_int4, c_numeric FROM t WHERE id = 51 \\gdesc",
        "SELECT c_int4 AS held FROM t WHERE id = 51 \\gset\n\\echo :held\nSELECT c_int4 FROM t WHERE account_id = 1 AND c_int4 = :'held' AND id = 51;",
        "\\x\nSELECT * FROM t WHERE id = 51;\n\\x",
        "\\pset null '(null)'\nSELECT c_text, c_int4, c_date FROM t WHERE id = 51;\n\\pset null ''",
        "\\t off\nSELECT id, c_int4 AS \"a name\" FROM t WHERE id = 51;\n\\t on",
        "\\set FETCH_COUNT 0\nSELECT id FROM t WHERE id < 100 ORDER BY id;",
        "SELECT id, c_text FROM t WHERE false;",
        "INSERT INTO t (id, account_id, c_text) VALUES (52, 1, 'multi\nline\ttext'), (53, 1, ''), (54, 1, NULL) RETURNING id, c_text;",
        "SELECT id, c_text, c_text IS NULL FROM t WHERE id IN (52, 53, 54) ORDER BY id;",
        "DELETE FROM t WHERE id IN (52, 53, 54) RETURNING c_text, id;",
        "SELECT c_text FROM t WHERE id = 51; SELECT 1/0; SELECT 'after';",
        "SELECT c_text FROM t WHERE id = 51\\; SELECT 1/0\\; SELECT 'after';",
        "SELECT nothing FROM t;\n\\errverbose",
        "SELECT c_text, nothing FROM t WHERE id = 51;",
        "INSERT INTO t (id, account_id, c_text, nothing) VALUES (55, 1, 'é', 2);",
        "INSERT INTO t (id, account_id, c_text) VALUES (51, 1, 'twice');",
        "INSERT INTO t (id, account_id, c_text) VALUES (56, NULL, NULL);",
        "UPDATE t SET c_int4 = 7 WHERE id = 'seven';",
        "SET DateStyle = 'German'; SELECT c_date, c_timestamptz FROM t WHERE c_date IS NOT NULL ORDER BY id; RESET DateStyle;",
        "SET TimeZone = 'Asia/Kolkata'; SELECT c_timestamptz FROM t WHERE c_timestamptz IS NOT NULL ORDER BY id; RESET TimeZone;",
        "SET bytea_output = 'escape'; SELECT c_bytea FROM t WHERE c_bytea IS NOT NULL ORDER BY id; RESET bytea_output;",
        "SET standard_conforming_strings = on; SELECT c_text FROM t WHERE account_id = 1 AND c_text = 'Zoë ☃ ''quoted'' \\ back' ORDER BY id;",
        "EXPLAIN (COSTS OFF) SELECT id FROM t WHERE id = 51;",
        "TRUNCATE t; SELECT count(c_text) FROM t;",
    ]
    .map(str::to_owned)
    .into()
}

/// The name of psql's own `\errverbose` fields that name a place in the server's source.
fn comparable(output: &str) -> String {
    output.lines().filter(|line| !line.starts_with("LOCATION:")).collect::<Vec<_>>().join("\n")
}

fn check(version: Version) {
    let tables = tables(version, "direct");
    let mut cases: Vec<String> = STATEMENTS.iter().map(|sql| format!("{sql};")).collect();
    cases.extend(typed());
    cases.extend(special());
    assert!(cases.len() >= 120, "only {} cases", cases.len());
    for verbosity in ["sqlstate", "default"] {
        let plain = psql(&tables, tables.cluster.host_port(), "plain", verbosity, &cases);
        let sealed = psql(&tables, tables.proxy.address(), "public", verbosity, &cases);
        assert_eq!((plain.len(), sealed.len()), (cases.len(), cases.len()));
        let different: Vec<String> = (0..cases.len())
            .filter(|n| !same(verbosity, &comparable(&plain[*n]), &comparable(&sealed[*n])))
            .map(|n| format!("{}\n  plain:  {}\n  sealed: {}", cases[n], plain[n], sealed[n]))
            .collect();
        let all = different.join("\n");
        assert!(different.is_empty(), "{verbosity}: {} of {} differ\n{all}", different.len(), cases.len());
        assert!(plain.iter().filter(|output| output.contains("ERROR:")).count() > 20);
    }
    assert_eq!(tables.cluster.psql("app", "SELECT count(*) FROM public.t"), "0");
}

/// With messages: a bad value of a sealed column is told in other words, for the value itself is not repeated, and no
/// line is pointed at. All else is equal.
fn same(verbosity: &str, plain: &str, sealed: &str) -> bool {
    plain == sealed || (verbosity == "default" && without_messages(plain) == without_messages(sealed))
}

fn without_messages(output: &str) -> Vec<&str> {
    let told =
        ["invalid input syntax", "value too long", "out of range", "numeric field overflow", "invalid hexadecimal"];
    let mut lines = Vec::new();
    let mut told_now = false;
    for line in output.lines() {
        let error = line.contains("ERROR:  ");
        told_now = if error { told.iter().any(|text| line.contains(text)) } else { told_now && is_detail(line) };
        if !told_now {
            lines.push(line);
        }
    }
    lines
}

fn is_detail(line: &str) -> bool {
    ["LINE ", "DETAIL:", "HINT:", "CONTEXT:", " "].iter().any(|start| line.starts_with(start))
}

#[test]
fn psql_agrees_on_postgres_15() {
    check(Version::V15);
}

#[test]
fn psql_agrees_on_postgres_18() {
    check(Version::V18);
}

/// What a plain twin cannot show: psql's own words for what the proxy refuses.
#[test]
fn psql_shows_refusals_as_errors_of_the_server() {
    let tables = tables(Version::V15, "direct");
    let cases = [
        "SELECT id FROM t WHERE c_text LIKE 'a%';",
        "SELECT 'still here';",
        "SELECT c_text FROM t WHERE AND 'secret-1';",
    ]
    .map(str::to_owned);
    let shown = psql(&tables, tables.proxy.address(), "public", "default", &cases);
    let lines: Vec<&str> = shown[0].lines().skip(1).collect();
    assert!(lines[0].contains("ERROR:  ") && lines[0].contains("public.t.c_text"), "{lines:?}");
    assert!(lines[1].starts_with("HINT:  ") && lines.len() == 2, "{lines:?}");
    assert!(shown[1].contains("still here"));
    // What cannot be read is refused, not forwarded for the server to judge.
    assert!(
        shown[2].contains("ERROR:  ") && shown[2].contains("DETAIL:  ") && !shown[2].contains("secret-1"),
        "{}",
        shown[2]
    );
    assert!(!tables.cluster.log().contains("secret-1"));
}
