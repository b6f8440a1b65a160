//! COPY of sealed rows in binary and in the client's format between proxy and server: the same statements on a table whose
//! plain columns allow the first and on one whose do not, both beside plain twins (T1, T2, T3, T5).
use crate::copy::{context, into, out};
use crate::support::guard::poll;
use crate::support::peer::{Message, Out, Peer, cancel, field, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

const VERSIONS: [Version; 2] = [Version::V15, Version::V18];

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\
    [[database.table]]\nname = \"public.exact\"\ntenant = { column = \"account_id\" }\n[database.table.columns]\n\
    email = { type = \"text\", equality = \"tenant\" }\nage = { type = \"int4\" }\n\
    [[database.table]]\nname = \"public.other\"\ntenant = { column = \"account_id\" }\n[database.table.columns]\n\
    email = { type = \"text\", equality = \"tenant\" }\nage = { type = \"int4\" }\n";

/// Of every type that is read as Postgres reads it.
const EXACT: &str = "id int8 PRIMARY KEY, account_id int8 NOT NULL, s int2 CHECK (s <> 13), i int4 DEFAULT 7, b bool, u uuid, x bytea, \
    t text, v varchar(5), c char(4), twice int8 GENERATED ALWAYS AS (id * 2) STORED, left_out int4 DEFAULT 9";

/// Of others too.
const OTHER: &str = ", m mood, z timestamptz, d date, k interval, n numeric(8,2), f float8, j jsonb, p point, w small, r exact_row, a int4[]";

const COLUMNS: &str = "id, account_id, s, i, b, u, x, t, v, c, email, age";

struct Ways {
    cluster: Cluster,
    tap: Tap,
    _site: Site,
    proxy: Proxy,
    plain: Peer,
    sealed: Peer,
}

fn ways(version: Version) -> Ways {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    for tenant in ["1", "2"] {
        site.run_ok(&["tenant", "register", tenant, "--wrapping", "hierarchical"]);
    }
    let types = "CREATE TYPE mood AS ENUM ('sad', 'so, so', '\"glad\"'); CREATE DOMAIN small AS int4 CHECK (value < 100); \
        CREATE TYPE exact_row AS (a int4, b text); CREATE SCHEMA plain";
    cluster.psql("app", types);
    for (schema, text, int) in [("plain", "text", "int4"), ("public", "rowseal.text", "rowseal.int4")] {
        for (table, more) in [("exact", ""), ("other", OTHER)] {
            let columns = format!("{EXACT}, email {text}, age {int}{more}");
            cluster.psql("app", &format!("CREATE TABLE {schema}.{table} ({columns})"));
        }
    }
    let proxy = site.serve();
    let mut plain = Peer::connect(cluster.host_port(), "app");
    plain.ask("SET search_path = plain, public");
    let sealed = Peer::connect(proxy.address(), "app");
    Ways { cluster, tap, _site: site, proxy, plain, sealed }
}

impl Ways {
    /// The same statement on both.
    fn both(&mut self, sql: &str) {
        for peer in [&mut self.plain, &mut self.sealed] {
            assert!(!peer.ask(sql).contains("E("), "{sql}");
        }
    }

    /// What a COPY FROM of these bytes says and leaves, on both.
    fn copied(&mut self, sql: &str, data: &[u8], piece: usize) -> [(String, String); 2] {
        [&mut self.plain, &mut self.sealed].map(|peer| {
            let told = told(&into(peer, sql, data, piece));
            let table = if sql.contains("other") { "other" } else { "exact" };
            let left = peer.ask(&format!("SELECT {COLUMNS}, twice, left_out FROM {table} ORDER BY id"));
            peer.ask(&format!("TRUNCATE {table}"));
            (told, left.split(") D(").skip(1).collect::<Vec<_>>().join("|"))
        })
    }
}

/// What is said of a COPY: the replies, and of errors and notices where they happened.
fn told(messages: &[Message]) -> String {
    let places: Vec<String> =
        messages.iter().filter(|(tag, _)| matches!(tag, b'E' | b'N')).map(|(_, body)| context(body)).collect();
    format!("{} {places:?}", show(messages))
}

const ROWS: &[&str] = &[
    "(1, 1, 5, DEFAULT, true, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\\x00ff5c', 'tab\there, \"quoted\"', 'a,b', 'x', 'one@example.com', 31)",
    "(2, 2, -32768, 2147483647, false, NULL, '', E'line\\nbreak\\\\', '', 'wide', '', 0)",
    "(3, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "(-5, 1, 0, 0, NULL, NULL, '\\x5c2e', '\\.', 'NULL', '', E'\\\\N', -1)",
];

const MORE: &[&str] = &[
    "'so, so', '2024-02-29 12:34:56.789+02', '0044-03-15 BC', '1 year -2 days 03:00', 1.5, 0.1, '{\"b\": [1.50, null]}', '(1,2.5)', 7, ROW(1, 'x, \"y\"'), '{1,NULL,3}'",
    "'\"glad\"', 'infinity', 'infinity', '-00:00:01', 'NaN', '-Infinity', '\"s\"', NULL, NULL, ROW(NULL, NULL), '{}'",
    "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    "'sad', '1999-12-31 23:59:59Z', '9999-12-31', 'P1M', -999999.99, 1e-300, '[]', '(0,0)', -1, NULL, '{{1,2},{3,4}}'",
];

const OPTIONS: &[&str] = &[
    "",
    "(FORMAT csv, HEADER)",
    "WITH DELIMITER AS '|' NULL AS 'nil'",
    "(FORMAT csv, DELIMITER ';', QUOTE '''', ESCAPE '\\', NULL 'NULL')",
    "(FORMAT text, HEADER)",
    "(FORMAT binary)",
];

#[test]
fn both_ways_give_and_take_what_a_plain_table_does() {
    for version in VERSIONS {
        let mut ways = ways(version);
        for (table, is_other) in [("exact", false), ("other", true)] {
            for (row, more) in ROWS.iter().zip(MORE) {
                let (columns, row) = match is_other {
                    true => (
                        format!("{COLUMNS}, m, z, d, k, n, f, j, p, w, r, a"),
                        format!("{}, {more})", &row[..row.len() - 1]),
                    ),
                    false => (COLUMNS.to_owned(), (*row).to_owned()),
                };
                let sql = format!("INSERT INTO {table} ({columns}) VALUES {row}");
                assert!(ways.plain.ask(&sql).starts_with("C(INSERT 0 1"), "{sql}");
            }
            for (n, options) in OPTIONS.iter().enumerate() {
                let (data, ended) = out(&mut ways.plain, &format!("COPY {table} TO STDOUT {options}"));
                assert!(ended.contains("C(COPY 4"), "{ended}");
                ways.sealed.ask(&format!("TRUNCATE {table}"));
                let before = ways.tap.to_server().len();
                let sent =
                    into(&mut ways.sealed, &format!("COPY {table} FROM STDIN {options}"), &data, [7, 1, 4096][n % 3]);
                assert!(show(&sent).contains("C(COPY 4"), "{options}: {}", show(&sent));
                let is_binary = contains(&ways.tap.to_server()[before..], b"PGCOPY\n");
                assert_eq!(is_binary, !is_other || options.contains("binary"), "{table} {options}");
                for settings in [
                    "SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'sql_standard'; \
                     SET bytea_output = 'escape'; SET extra_float_digits = -5",
                    "SET DateStyle = 'ISO'; SET TimeZone = 'UTC'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'hex'; \
                     SET extra_float_digits = 1",
                ] {
                    ways.both(settings);
                    for source in [
                        table.to_owned(),
                        format!("{table} (email, t, id)"),
                        format!("(SELECT * FROM {table} ORDER BY id)"),
                        format!("(SELECT t, email, count(*) OVER () FROM {table} WHERE account_id = 1 ORDER BY id)"),
                        format!("(SELECT email FROM {table} ORDER BY id LIMIT 2) "),
                    ] {
                        for options in
                            OPTIONS.iter().chain(&["(FORMAT csv, FORCE_QUOTE *)", "(FORMAT csv, FORCE_QUOTE (email))"])
                        {
                            if source.starts_with('(') && options.contains("(email)") {
                                continue;
                            }
                            let sql = format!("COPY {source} TO STDOUT {options}");
                            let (plain, sealed) = (out(&mut ways.plain, &sql), out(&mut ways.sealed, &sql));
                            assert_eq!(
                                sealed.0.escape_ascii().to_string(),
                                plain.0.escape_ascii().to_string(),
                                "{sql}"
                            );
                            assert_eq!(sealed.1, plain.1, "{sql}");
                        }
                    }
                }
            }
        }
    }
}

/// A row of text, and what makes it wrong in place of one of its fields.
fn row(id: usize, wrong: Option<(usize, &str)>) -> Vec<String> {
    let mut fields: Vec<String> = [
        &id.to_string(),
        "1",
        "5",
        "6",
        "t",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "abc",
        "text",
        "v",
        "c",
        "e@x",
        "9",
    ]
    .map(str::to_owned)
    .into();
    if let Some((at, wrong)) = wrong {
        fields[at] = wrong.to_owned();
    }
    fields
}

#[test]
fn a_wrong_row_is_told_alike_wherever_it_is() {
    const COUNT: usize = 700;
    let wrongs: &[(usize, &str)] = &[
        (0, "x"),
        (0, ""),
        (0, "99999999999999999999"),
        (0, "3"),
        (2, "40000"),
        (2, "13"),
        (3, " 12 3"),
        (3, "0x1F"),
        (3, "1_000"),
        (4, "maybe"),
        (5, "a0eebc99"),
        (6, "\\\\xzz"),
        (7, "\\xff"),
        (7, "\\000"),
        (8, "too long"),
        (9, "long!"),
        (11, "9x"),
        (11, "9999999999"),
        (10, "\\xff"),
        (10, "a\tb"),
        (3, "x\n"),
    ];
    for version in VERSIONS {
        let mut ways = ways(version);
        for table in ["exact", "other"] {
            for (n, (column, wrong)) in wrongs.iter().enumerate() {
                let at = [0, COUNT / 2, COUNT - 1][n % 3];
                let mut data = Vec::new();
                for id in 0..COUNT {
                    let wrong = (id == at).then_some((*column, *wrong));
                    data.extend_from_slice(row(id + 10, wrong).join("\t").as_bytes());
                    data.push(b'\n');
                }
                let sql = format!("COPY {table} ({COLUMNS}) FROM STDIN");
                if *wrong == "3" {
                    ways.both(&format!("INSERT INTO {table} (id, account_id) VALUES (3, 1)"));
                }
                let [plain, sealed] = ways.copied(&sql, &data, 5000);
                assert_eq!(sealed, plain, "{version:?} {table} {column} {wrong:?} at {at}");
            }
        }
        // Lines that are no rows: names, line ends within quotes, no last line end.
        for table in ["exact", "other"] {
            for (column, wrong) in [(8, "too long"), (2, "13"), (3, "x"), (11, "x"), (0, "11")] {
                let mut data = "h,e,a,d,e,r,,,,,,\n".to_owned();
                for id in 0..30 {
                    let mut fields = row(id + 10, (id == 20).then_some((column, wrong)));
                    if id % 4 == 0 {
                        fields[7] = "\"two\nlines, or\n\"\"three\"\"\"".to_owned();
                    }
                    data += &(fields.join(",") + if id < 29 { "\n" } else { "" });
                }
                let sql = format!("COPY {table} ({COLUMNS}) FROM STDIN (FORMAT csv, HEADER)");
                let [plain, sealed] = ways.copied(&sql, data.as_bytes(), 11);
                assert_eq!(sealed, plain, "{version:?} {table} {column} {wrong:?}");
            }
        }
    }
}

#[test]
fn what_triggers_say_is_told_of_the_same_line() {
    let mut ways = ways(Version::Any);
    ways.cluster.psql(
        "app",
        "CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN \
         IF new.id = 14 THEN RAISE NOTICE ''fourteen''; END IF; IF new.id = 17 THEN RAISE EXCEPTION ''seventeen''; END IF; \
         RETURN new; END'; CREATE TRIGGER hear BEFORE INSERT ON plain.exact FOR EACH ROW EXECUTE FUNCTION hear(); \
         CREATE TRIGGER hear BEFORE INSERT ON public.exact FOR EACH ROW EXECUTE FUNCTION hear()",
    );
    for header in ["", ", HEADER"] {
        for last in [16, 20] {
            let mut data = if header.is_empty() { String::new() } else { "names\n".to_owned() };
            (10..=last).for_each(|id| data += &(row(id, (id == 12).then_some((7, "\"a\nb\""))).join(",") + "\n"));
            let sql = format!("COPY exact ({COLUMNS}) FROM STDIN (FORMAT csv{header}) WHERE id <> 13");
            let [plain, sealed] = ways.copied(&sql, data.as_bytes(), 100);
            assert_eq!(sealed, plain);
            assert!(plain.0.contains("COPY exact, line"), "{}", plain.0);
        }
    }
}

/// Options that Postgres itself judges, and those that only matter where cells stand among other text.
#[test]
fn options_are_judged_as_by_postgres() {
    for version in VERSIONS {
        let mut ways = ways(version);
        let row = row(10, None).join("\t");
        for options in [
            "(FORMAT csv, FORMAT csv)",
            "(FORMAT text, QUOTE '\"')",
            "(FORMAT text, FORCE_NULL (t))",
            "(NULL E'\\n')",
            "(DELIMITER '.')",
            "(FORMAT csv, DELIMITER '\"')",
            "(FORMAT csv, NULL 'a,b')",
            "(DELIMITER E'\\t', DELIMITER E'\\t')",
            "(FORMAT csv, FORCE_QUOTE (t))",
            "(FREEZE)",
            "(FREEZE false)",
            "(ON_ERROR stop)",
            "(LOG_VERBOSITY default)",
            "(DEFAULT 'D')",
            "(ENCODING 'UTF8')",
        ] {
            let sql = format!("COPY exact ({COLUMNS}) FROM STDIN {options}");
            let [plain, sealed] = ways.copied(&sql, row.as_bytes(), 1000);
            assert_eq!(sealed, plain, "{version:?} {sql}");
        }
        let data = row.replace('\t', "X");
        let [plain, sealed] =
            ways.copied(&format!("COPY exact ({COLUMNS}) FROM STDIN (DELIMITER 'X')"), data.as_bytes(), 3);
        assert_eq!(sealed, plain);
        ways.both(&format!("INSERT INTO exact ({COLUMNS}) VALUES {}", ROWS[0]));
        for options in [
            "(FORMAT csv, HEADER match)",
            "(FREEZE)",
            "(FORMAT csv, FORCE_NULL (t))",
            "(FORMAT csv, DELIMITER 'e', QUOTE 'x', ESCAPE '1')",
            "(DELIMITER 'Z')",
            "(FORMAT csv, QUOTE '\"', QUOTE '\"')",
            "(HEADER, FORMAT binary)",
        ] {
            let sql = format!("COPY exact ({COLUMNS}) TO STDOUT {options}");
            let (plain, sealed) = (out(&mut ways.plain, &sql), out(&mut ways.sealed, &sql));
            assert_eq!(sealed, plain, "{version:?} {sql}");
        }
        // Rows that would be skipped are not: the proxy reads sealed values, the server the others.
        let skipped = show(&into(&mut ways.sealed, "COPY exact (id) FROM STDIN (ON_ERROR ignore)", b"", 1));
        assert_eq!(skipped, "E(ERROR 0A000) Z(I)");
        ways.cluster.psql(
            "app",
            "DROP TABLE exact, plain.exact; CREATE TABLE exact (id int8, account_id int8, email rowseal.text, age rowseal.int4) \
             PARTITION BY LIST (account_id); CREATE TABLE plain.exact (id int8, account_id int8, email text, age int4) \
             PARTITION BY LIST (account_id); CREATE TABLE exact_1 PARTITION OF exact DEFAULT",
        );
        let sql = "COPY exact TO STDOUT";
        assert!(poll_until_known(&mut ways.sealed, sql).starts_with("E(ERROR 42809)"));
        assert_eq!(ways.sealed.ask(sql), ways.plain.ask(sql));
    }
}

/// The proxy learns of DDL of others by and by.
fn poll_until_known(peer: &mut Peer, sql: &str) -> String {
    poll("the table's new form", || Some(peer.ask(sql)).filter(|shown| shown.contains("42809")))
}

/// More than 64 MiB either way while the proxy holds a small part of it.
#[test]
fn large_amounts_stream_in_either_way() {
    const ROWS: usize = 18_000;
    let mut ways = ways(Version::Any);
    let text = "kanari value ".repeat(300);
    for (table, count) in [("exact", ROWS), ("other", ROWS / 8)] {
        let mut data = Vec::new();
        (0..count).for_each(|n| data.extend_from_slice(format!("{n}\t{}\t{text}{n}\n", n % 2 + 1).as_bytes()));
        assert!(count < ROWS || data.len() > 64 << 20);
        let sql = format!("COPY {table} (id, account_id, email) FROM STDIN");
        assert!(show(&into(&mut ways.sealed, &sql, &data, 60_000)).contains(&format!("C(COPY {count}")));
        let (again, ended) = out(&mut ways.sealed, &format!("COPY {table} (id, account_id, email) TO STDOUT"));
        assert!(ended.contains(&format!("C(COPY {count}")) && again == data, "{ended}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", ways.proxy.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "{peak} kB at most");
    assert!(!contains(&ways.tap.to_server(), b"kanari"));
}

#[test]
fn a_copy_that_is_broken_off_leaves_nothing() {
    let mut ways = ways(Version::Any);
    for table in ["exact", "other"] {
        let copy = format!("COPY {table} ({COLUMNS}) FROM STDIN");
        let rows = |ids: std::ops::Range<usize>| ids.map(|id| row(id, None).join("\t") + "\n").collect::<String>();
        // By the client.
        ways.sealed.send(&Out::new().query(&copy).0);
        ways.sealed.until(b'G');
        ways.sealed
            .send(&Out::new().raw(b'd', rows(0..3000).as_bytes()).raw(b'd', b"half a r").raw(b'f', b"no more\0").0);
        assert!(show(&ways.sealed.until(b'Z')).ends_with("E(ERROR 57014) Z(I)"));
        // By a cancel request, in the midst of rows.
        ways.sealed.send(&Out::new().query(&copy).0);
        ways.sealed.until(b'G');
        ways.sealed.send(&Out::new().raw(b'd', rows(0..3000).as_bytes()).raw(b'd', b"half a r").0);
        let mut canceller = Peer::bare(ways.proxy.address());
        canceller.send(&cancel(&ways.sealed.key));
        assert!(canceller.rest().is_empty());
        let told = ways.sealed.until(b'E');
        assert_eq!(field(&told.last().unwrap().1, b'C'), "57014");
        ways.sealed.send(&Out::new().raw(b'd', rows(0..10).as_bytes()).raw(b'c', b"").0);
        ways.sealed.until(b'Z');
        assert_eq!(ways.cluster.psql("app", &format!("SELECT count(*) FROM {table}")).trim(), "0");
        // While rows come.
        assert!(show(&into(&mut ways.sealed, &copy, rows(0..20_000).as_bytes(), 8000)).contains("C(COPY 20000"));
        ways.sealed.send(&Out::new().query(&format!("COPY {table} TO STDOUT")).0);
        ways.sealed.until(b'd');
        let mut canceller = Peer::bare(ways.proxy.address());
        canceller.send(&cancel(&ways.sealed.key));
        assert!(canceller.rest().is_empty());
        assert!(show(&ways.sealed.until(b'Z')).ends_with("E(ERROR 57014) Z(I)"));
        assert!(ways.sealed.ask(&format!("SELECT count(email) FROM {table}")).contains("20000"));
    }
}

/// Four bytes are an int4 and a float4: rows in binary are for columns of the types that they were written for. The type
/// may change while the COPY waits for the table, or in the text that the COPY stands in.
#[test]
fn a_column_that_becomes_of_another_type_takes_no_bytes_of_the_first() {
    for version in VERSIONS {
        let mut ways = ways(version);
        let sql = "COPY exact (id, account_id, i, email) FROM STDIN";
        let mut other = Peer::connect(ways.cluster.host_port(), "app");
        other.ask("BEGIN");
        other.ask("ALTER TABLE public.exact ALTER i TYPE float4");
        ways.sealed.send(&Out::new().query(sql).0);
        poll("the COPY to wait for the table", || {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            (ways.cluster.psql("app", waiting).trim() == "1").then_some(())
        });
        other.ask("COMMIT");
        let refused = show(&ways.sealed.until_ready(1));
        assert_eq!(refused, "E(ERROR 42883) Z(I)", "{version:?}");
        assert_eq!(ways.cluster.psql("app", "SELECT count(*) FROM public.exact").trim(), "0");
        for (id, ty) in [(1, "int4"), (2, "float4"), (3, "int4")] {
            let text = format!("ALTER TABLE exact ALTER i TYPE {ty}; {sql}");
            ways.sealed.send(&Out::new().query(&text).0);
            ways.sealed.until(b'G');
            let row = format!("{id}\t1\t7\te@x\n");
            ways.sealed.send(&Out::new().raw(b'd', row.as_bytes()).raw(b'c', b"").0);
            let told = show(&ways.sealed.until_ready(1));
            assert!(told.contains("C(COPY 1"), "{version:?} {ty}: {told}");
        }
        ways.cluster.psql("app", "CREATE ROLE adds LOGIN; GRANT INSERT ON public.exact TO adds");
        ways.sealed.ask("SET ROLE adds");
        let told = show(&into(&mut ways.sealed, &format!("{sql} WHERE id > 4"), b"4\t1\t7\te@x\n5\t1\t7\te@x\n", 100));
        assert!(told.contains("C(COPY 1") || told.contains("42501"), "{version:?}: {told}");
        let told = show(&into(&mut ways.sealed, sql, b"6\t1\t7\te@x\n", 100));
        assert!(told.contains("C(COPY 1"), "a role that may only insert, {version:?}: {told}");
        ways.sealed.ask("RESET ROLE");
        let rows = ways.cluster.psql("app", "SELECT DISTINCT i FROM public.exact");
        assert_eq!(rows.trim(), "7", "{version:?}");
    }
}
