//! Statements prepared in SQL and cursors over sealed columns: the same as on plain ones, and never a plaintext or a
//! cell where it does not belong.
use crate::support::clients::python;
use crate::support::peer::{Out, Peer, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::{Proxy, Site};
use crate::support::tap::{Tap, contains};

const POLICY: &str = r#"
[[database]]
name = "app"
control = "{control}/app"

[[database.table]]
name = "public.users"
tenant = { column = "account_id" }

[database.table.columns]
email = { type = "text", equality = "tenant" }
age = { type = "int4" }
"#;

struct Twins {
    cluster: Cluster,
    _site: Site,
    tap: Tap,
    proxy: Proxy,
}

fn twins(version: Version) -> Twins {
    let cluster = Cluster::start(version);
    cluster.createdb("app");
    cluster.createdb("plain");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    site.run_ok(&["tenant", "register", "2"]);
    let table = |text: &str, int: &str| {
        format!(
            "create table users (id int8 primary key, account_id int8 not null, email {text}, age {int}, note text)"
        )
    };
    cluster.psql("app", &table("rowseal.text", "rowseal.int4"));
    cluster.psql("plain", &table("text", "int4"));
    let proxy = site.serve();
    Twins { cluster, _site: site, tap, proxy }
}

impl Twins {
    /// The same messages on the plain table directly and on the sealed one through the proxy.
    fn both(&self) -> (Peer, Peer) {
        (Peer::connect(self.cluster.host_port(), "plain"), Peer::connect(self.proxy.address(), "app"))
    }
}

/// `syncs`: how many ReadyForQuery the messages bring.
fn same((plain, sealed): &mut (Peer, Peer), out: &Out, syncs: usize) -> String {
    plain.send(&out.0);
    sealed.send(&out.0);
    let expected = show(&plain.until_ready(syncs));
    let got = show(&sealed.until_ready(syncs));
    assert_eq!(got, expected);
    got
}

const FILL: &str = "insert into users values (1, 1, 'ada@canary7f3.org', 36, 'a'), (2, 1, null, 41, 'b'), \
    (3, 2, 'bob@canary7f3.org', null, 'c'), (4, 1, 'cy@canary7f3.org', 7, 'd')";

#[test]
fn sql_level_names_are_followed_on_15() {
    sql_level_names_are_followed(Version::V15);
}

#[test]
fn sql_level_names_are_followed_on_18() {
    sql_level_names_are_followed(Version::V18);
}

fn sql_level_names_are_followed(version: Version) {
    let twins = twins(version);
    let mut peers = twins.both();
    for sql in [
        FILL,
        // Prepared in SQL.
        "prepare ins as insert into users values ($1, $2, $3, $4, $5)",
        "execute ins(5, 1, 'dee@canary7f3.org', 50, 'e')",
        "execute ins(6, 2, null, null, upper('f'))",
        "execute ins(7, 2, 'eve@canary7f3.org', 12)",
        "prepare ins as select 1",
        "prepare typed(int8, int8, text, int, text) as insert into users values ($1, $2, $3, $4, $5) returning email, age",
        "execute typed(8, 2, 'fay@canary7f3.org', '77', 'h')",
        "execute typed(9, 2, 'gus@canary7f3.org', 'seven', 'h')",
        "prepare find(text) as select id, email, age from users where account_id = 1 and email = $1",
        "execute find('ada@canary7f3.org')",
        "EXECUTE find ('nobody')",
        "execute find(null)",
        "prepare all_of as select * from users order by id",
        "execute all_of",
        "execute all_of; execute find('ada@canary7f3.org'); select 1",
        "deallocate all_of",
        "execute all_of",
        "prepare all_of as select note from users order by id",
        "execute all_of",
        "prepare fixed as insert into users values ($1, 1, 'hal@canary7f3.org', 1, $2)",
        "execute fixed(10, 'x')",
        "execute fixed(11, 'y')",
        "deallocate all",
        "execute find('ada@canary7f3.org')",
        "select id, email from users where id > 4 order by id",
        // Cursors.
        "declare c cursor for select email from users",
        "begin",
        "declare c cursor for select id, email, age from users order by id",
        "fetch 2 from c",
        "fetch c",
        "fetch backward 1 from c",
        "move 1 in c",
        "fetch forward all in c",
        "close c",
        "fetch c",
        "rollback",
        "begin; declare c scroll cursor for select email from users where id < 4 order by id desc; fetch all c; fetch first c; commit",
        "begin; declare c cursor for select 'plain'; fetch all from c; commit",
        "declare held cursor with hold for select email, note from users order by id",
        "fetch 1 from held",
        "declare held cursor with hold for select note from users order by id",
        "fetch 1 from held",
        "close held",
        "declare held cursor with hold for select note from users order by id",
        "fetch 2 from held",
        "begin; declare \"Odd \"\"C\" binary cursor for select email, age from users order by id; fetch 1 from \"Odd \"\"C\"; commit",
        "begin; declare c cursor for select age, email from users where id = 2 for update; fetch c; commit",
    ] {
        same(&mut peers, &Out::new().query(sql), 1);
    }
    assert!(!contains(&twins.tap.to_server(), b"canary7f3"), "a plaintext reached the server");

    let ids = twins.cluster.psql("app", "select substring(age::bytea from 9 for 16) from users where id in (10, 11)");
    assert_eq!(ids.lines().collect::<std::collections::BTreeSet<_>>().len(), 2, "a data key was used for two rows");
}

#[test]
fn the_extended_protocol_follows_names_too() {
    let twins = twins(Version::Any);
    let mut peers = twins.both();
    same(&mut peers, &Out::new().query(FILL), 1);
    let run = |sql: &str| Out::new().run(sql, &[]);
    same(&mut peers, &Out::new().query("begin"), 1);
    same(
        &mut peers,
        &Out::new()
            .run(
                "declare c cursor for select id, email, age from users where account_id = $1 order by id",
                &[Some("1")],
            )
            .sync(),
        1,
    );
    for sql in ["fetch 1 from c", "fetch 5 from c", "fetch 1 from c"] {
        same(&mut peers, &run(sql).sync(), 1);
    }
    same(&mut peers, &Out::new().parse("f", "fetch all from c").describe('S', "f").sync(), 1);
    // A cursor with parameters that has nothing to do with sealed columns.
    let numbers = "declare n cursor for select n from generate_series(1, 5) n where n > $1 and n <> $2";
    same(&mut peers, &Out::new().run(numbers, &[Some("1"), Some("3")]).sync(), 1);
    assert!(same(&mut peers, &run("fetch all from n").sync(), 1).contains('5'));
    same(&mut peers, &Out::new().query("rollback"), 1);
    // Its result has one column, whatever the query is given in addition.
    let plan = same(&mut peers, &run("explain (costs off) select email from users where id = 1").sync(), 1);
    assert!(plan.contains("users_pkey"), "{plan}");

    // Declared and fetched in one pipeline, in either format.
    for format in [0, 1] {
        let out = Out::new().query("begin");
        same(&mut peers, &out, 1);
        let fetch = Out::new()
            .run("declare d cursor for select email from users order by id", &[])
            .parse("", "fetch 3 from d")
            .bind("", "", &[], format)
            .describe('P', "")
            .execute("", 0)
            .sync();
        same(&mut peers, &fetch, 1);
        same(&mut peers, &Out::new().query("commit"), 1);
    }

    // Prepared in SQL and bound, and the other way about.
    same(&mut peers, &Out::new().query("prepare p as select email, age from users where id = $1"), 1);
    same(&mut peers, &Out::new().bind("", "p", &[Some("1")], 1).describe('P', "").execute("", 0).sync(), 1);
    same(&mut peers, &Out::new().parse("q", "select email from users where account_id = 1 and email = $1").sync(), 1);
    same(&mut peers, &Out::new().query("execute q('ada@canary7f3.org')"), 1);
    same(&mut peers, &Out::new().parse("r", "prepare s as select email from users order by id").sync(), 1);
    same(&mut peers, &Out::new().bind("", "r", &[], 0).execute("", 0).sync(), 1);
    same(&mut peers, &Out::new().query("execute s"), 1);
    assert!(!contains(&twins.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
}

#[test]
fn what_cannot_be_followed_is_refused_and_leaks_nothing() {
    let twins = twins(Version::Any);
    let mut peer = Peer::connect(twins.proxy.address(), "app");
    peer.ask(FILL);
    peer.ask("prepare ins as insert into users values ($1, $2, $3, $4, $5)");
    for sql in [
        "explain analyze execute ins(20, 1, 'canary7f3', 1, 'x')",
        "/* c */ EXPLAIN EXECUTE ins(20, 1, 'canary7f3', 1, 'x')",
        "create table copied as execute ins(20, 1, 'canary7f3', 1, 'x')",
        "execute ins(20, 1, lower('canary7f3'), 1, 'x')",
        "execute ins(20, 1 + 0, 'canary7f3', 1, 'x')",
        "prepare two as select email from users where account_id = 1 and email = $1; execute two('canary7f3')",
        "prepare up as update users set email = $1",
    ] {
        let shown = peer.ask(sql);
        assert!(shown.starts_with("E(ERROR 0A000)"), "{sql}: {shown}");
    }
    peer.send(&Out::new().parse("", "execute ins(20, 1, 'canary7f3', 1, 'x')").sync().0);
    assert!(show(&peer.until_ready(1)).starts_with("E(ERROR 0A000)"));
    assert!(!contains(&twins.tap.to_server(), b"canary7f3'"), "a plaintext reached the server");
    let shown = peer.ask("select email from users where id = 1");
    assert!(shown.contains("ada@canary7f3.org"), "the connection is not usable: {shown}");
}

#[test]
fn psycopg_reads_through_server_side_cursors() {
    const SCRIPT: &str = r#"
import psycopg
with psycopg.connect() as db:
    with db.cursor() as c:
        c.executemany("insert into users (id, account_id, email, age) values (%s, 1, %s, %s)",
                      [(n, f"user{n}@example.com", n) for n in range(100)])
    with db.cursor("server_side") as c:
        c.itersize = 7
        c.execute("select id, email, age from users where account_id = %s order by id", [1])
        print(sum(len(email) + age for _, email, age in c))
    with db.cursor("again", binary=True, scrollable=True) as c:
        c.execute("select email from users order by id")
        print(c.fetchone(), c.fetchmany(3)[-1])
        c.scroll(-2)
        print(c.fetchone())
"#;
    let twins = twins(Version::Any);
    let plain = python(twins.cluster.host_port(), "plain", SCRIPT).unwrap();
    assert_eq!(python(twins.proxy.address(), "app", SCRIPT).unwrap(), plain);
    assert!(!contains(&twins.tap.to_server(), b"user7@example.com"));
}

/// What is meant for a statement that was never prepared does not go to the server, which has the last word on what is.
#[test]
fn values_for_names_that_were_never_prepared_stay_here() {
    let twins = twins(Version::Any);
    let mut peers = twins.both();
    for sql in [
        "execute ins(1, 1, 'canary7f3')",
        "begin",
        "execute ins(1, 1, 'canary7f3')",
        "rollback",
        "explain (analyze) execute ins(1, 1, 'canary7f3')",
        "create table copied as execute ins($$canary7f3$$)",
        "/* c */ execute \"Odd \"\"Name\"(E'canary7f3')",
        "prepare ins as select $1::text || 'x'",
        "execute ins('y')",
        "explain (costs off) execute ins('y')",
        "prepare other as select $1::int; execute other(5)",
        "begin; execute ins('y'); execute other(6); commit",
        "deallocate ins",
        "execute ins('canary7f3')",
        "do $$ begin execute 'prepare inner_one as select $1::text'; end $$",
        "execute inner_one('y')",
        "discard all",
        "execute inner_one('canary7f3')",
        "create function f() returns trigger language plpgsql as $$ begin execute 'select 1' using 'x'; return null; end $$",
        "create table others (id int); create trigger t after insert on others for each row execute function f('y')",
    ] {
        same(&mut peers, &Out::new().query(sql), 1);
    }
    // Here it is the Parse that fails already.
    peers.1.send(&Out::new().run("execute ins(1, 1, 'canary7f3')", &[]).sync().0);
    assert_eq!(show(&peers.1.until_ready(1)), "E(ERROR 26000) Z(I)");
    same(&mut peers, &Out::new().parse("p", "select $1::text").sync(), 1);
    let run = Out::new().run("execute p('y')", &[]).sync();
    same(&mut peers, &run, 1);
    assert_eq!(peers.1.ask("select 1; execute ins('canary7f3')"), "E(ERROR 26000) Z(I)");
    assert!(!contains(&twins.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
}

/// Where a name is taken, values meant for the statement that failed do not go to the one of before unsealed.
#[test]
fn a_taken_name_takes_no_values_for_another_statement() {
    let twins = twins(Version::Any);
    let mut peers = twins.both();
    same(&mut peers, &Out::new().query(FILL), 1);
    let insert = "insert into users (id, account_id, email, note) values ($1, 1, $2, $3)";
    let swapped = "insert into users (id, account_id, note, email) values ($1, 1, $2, $3)";
    for sql in [
        format!("prepare sealed as {insert}"),
        // The same once more: the one of before serves.
        format!("prepare sealed as {insert}"),
        "execute sealed(20, 'canary7f3', 'n')".to_owned(),
        format!("prepare sealed as {swapped}"),
        "prepare plain as select $1::int, $2::text, $3::text".to_owned(),
        format!("prepare plain as {insert}"),
    ] {
        same(&mut peers, &Out::new().query(&sql), 1);
    }
    for name in ["sealed", "plain"] {
        for sql in
            [format!("execute {name}(21, 'n', 'canary7f3')"), format!("execute {name}(21, 'canary7f3', 'canary7f3')")]
        {
            assert!(peers.1.ask(&sql).starts_with("E(ERROR 0A000)"), "{sql}");
        }
        let bound =
            Out::new().bind("", name, &[Some("22"), Some("canary7f3"), Some("canary7f3")], 0).execute("", 0).sync();
        peers.1.send(&bound.0);
        assert!(show(&peers.1.until_ready(1)).starts_with("E("), "{name}");
    }
    // In the extended protocol, and then as it should be.
    same(&mut peers, &Out::new().parse("s", insert).sync(), 1);
    same(&mut peers, &Out::new().parse("s", insert).sync(), 1);
    same(
        &mut peers,
        &Out::new().bind("", "s", &[Some("23"), Some("canary7f3"), Some("n")], 0).execute("", 0).sync(),
        1,
    );
    same(&mut peers, &Out::new().parse("s", swapped).sync(), 1);
    for bound in [Some("canary7f3"), None] {
        let bind = Out::new().bind("", "s", &[Some("24"), bound, Some("canary7f3")], 0).execute("", 0).sync();
        peers.1.send(&bind.0);
        assert!(show(&peers.1.until_ready(1)).starts_with("E("));
    }
    same(&mut peers, &Out::new().close('S', "s").parse("s", swapped).sync(), 1);
    same(
        &mut peers,
        &Out::new().bind("", "s", &[Some("25"), Some("n"), Some("canary7f3")], 0).execute("", 0).sync(),
        1,
    );
    for sql in [
        "deallocate sealed".to_owned(),
        format!("prepare sealed as {swapped}"),
        "execute sealed(26, 'n', 'canary7f3')".to_owned(),
        "select id, email, note from users order by id".to_owned(),
        // What a transaction prepares or deallocates before it fails stays so.
        "begin".to_owned(),
        "deallocate sealed".to_owned(),
        "select 1/0".to_owned(),
        "rollback".to_owned(),
        "prepare sealed as select $1::text".to_owned(),
        "execute sealed('y')".to_owned(),
        "begin".to_owned(),
        "select 1/0".to_owned(),
        format!("prepare late as {insert}"),
        "rollback".to_owned(),
    ] {
        same(&mut peers, &Out::new().query(&sql), 1);
    }
    assert!(peers.1.ask("execute late(27, 'canary7f3', 'n')").starts_with("E("));
    assert!(!contains(&twins.tap.to_server(), b"canary7f3"), "a plaintext reached the server");
}

/// No name that a client gives is the proxy's own.
#[test]
fn the_proxys_own_names_are_nobodys() {
    let twins = twins(Version::Any);
    let mut peers = twins.both();
    same(&mut peers, &Out::new().query(FILL), 1);
    same(&mut peers, &Out::new().parse("rowseal_internal", "select email from users where id = $1").sync(), 1);
    for sql in [
        "set timezone = 'UTC'",
        "select email from users where id = 1",
        "update users set age = 5 where account_id = 1",
        "begin; declare rowseal_internal cursor for select id, email from users order by id",
        "fetch 1 from rowseal_internal",
        "set timezone = 'UTC'",
        "update users set age = 6 where account_id = 1",
        "fetch 1 from rowseal_internal",
        "commit",
    ] {
        same(&mut peers, &Out::new().query(sql), 1);
    }
    same(&mut peers, &Out::new().bind("", "rowseal_internal", &[Some("1")], 0).execute("", 0).sync(), 1);
}
