//! Rows whose COPY was not begun, which psql sends as statements: they are for nobody, so the server is not told (T5).
use crate::support::peer::Peer;
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;
use crate::support::tap::{Tap, contains};
use crate::updates::POLICY;

/// A script as pg_dump writes it; COPY fails in three ways, each time with rows behind it.
const SCRIPT: &str = "COPY customers (account_id, emial) FROM stdin;
acme\tcanary7f3-1
\\.

SELECT 'on';
COPY customers (email) FROM stdin;
canary7f3-2
canary7f3-3; canary7f3-4
\\.

SELECT 'and on';
COPY gone.customers (account_id, email) FROM stdin;
'acme'\tcanary7f3-5
";

#[test]
fn rows_of_a_copy_that_was_not_begun_do_not_reach_the_server() {
    let cluster = Cluster::start(Version::V15);
    cluster.createdb("app");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "acme"]);
    let proxy = site.serve();
    // Before the table is there, and when it is.
    for made in ["", "create table customers (account_id text, email rowseal.text, ssn rowseal.text)"] {
        cluster.psql("app", made);
        let output = std::process::Command::new("sh")
            .args(["-c", "printf '%s' \"$1\" | \"$2\" -XAtq -f - 2>&1", "sh", SCRIPT])
            .arg(cluster.bin_dir().join("psql"))
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", proxy.address().port().to_string())
            .envs([("PGUSER", "postgres"), ("PGDATABASE", "app")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("is no statement") && said.matches("ERROR:").count() >= 5, "{said}");
        assert!(!contains(&tap.to_server(), b"canary7f3"), "a row reached the server:\n{said}");
        assert!(!cluster.log().contains("canary7f3") && !proxy.log().contains("canary7f3"));
    }
    let mut peer = Peer::connect(proxy.address(), "app");
    let failed = peer.ask("copy customers (account_id, nothing) from stdin");
    assert!(failed.starts_with("E(ERROR"), "{failed}");
    assert!(peer.ask("canary7f3-6\t1\n\\.\nselect 1").starts_with("E(ERROR 0A000)"));
    assert!(peer.ask("/* c */ select 'still here'").contains("still here"));
    // Elsewhere a text that nothing can be made of is the server's to judge.
    assert!(peer.ask("selekt 1").starts_with("E(ERROR 42601)"));
    assert!(!contains(&tap.to_server(), b"canary7f3"));
}
