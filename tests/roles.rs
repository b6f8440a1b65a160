//! Roles (P1): every road on which a value may come back, and every way to search, for every role and both protocols.
//! A role that may not open a column never gets a full value of it, whatever the road.
use crate::support::peer::{Message, Out, Peer, field, show, startup};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

mod cells;
mod changes;
mod roads;
mod searches;

const POLICY: &str = r#"[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.people"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant", mask = { keep_last = 2 } }
name = { type = "text", mask = { keep_first = 1 } }
nick = { type = "varchar(40)", mask = { fixed = "hidden" } }
ssn = { type = "text", mask = { hash = true } }
age = { type = "int4", equality = "tenant" }

[[database.role]]
name = "opener"
read = "open"

[[database.role]]
name = "masked"
read = "mask"

[[database.role]]
name = "seeker"
read = "mask"
search = true

[[database.role]]
name = "cells"
read = "sealed"

[[database.role]]
name = "nobody"
read = "deny"
"#;

const SCHEMA: &str = "CREATE TABLE people (id int8 PRIMARY KEY, account_id int8 NOT NULL, email rowseal.text, name rowseal.text, \
     nick rowseal.varchar, ssn rowseal.text, age rowseal.int4, note text);
     CREATE UNIQUE INDEX people_email ON people (account_id, rowseal.eq(email));
     CREATE TABLE plain (id int8 PRIMARY KEY, account_id int8, note text);
     INSERT INTO plain VALUES (2, 2, 'n');
     CREATE VIEW seen AS SELECT id, account_id, email, name, nick, ssn, age FROM people;
     CREATE VIEW again AS SELECT s.id AS number, s.account_id, s.email AS mail, s.ssn FROM seen s;
     CREATE FUNCTION mail_of(int8) RETURNS rowseal.text LANGUAGE sql SECURITY DEFINER AS 'SELECT email FROM public.people WHERE id = $1';
     CREATE FUNCTION row_of(int8) RETURNS SETOF people LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM public.people WHERE id = $1';
     CREATE FUNCTION text_of(int8) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT row_to_json(p)::text FROM public.people p WHERE id = $1';
     CREATE FUNCTION become(text) RETURNS text LANGUAGE sql AS 'SELECT set_config(''role'', $1, false)';
     CREATE ROLE opener LOGIN; CREATE ROLE masked LOGIN; CREATE ROLE seeker LOGIN; CREATE ROLE cells LOGIN; CREATE ROLE nobody LOGIN;
     CREATE ROLE clerk LOGIN IN ROLE nobody, masked; CREATE ROLE joe LOGIN;
     GRANT ALL ON people, plain, seen, again TO opener, masked, seeker, cells, nobody, clerk, joe;";

/// The values of the row that is looked at; none has a part that stands in another one, or in its own mask.
const SECRETS: [&str; 5] = ["bob@example.com", "Robert Tables", "bobby-nick", "078-05-1120", "1234567891"];

/// What a `mask` role sees of the first three.
const MASKS: [&str; 3] = ["*************om", "R************", "hidden"];

struct Scene {
    cluster: Cluster,
    tap: Tap,
    site: Site,
    proxy: Proxy,
}

fn scene(version: Version) -> Scene {
    let cluster = Cluster::start(version);
    let tap = Tap::start(cluster.host_port());
    cluster.createdb("app");
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    ["1", "2"].iter().for_each(|tenant| drop(site.run_ok(&["tenant", "register", tenant])));
    cluster.psql("app", SCHEMA);
    let proxy = site.serve();
    let inserted = Peer::connect(proxy.address(), "app").ask(
        "INSERT INTO people VALUES (1, 1, 'ada@example.com', 'Ada', 'ada-nick', '123-45-6789', 36, 'n'), \
         (2, 2, 'bob@example.com', 'Robert Tables', 'bobby-nick', '078-05-1120', 1234567891, 'n'), \
         (3, 2, 'eve@example.com', 'Eve', 'eve-nick', '078-05-1120', 7, 'n')",
    );
    assert!(inserted.contains("INSERT 0 3"), "{inserted}");
    Scene { cluster, tap, site, proxy }
}

impl Scene {
    /// A session of this role.
    fn login(&self, role: &str) -> Peer {
        let mut peer = Peer::bare(self.proxy.address());
        peer.send(&startup(&[("user", role), ("database", "app")]));
        let replies = peer.until_ready(1);
        assert!(replies.iter().all(|(tag, _)| *tag != b'E'), "{}", show(&replies));
        peer
    }

    /// The cells of a column as they are stored, in hexadecimal.
    fn stored(&self, column: &str, id: u32) -> String {
        let sql = format!("SELECT encode({column}::bytea, 'hex') FROM people WHERE id = {id}");
        self.cluster.psql("app", &sql).trim().to_owned()
    }

    fn assert_nothing_is_told(&self) {
        let (log, sent) = (self.proxy.log() + &self.cluster.log(), self.tap.to_server());
        for secret in &SECRETS[..4] {
            assert!(!log.contains(secret) && !contains(&sent, secret.as_bytes()), "{secret} is told");
        }
    }
}

/// How statements are sent, and the form in which rows come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Simple,
    Text,
    Binary,
}

const WAYS: [Way; 3] = [Way::Simple, Way::Text, Way::Binary];

/// The replies to statements, sent one after the other.
fn replies(peer: &mut Peer, statements: &[String], way: Way) -> Vec<Message> {
    let mut all = Vec::new();
    for sql in statements {
        let format = i16::from(way == Way::Binary);
        // EXECUTE over sealed columns is for the simple protocol, and so is a search within COPY.
        let is_simple = sql.starts_with("EXECUTE") || (sql.starts_with("COPY") && sql.contains(" = '"));
        let out = match way {
            Way::Text | Way::Binary if !is_simple => {
                Out::new().parse("", sql).bind_as("", &[], &[format]).describe('P', "").execute("", 0).sync()
            }
            _ => Out::new().query(sql),
        };
        peer.send(&out.0);
        all.extend(peer.until_ready(1));
    }
    all
}

/// The SQLSTATE of the first error.
fn error(replies: &[Message]) -> Option<String> {
    replies.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| field(body, b'C'))
}

/// The bodies of all messages.
fn bytes(replies: &[Message]) -> Vec<u8> {
    replies.iter().flat_map(|(_, body)| body.iter().copied()).collect()
}

/// True for anything that tells a value of the row: its text, its digits as an int4, or that in hexadecimal.
fn tells(bytes: &[u8]) -> Option<&'static str> {
    let number = contains(bytes, &1_234_567_891_i32.to_be_bytes());
    let hex = |secret: &str| secret.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let told = |secret: &&&str| contains(bytes, secret.as_bytes()) || contains(bytes, hex(secret).as_bytes());
    SECRETS.iter().find(told).copied().or(number.then_some("the number in binary"))
}

fn shows_cell(bytes: &[u8]) -> bool {
    contains(bytes, b"\xc1\x52\x53\x01") || contains(bytes, b"c1525301") || contains(bytes, b"\\301RS")
}
