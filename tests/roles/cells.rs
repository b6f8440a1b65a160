//! A role that sees cells writes cells: what it has read goes back as it was, where it would open, and nowhere else.
use super::*;

const COLUMNS: [&str; 5] = ["email", "name", "nick", "ssn", "age"];

fn code(peer: &mut Peer, sql: &str) -> Option<String> {
    error(&replies(peer, &[sql.to_owned()], Way::Simple))
}

/// COPY TO STDOUT: its data.
fn copied_out(peer: &mut Peer, sql: &str) -> Vec<u8> {
    peer.send(&Out::new().query(sql).0);
    let replies = peer.until_ready(1);
    assert_eq!(error(&replies), None, "{sql}");
    replies.into_iter().filter(|(tag, _)| *tag == b'd').flat_map(|(_, body)| body).collect()
}

/// COPY FROM STDIN; gives the SQLSTATE of its error.
fn copied_in(peer: &mut Peer, sql: &str, data: &[u8]) -> Option<String> {
    peer.send(&Out::new().query(sql).raw(b'd', data).raw(b'c', b"").0);
    error(&peer.until_ready(1))
}

fn all_stored(scene: &Scene) -> Vec<String> {
    (1..=3).flat_map(|id| COLUMNS.map(|column| scene.stored(column, id))).collect()
}

/// A table that is copied out by such a role, emptied and copied in again is what it was, byte for byte.
#[test]
fn a_dump_is_restored_through_the_proxy() {
    for version in [Version::V15, Version::V18] {
        let scene = scene(version);
        let before = all_stored(&scene);
        let mut peer = scene.login("cells");
        for options in ["", "(FORMAT csv, HEADER)", "(FORMAT binary)"] {
            for setting in ["hex", "escape"] {
                peer.ask(&format!("SET bytea_output = {setting}"));
                let data = copied_out(&mut peer, &format!("COPY people TO STDOUT {options}"));
                assert_eq!(peer.ask("DELETE FROM people"), "C(DELETE 3\\x00) Z(I)");
                assert_eq!(
                    copied_in(&mut peer, &format!("COPY people FROM STDIN {options}"), &data),
                    None,
                    "{options}"
                );
                assert!(all_stored(&scene) == before, "{version:?} {options} {setting}");
            }
        }
        // It opens and is found as before, in a proxy that has just begun too.
        let shown =
            scene.login("opener").ask("SELECT id FROM people WHERE account_id = 2 AND email = 'bob@example.com'");
        assert!(shown.contains("D(\\x00\\x01\\x00\\x00\\x00\\x012)"), "{shown}");
        assert_eq!(scene.proxy.stop(), 0);
        let proxy = scene.site.serve();
        let scene = Scene { proxy, ..scene };
        let mut peer = scene.login("cells");
        let data = copied_out(&mut peer, "COPY people TO STDOUT");
        peer.ask("DELETE FROM people");
        assert_eq!(copied_in(&mut peer, "COPY people FROM STDIN", &data), None);
        assert!(all_stored(&scene) == before);
        let shown = bytes(&replies(&mut scene.login("opener"), &["SELECT * FROM people".to_owned()], Way::Text));
        assert!(SECRETS.iter().all(|secret| contains(&shown, secret.as_bytes())));
        assert_eq!(scene.proxy.stop(), 0);
        scene.site.run_ok(&["audit", "verify"]);
    }
}

#[test]
fn a_cell_goes_only_where_it_opens() {
    let scene = scene(Version::Any);
    let mut peer = scene.login("cells");
    let before = all_stored(&scene);
    let (email, other, name, age) =
        (scene.stored("email", 2), scene.stored("email", 1), scene.stored("name", 2), scene.stored("age", 2));
    let set =
        |column: &str, value: &str| format!("UPDATE people SET {column} = {value} WHERE id = 2 AND account_id = 2");
    let cell = |hex: &str| format!("'\\x{hex}'");
    let damaged = format!("{}{}", &email[..email.len() - 2], if email.ends_with("00") { "01" } else { "00" });
    // Tokens stand outside of what is authenticated: eight bytes behind the start.
    let forged = format!("{}{}{}", &email[..16], "00".repeat(16), &email[48..]);
    let without = format!("{}00{}{}", &email[..12], &email[14..16], &email[48..]);
    // The key that is named behind the data key's id, which follows the token.
    let unwrapped = format!("{}{}{}", &email[..82], "00".repeat(16), &email[114..]);
    for (column, value) in [
        ("email", cell(&unwrapped)),
        ("email", "'bob@example.org'".to_owned()),
        ("email", "''".to_owned()),
        ("age", "'8'".to_owned()),
        ("age", "8".to_owned()),
        ("email", cell(&other)),
        ("email", cell(&name)),
        ("name", cell(&email)),
        ("email", cell(&age)),
        ("email", cell(&damaged)),
        ("email", cell(&forged)),
        ("email", cell(&without)),
        ("email", cell(&email[..email.len() - 40])),
        ("email", cell("c152530101")),
        ("email", cell("c15")),
        ("email", format!("E'\\\\x{other}'")),
    ] {
        for sql in [set(column, &value), format!("UPDATE people SET {column} = {value} WHERE note = 'n' AND id = 2")] {
            assert_eq!(code(&mut peer, &sql).as_deref(), Some("42501"), "{column} = {}", &value[..value.len().min(40)]);
        }
        let sql = format!("INSERT INTO people (id, account_id, {column}) VALUES (7, 2, {value})");
        assert_eq!(code(&mut peer, &sql).as_deref(), Some("42501"), "{sql}");
        let prepared = format!("PREPARE p AS {sql}; EXECUTE p");
        assert!(code(&mut peer, &prepared).is_some(), "{prepared}");
        peer.ask("DEALLOCATE ALL");
        let row = format!("7\t2\t{}\n", value.trim_matches(['E', '\'']).replace('\\', "\\\\"));
        let copied =
            copied_in(&mut peer, &format!("COPY people (id, account_id, {column}) FROM STDIN"), row.as_bytes());
        assert_eq!(copied.as_deref(), Some("42501"), "{row}");
    }
    // One cell in several rows.
    assert_eq!(
        code(&mut peer, &format!("UPDATE people SET email = {} WHERE account_id = 2", cell(&email))).as_deref(),
        Some("42501")
    );
    assert!(all_stored(&scene) == before, "something was written");
    // Where it was; NULL; what is not sealed; a cell that is kept.
    for sql in [
        set("email", &cell(&email)),
        format!("UPDATE people SET email = {} WHERE note = 'n' AND id = 2", cell(&email)),
        set("email", "email"),
        set("note", "'m'"),
        format!("{} RETURNING email", set("age", &cell(&age))),
        format!("PREPARE p AS {}", set("email", "$1")),
        format!("EXECUTE p({})", cell(&email)),
    ] {
        assert_eq!(code(&mut peer, &sql), None, "{sql}");
        assert!(all_stored(&scene) == before, "{sql}");
    }
    assert_eq!(code(&mut peer, &set("email", "NULL")), None);
    assert_eq!(scene.stored("email", 2), "");
    // A session of one tenant.
    peer.ask("SET rowseal.tenant = '1'");
    assert_eq!(code(&mut peer, &set("email", &cell(&email))).as_deref(), Some("42501"));
    peer.ask("RESET rowseal.tenant");
    scene.assert_nothing_is_told();
}

/// In the extended protocol a parameter for a sealed column is a bytea for such a role, as the column is.
#[test]
fn parameters_are_cells() {
    let scene = scene(Version::Any);
    let mut peer = scene.login("cells");
    let before = scene.stored("age", 2);
    let raw: Vec<u8> =
        (0..before.len()).step_by(2).map(|at| u8::from_str_radix(&before[at..at + 2], 16).unwrap()).collect();
    let sql = "UPDATE people SET age = $1 WHERE id = 2 AND account_id = 2 RETURNING age";
    for oid in [0, 17] {
        peer.send(
            &Out::new()
                .parse_as("", sql, &[oid])
                .describe('S', "")
                .bind_as("", &[(1, Some(&raw))], &[1])
                .execute("", 0)
                .sync()
                .0,
        );
        let replies = peer.until_ready(1);
        assert_eq!(error(&replies), None, "{}", show(&replies));
        let described = replies.iter().find(|(tag, _)| *tag == b't').unwrap();
        assert_eq!(described.1, [0, 1, 0, 0, 0, 17]);
        assert!(contains(&bytes(&replies), &raw));
    }
    // A search is for a value, and there this role has none.
    for (oid, value) in [(23, &b"\0\0\0\x07"[..]), (17, b"x"), (0, b"\0\0\0\x07")] {
        peer.send(&Out::new().parse_as("", sql, &[oid]).bind_as("", &[(1, Some(value))], &[1]).execute("", 0).sync().0);
        let state = error(&peer.until_ready(1));
        assert!(matches!(state.as_deref(), Some("42501" | "0A000")), "{oid}: {state:?}");
    }
    assert_eq!(scene.stored("age", 2), before);
}
