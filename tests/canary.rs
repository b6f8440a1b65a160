//! The canary test: unique plaintexts through every road, and none of them may show up anywhere but at the client
//! (A3, T5, T6). If only one test could stay, it would be this one.
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_postgres::SimpleQueryMessage;

use crate::strict_kms;
use crate::support::peer::{Out, Peer, field};
use crate::support::postgres::{Cluster, Version, connect_at};
use crate::support::proxy::{Proxy, Site};
use crate::support::raw::Text;

const POLICY: &str = "[admin]\nconsole = [\"postgres\"]\n\n[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.users\"\ntenant = { column = \"account_id\" }\n\n\
    [database.table.columns]\nemail = { type = \"text\", equality = \"tenant\" }\nssn = { type = \"text\" }\n\
    age = { type = \"int4\" }\n";

/// Every canary begins so.
const MARK: &str = "canary7f3";

fn start(environment: &[(&str, &str)]) -> (Cluster, Site, Proxy) {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let mut site = Site::new(&cluster, POLICY);
    site.set_environment(environment.iter().copied());
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    cluster.psql(
        "app",
        "CREATE TABLE users (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, ssn rowseal.text, \
         age rowseal.int4, note text CHECK (note <> 'bad'))",
    );
    cluster.psql("app", "CREATE UNIQUE INDEX one ON users (account_id, rowseal.eq(email))");
    cluster.psql("app", "CREATE FUNCTION made() RETURNS SETOF users LANGUAGE sql AS 'SELECT * FROM users'");
    let proxy = site.serve();
    (cluster, site, proxy)
}

/// Roads that carry a canary and may succeed or be refused, but must not leak.
fn roads() -> Vec<String> {
    let mut roads: Vec<String> = [
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}')",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, $q${c}$q$)",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, E'{c}')",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, U&'{c}')",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 99, '{c}')",
        "INSERT INTO users (id, account_id, email, note) VALUES ({n}, 1, '{c}', 'bad')",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, upper('{c}'))",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}' || 'x')",
        "INSERT INTO users (id, account_id, email) SELECT {n}, 1, '{c}'",
        "INSERT INTO users (id, account_id, age) VALUES ({n}, 1, '{c}')",
        "INSERT INTO users VALUES ({n}, 1, '{c}', '{c}', 5, 'n')",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}') ON CONFLICT (id) DO UPDATE SET email = '{c}'",
        "INSERT INTO public.\"users\" (id, account_id, \"email\") VALUES ({n}, 1, '{c}')",
        "INSERT INTO public . users (id, account_id, email) VALUES ({n}, 1, '{c}')",
        "INSERT INTO U&\"\\0075sers\" (id, account_id, email) VALUES ({n}, 1, '{c}')",
        "UPDATE users SET email = '{c}' WHERE id = 1",
        "UPDATE users SET email = '{c}' WHERE account_id = 1",
        "UPDATE users SET (email, ssn) = ('{c}', '{c}') WHERE id = 1",
        "UPDATE users SET email = lower('{c}')",
        "SELECT id FROM users WHERE account_id = 1 AND email = '{c}'",
        "SELECT id FROM users WHERE email = '{c}'",
        "SELECT id FROM users WHERE ssn = '{c}'",
        "SELECT id FROM users WHERE email LIKE '{c}%'",
        "SELECT id FROM users WHERE email IN ('{c}', 'x')",
        "SELECT id FROM users WHERE CASE email WHEN '{c}' THEN true END",
        "SELECT * FROM users WHERE (email, ssn) = ('{c}', '{c}')",
        "DELETE FROM users WHERE email = '{c}' AND account_id = 1 AND id = 77",
        "WITH x AS (INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}') RETURNING id) SELECT * FROM x",
        "PREPARE p{n} AS INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}')",
        "EXPLAIN INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}')",
        "MERGE INTO users USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT (id, account_id, email) VALUES ({n}, 1, '{c}')",
        "DECLARE c{n} CURSOR FOR SELECT * FROM users WHERE email = '{c}'",
        "CREATE TABLE copy{n} AS SELECT '{c}' AS email FROM users",
        "CREATE TABLE IF NOT EXISTS users (id int8, email text DEFAULT '{c}')",
        "CREATE TABLE IF NOT EXISTS users (id int8, email text CHECK (email <> '{c}'))",
        "ALTER TABLE users ALTER COLUMN email SET DEFAULT '{c}'",
        "ALTER TABLE users ADD CONSTRAINT c{n} CHECK (email <> '{c}')",
        "ALTER TABLE users ADD COLUMN IF NOT EXISTS ssn text DEFAULT '{c}' NOT NULL",
        "ALTER TABLE users ALTER COLUMN email TYPE text USING '{c}'",
        "CREATE INDEX ON users (id) WHERE email = '{c}'",
        "CREATE INDEX ON users ((email || '{c}'))",
        "CREATE POLICY p{n} ON users USING (email = '{c}')",
        "DO $$ BEGIN INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}'); END $$",
        "SELECT 1; INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}')",
        "INSERT INTO users (id, account_id, emial) VALUES ({n}, 1, '{c}')",
        "UPDATE users SET emial = '{c}' WHERE id = 1",
        "SELECT id FROM users u WHERE u.emial = '{c}'",
        "SELECT id FROM users WHERE account_id = 1 AND email = \"{c}\"",
        "COPY users (id, account_id) FROM STDIN WHERE emial = '{c}'",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}') RETURNING users, to_json(users), ARRAY[email]",
        "SELECT json_agg(u), array_agg(email) FROM users u WHERE account_id = 1 AND email = '{c}'",
        "SELECT json_build_object('e', coalesce(email, '{c}')) FROM users",
        "SELECT coalesce(json_agg(email), '[\"{c}\"]') FROM users",
        "SELECT ARRAY[email, '{c}'], array_append(array_agg(email), '{c}') FROM users",
        "SELECT id FROM users u WHERE to_jsonb(u) @> '{\"email\": \"{c}\"}'",
        "SELECT id FROM users WHERE ROW(account_id, email) = ROW(1, '{c}')",
        "SELECT id FROM users WHERE '{c}' = ANY (ARRAY(SELECT email FROM users))",
        "SELECT id FROM users u WHERE u::text LIKE '%{c}%'",
        "INSERT INTO users (id, account_id, email) SELECT * FROM unnest(ARRAY[{n}], ARRAY[1], ARRAY['{c}'])",
        "INSERT INTO users (id, account_id, email) SELECT * FROM unnest('{{n}}'::int8[], '{1}'::int8[], '{\"{c}\"}'::text[])",
        "INSERT INTO users (id, account_id, email, ssn) SELECT {n} + id, 1, '{c}', ssn FROM users WHERE account_id = 1 AND email = '{c}'",
        "WITH w AS (SELECT 1) INSERT INTO users (id, account_id, email) SELECT {n}, 1, '{c}' FROM w",
        "INSERT INTO users (id, account_id, email, age) SELECT p0::int8, p1::int8, p2::varchar, p3::int4 FROM (VALUES ('{n}', '1', '{c}', NULL, 0)) \
         AS v (p0, p1, p2, p3, k) ORDER BY k RETURNING id, email",
        "INSERT INTO users (id, account_id, age) SELECT i, 1, g::int4 FROM (VALUES ({n}, '{c}')) AS v (i, g)",
        "INSERT INTO users (id, account_id, email) SELECT i, 1, e FROM (VALUES ({n}, '{c}')) AS v (i, e) WHERE e > ''",
        "UPDATE users u SET email = v.e FROM (VALUES (1, 1, '{c}')) AS v (i, a, e) WHERE u.id = v.i AND u.account_id = v.a",
        "MERGE INTO users u USING (VALUES ({n}, 1, '{c}')) AS s (id, account_id, email) ON u.id = s.id AND u.account_id = s.account_id \
         WHEN NOT MATCHED THEN INSERT (id, account_id, email) VALUES (s.id, s.account_id, s.email)",
        "UPDATE users SET email = CAST('{c}' AS text) WHERE id = 1 AND account_id = 1",
        "SELECT u.id FROM users u FULL JOIN users v USING (email) WHERE u.account_id = 1 AND email = '{c}'",
        "(TABLE users) UNION SELECT 1, 1, '{c}', '{c}', 5, 'n'",
        "INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}') ON CONFLICT ON CONSTRAINT one DO UPDATE SET email = '{c}'",
        "SELECT id FROM made() WHERE account_id = 1 AND email = '{c}'",
        "this is not SQL about users '{c}'",
        "COPY (SELECT '{c}' || email FROM users) TO STDOUT",
        "BEGIN; SET search_path = public; INSERT INTO users (id, account_id, email) VALUES ({n}, 1, '{c}'); COMMIT",
    ]
    .map(str::to_owned)
    .into();
    for (n, road) in roads.iter_mut().enumerate() {
        *road = road.replace("{n}", &(1000 + n).to_string()).replace("{c}", &format!("{MARK}-{n}-"));
    }
    roads
}

fn assert_clean(place: &str, bytes: &[u8]) {
    let hex: String = MARK.bytes().map(|b| format!("{b:02x}")).collect();
    for needle in [MARK.as_bytes(), hex.as_bytes()] {
        assert_without(place, bytes, needle);
    }
}

fn assert_without(place: &str, bytes: &[u8], needle: &[u8]) {
    if let Some(at) = memchr::memmem::find(bytes, needle) {
        let context = String::from_utf8_lossy(&bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())]).into_owned();
        panic!("a plaintext leaked into {place}: {context}");
    }
}

/// Calls `look` with the name and bytes of every file.
fn each_file(place: &str, dir: &Path, look: &dyn Fn(&str, &[u8])) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_file(place, &path, look);
        } else {
            look(&format!("{place}: {}", path.display()), &fs::read(&path).unwrap_or_default());
        }
    }
}

#[test]
fn no_plaintext_leaves_but_to_the_client() {
    walk(&start(&[]));
}

/// The same with AWS KMS, whose client logs what it sends and gets if it is let. Neither values nor keys may show.
#[test]
fn no_plaintext_and_no_key_leaves_with_aws_kms() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for wrapping in ["direct", "hierarchical"] {
        let (address, kms) = runtime.block_on(strict_kms::start("127.0.0.1:0".parse().unwrap(), None)).unwrap();
        let endpoint = format!("http://{address}");
        let mut environment = strict_kms::ENVIRONMENT.to_vec();
        environment.extend([
            ("ROWSEAL_KEYS_PROVIDER", "aws"),
            ("ROWSEAL_KEYS_AWS_ENDPOINT", &*endpoint),
            ("ROWSEAL_KEYS_WRAPPING", wrapping),
            ("LOG_SENSITIVE_BODIES", "true"),
            ("RUST_LOG", "trace"),
        ]);
        let all = start(&environment);
        let shown = walk(&all);
        let keys = kms.seen_in_clear();
        assert!(keys.len() > 5, "{wrapping}: {}", keys.len());
        let (cluster, site, proxy) = &all;
        let log = kms.log().iter().map(ToString::to_string).collect::<String>();
        assert_clean("the key service's log", log.as_bytes());
        for key in keys.iter().flat_map(|key| forms(key)) {
            let look = |place: &str, bytes: &[u8]| assert_without(place, bytes, &key);
            look("the console", shown.as_bytes());
            look("the proxy's log", proxy.log().as_bytes());
            look("the server's log", cluster.log().as_bytes());
            each_file("the proxy's files", site.path(), &look);
        }
    }
}

/// A key as it might be written: base64, hexadecimal, a list of numbers, itself.
fn forms(key: &str) -> Vec<Vec<u8>> {
    let bytes = STANDARD.decode(key).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let list = format!("{bytes:?}");
    let list = list.trim_matches(['[', ']']).to_owned();
    vec![key.trim_end_matches('=').into(), hex.clone().into(), hex.to_uppercase().into(), list.into(), bytes]
}

/// COPY that works, is refused or fails, with rows that are sent ahead and rows that are waited for.
fn copied(peer: &mut Peer) {
    let statements = [
        ("", "500\t1\t{c}\t{c}\n501\t1\t{c}-2\t\\N\n"),
        ("(FORMAT csv, HEADER)", "{c},{c},{c},{c}\n502,1,\"{c}-3\",{c}\n"),
        ("CSV", "503,1,\"{c}\n"),
        ("", "504\t1\t{c}\n"),
        ("", "505\t99\t{c}\t{c}\n"),
        ("", "500\t1\t{c}-4\t{c}\n"),
        ("(FORMAT binary)", "{c}"),
        ("(ON_ERROR ignore)", "506\t1\t{c}\t{c}\n"),
        ("WHERE ssn <> '{c}'", "506\t1\t{c}\t{c}\n"),
    ];
    for (n, (options, rows)) in statements.iter().enumerate() {
        let mark = format!("{MARK}-copy{n}");
        let [options, rows] = [options, rows].map(|text| text.replace("{c}", &mark));
        let sql = format!("COPY users (id, account_id, email, ssn) FROM STDIN {options}");
        let data = rows.as_bytes().chunks(5).fold(Out::new(), |out, part| out.raw(b'd', part)).raw(b'c', b"").0;
        for ahead in [true, false] {
            peer.send(&Out::new().query(&sql).0);
            let begun = if ahead { b'G' } else { peer.receive().unwrap().0 };
            if ahead || begun == b'G' {
                peer.send(&data);
            }
            for (tag, body) in peer.until(b'Z') {
                assert_clean(&format!("message {} of {sql}", char::from(tag)), &body);
            }
        }
    }
}

/// The values of the rows.
fn texts(messages: &[SimpleQueryMessage]) -> String {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.flat_map(|row| (0..row.len()).map(|at| row.get(at).unwrap_or_default())).collect::<Vec<_>>().join("|")
}

/// All that the console shows and does, by both protocols; gives what it said.
async fn console(proxy: &Proxy) -> String {
    let client = connect_at(proxy.address(), "rowseal").await;
    let shown = std::cell::RefCell::new(String::new());
    let ask = async |sql: &str| {
        let simple = client.simple_query(sql).await.map(|messages| texts(&messages));
        let extended = client.query(sql, &[]).await.map(|rows| {
            let text = |row: &tokio_postgres::Row, at| row.try_get::<_, String>(at).unwrap_or_default();
            rows.iter().flat_map(|row| (0..row.len()).map(move |at| text(row, at))).collect::<Vec<_>>().join("|")
        });
        *shown.borrow_mut() += &format!("{sql}: {simple:?} {extended:?}\n");
        simple
    };
    let help = client.query("SHOW HELP", &[]).await.unwrap();
    let shows: Vec<String> =
        help.iter().map(|row| row.get::<_, String>(0)).filter(|show| show.starts_with("SHOW")).collect();
    assert!(shows.len() > 10, "{shows:?}");
    for act in
        ["REGISTER TENANT '2'", "RELOAD", "ROTATE KEY '1'", "DEACTIVATE KEY '2' REASON 'left'", "REACTIVATE KEY '2'"]
    {
        ask(act).await.unwrap();
        for show in &shows {
            ask(show).await.unwrap();
        }
    }
    while !ask("SHOW ROTATIONS").await.unwrap().contains("|done|") {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let shown_before = shown.take();
    assert_clean("the console", shown_before.as_bytes());
    for road in roads() {
        ask(&road).await.unwrap_err();
    }
    // The statements are ours; what is said of them is not.
    let errors = roads().iter().fold(shown.take(), |errors, road| errors.replace(&format!("{road}: "), ""));
    assert_clean("an error of the console", errors.as_bytes());
    shown_before + &errors
}

fn walk((cluster, site, proxy): &(Cluster, Site, Proxy)) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = connect_at(proxy.address(), "app").await;
        for road in roads() {
            // Refused or done; an error must be the server's or a refusal, and must not quote the canary.
            for outcome in [client.simple_query(&road).await.err(), client.query(&road, &[]).await.err()] {
                let Some(error) = outcome else { continue };
                let shown = error.as_db_error().unwrap_or_else(|| panic!("{road}: connection broken: {error:?}"));
                assert_clean("an error", format!("{shown:?}").as_bytes());
                let _ = client.simple_query("ROLLBACK").await;
            }
        }
        let sql = "INSERT INTO users (id, account_id, email, ssn) VALUES ($1, $2, $3, $4) RETURNING email, ssn";
        let statement = client.prepare(sql).await.unwrap();
        let param = |text: &str| Text(Some(text.to_owned()));
        let (id, tenant, email, ssn) =
            (param("1"), param("1"), param(&format!("{MARK}-p")), param(&format!("{MARK}-q")));
        let row = client.query_one(&statement, &[&id, &tenant, &email, &ssn]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), format!("{MARK}-p"));
        let again = client.query(&statement, &[&param("2"), &tenant, &email, &ssn]).await.unwrap_err();
        let again = again.as_db_error().unwrap();
        assert_eq!(again.code().code(), "23505");
        assert_clean("a unique violation", format!("{again:?}").as_bytes());
        let row =
            client.query_one("SELECT email FROM users WHERE account_id = 1 AND email = $1", &[&email]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), format!("{MARK}-p"));
    });
    copied(&mut Peer::connect(proxy.address(), "app"));
    let shown = runtime.block_on(console(proxy));
    let stored = cluster.psql("app", "SELECT email FROM users");
    assert!(stored.contains("\\xc15253"), "no cell was stored: {stored}");
    assert_clean("the server's log", cluster.log().as_bytes());
    assert_clean("the proxy's log", proxy.log().as_bytes());
    each_file("the proxy's files", site.path(), &assert_clean);
    cluster.psql("app", "CHECKPOINT");
    each_file("the server's files", &cluster.data_dir().join("base"), &assert_clean);
    shown
}

/// The detail of a unique violation shows the other columns of the key, and of the token nothing, however bytea is written.
#[test]
fn no_token_shows_in_a_unique_violation() {
    let (cluster, _site, proxy) = start(&[]);
    let mut peer = Peer::connect(proxy.address(), "app");
    for style in ["hex", "escape"] {
        peer.ask(&format!("SET bytea_output = {style}"));
        for n in 0..40 {
            peer.ask(&format!("INSERT INTO users (id, account_id, email) VALUES ({n}, 1, 'value {n}')"));
            let again = format!("INSERT INTO users (id, account_id, email) VALUES (1000 + {n}, 1, 'value {n}')");
            peer.send(&Out::new().query(&again).0);
            let replies = peer.until(b'Z');
            let detail = field(&replies[0].1, b'D');
            let shown = [
                "(account_id, rowseal.eq(email::bytea))=(1, [sealed])",
                "(account_id, rowseal.eq(email::bytea))=([sealed])",
            ];
            assert!(shown.iter().any(|shown| detail == format!("Key {shown} already exists.")), "{style}: {detail}");
        }
    }
    assert!(cluster.log().contains("(account_id, rowseal.eq(email::bytea))=(1, \\"), "the server showed no token");
}
