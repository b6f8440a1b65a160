//! Sessions that do not speak UTF-8: sealed columns are refused there, everything else passes, and no name with an
//! accent ends the session or hides a sealed table from the proxy (T2, T5).
use crate::support::peer::{Out, Peer, field, show};
use crate::support::postgres::{Cluster, Version};
use crate::support::proxy::Site;
use crate::support::tap::{Tap, contains};

const POLICY: &str = "[[database]]\nname = \"app\"\ncontrol = \"{control}/app\"\n\n[[database.table]]\nname = \"public.naïve\"\ntenant = { column = \"account_id\" }\n\n\
    [database.table.columns]\nsecret = { type = \"text\", equality = \"tenant\" }\n\n[[database.role]]\nname = \"prüfer\"\nread = \"mask\"\n";

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn ask(peer: &mut Peer, sql: &[u8]) -> (String, String) {
    peer.send(&Out::new().raw(b'Q', &[sql, b"\0"].concat()).0);
    let replies = peer.until_ready(1);
    let hint = replies.iter().find(|(tag, _)| *tag == b'E').map(|(_, body)| field(body, b'H'));
    (show(&replies), hint.unwrap_or_default())
}

#[test]
fn names_with_accents_in_a_latin1_session() {
    let cluster = Cluster::start(Version::Any);
    cluster.createdb("app");
    let tap = Tap::start(cluster.host_port());
    let site = Site::with_upstream(tap.address(), &cluster, POLICY);
    site.run_ok(&["setup"]);
    site.run_ok(&["tenant", "register", "1"]);
    cluster.psql(
        "app",
        "CREATE TABLE \"naïve\" (id int8 PRIMARY KEY, account_id int8 NOT NULL, secret rowseal.text); \
         CREATE TABLE plain (name text); CREATE SCHEMA \"schéma\"; CREATE ROLE \"rôle\" SUPERUSER; \
         CREATE ROLE \"prüfer\"; GRANT \"prüfer\" TO \"rôle\"; GRANT ALL ON \"naïve\" TO \"prüfer\"",
    );
    let proxy = site.serve();
    let mut peer = Peer::connect(proxy.address(), "app");
    assert!(peer.ask("INSERT INTO naïve VALUES (1, 1, 'für alle')").starts_with("C(INSERT 0 1"));
    assert!(peer.ask("SET search_path = \"schéma\", public").starts_with("C(SET"));
    assert!(peer.ask("SET client_encoding = 'LATIN1'").contains("C(SET"));
    for sql in ["SELECT secret FROM naïve", "INSERT INTO naïve VALUES (2, 1, 'plaintext-1')"] {
        let (shown, hint) = ask(&mut peer, &latin1(sql));
        assert_eq!((shown.as_str(), hint.as_str()), ("E(ERROR 0A000) Z(I)", "SET client_encoding = 'UTF8'."), "{sql}");
        peer.send(&Out::new().raw(b'P', &[b"\0", &latin1(sql)[..], b"\0\0\0"].concat()).sync().0);
        assert_eq!(show(&peer.until_ready(1)), "E(ERROR 0A000) Z(I)", "{sql}");
    }
    // In a database with a one-byte encoding this is the name of the table.
    assert!(peer.ask("SET client_encoding = 'UTF8'").contains("C(SET"));
    assert_eq!(peer.ask("INSERT INTO NAÏVE VALUES (3, 1, 'plaintext-1')"), "E(ERROR 0A000) Z(I)");
    assert!(peer.ask("SET client_encoding = 'LATIN1'").contains("C(SET"));
    // What touches no sealed column passes, in the bytes of its encoding.
    assert_eq!(ask(&mut peer, b"INSERT INTO plain VALUES ('x')").0, "C(INSERT 0 1\\x00) Z(I)");
    assert!(ask(&mut peer, b"SET ROLE \"r\xf4le\"").0.starts_with("C(SET"));
    assert_eq!(ask(&mut peer, &latin1("SELECT secret FROM naïve")).0, "E(ERROR 0A000) Z(I)");
    // The same session in UTF-8 again: the role's own rule counts, which it has by membership.
    assert!(peer.ask("SET client_encoding = 'UTF8'").contains("C(SET"));
    let seen = peer.ask("SELECT id, secret FROM naïve");
    assert!(seen.contains("D(\\x00\\x02\\x00\\x00\\x00\\x011\\xff\\xff\\xff\\xff)"), "not masked: {seen}");
    assert!(peer.ask("RESET ROLE").starts_with("C(RESET"));
    assert!(peer.ask("SELECT secret FROM naïve").contains("f\\xc3\\xbcr alle"));
    assert!(!contains(&tap.to_server(), b"plaintext-1"));
    assert!(!cluster.log().contains("plaintext-1"));
}
