//! What a role sees of a row, on every road.
use super::*;

/// What a road shows of the row.
#[derive(Clone, Copy, PartialEq)]
enum Shows {
    /// All five columns.
    All,
    /// `email` and `ssn`.
    Two,
    /// `email` alone.
    Mail,
}

/// Statements that show row 2, the last ones of which give rows. `{}` is the name of the moment.
const ROADS: &[(Shows, &[&str])] = &[
    (Shows::All, &["SELECT * FROM people WHERE id = 2"]),
    (Shows::All, &["SELECT * FROM ONLY public.people"]),
    (Shows::All, &["SELECT age, ssn, nick, name, email, note FROM people p WHERE p.id = 2"]),
    (Shows::All, &["SELECT p FROM people p WHERE id = 2"]),
    (Shows::All, &["SELECT p.* FROM people p JOIN plain USING (id) WHERE id = 2"]),
    (Shows::All, &["SELECT to_json(p), row_to_json(p), to_jsonb(p.*) FROM people p WHERE id = 2"]),
    (Shows::All, &["SELECT json_agg(p), jsonb_agg(p), array_agg(p) FROM people p WHERE id = 2"]),
    (
        Shows::All,
        &["SELECT json_build_object('e', email, 'n', name, 'k', nick, 's', ssn, 'a', age) FROM people WHERE id = 2"],
    ),
    (Shows::All, &["SELECT jsonb_build_array(email, name, nick, ssn, age) FROM people WHERE id = 2"]),
    (Shows::Two, &["SELECT json_object_agg(id, email), jsonb_object_agg(note, ssn) FROM people WHERE id = 2"]),
    (Shows::All, &["SELECT ROW(email, name, nick, ssn, age) FROM people WHERE id = 2"]),
    (Shows::Two, &["SELECT ARRAY[email, ssn], array_agg(ssn) FROM people WHERE id = 2 GROUP BY id"]),
    (Shows::Two, &["SELECT coalesce(email, 'none'), coalesce(ssn, NULL) FROM people WHERE id = 2"]),
    (
        Shows::Two,
        &["SELECT CASE WHEN id = 2 THEN email END, CASE WHEN id = 2 THEN ssn ELSE NULL END FROM people WHERE id = 2"],
    ),
    (Shows::Two, &["SELECT x.email, x.ssn FROM (SELECT * FROM people WHERE id = 2) x"]),
    (Shows::Two, &["WITH w AS (SELECT email, ssn FROM people WHERE id = 2) SELECT * FROM w"]),
    (Shows::Two, &["SELECT l.* FROM plain, LATERAL (SELECT email, ssn FROM people p WHERE p.id = plain.id) l"]),
    (Shows::Two, &["SELECT (SELECT email FROM people WHERE id = 2), (SELECT ssn FROM people WHERE id = 2)"]),
    (Shows::Mail, &["SELECT email FROM people WHERE id = 1 UNION ALL SELECT email FROM people WHERE id = 2"]),
    (Shows::All, &["SELECT * FROM seen WHERE id = 2"]),
    (Shows::Two, &["SELECT * FROM again WHERE number = 2"]),
    (Shows::Two, &["SELECT json_agg(a) FROM again a WHERE number = 2"]),
    (Shows::All, &["BEGIN", "UPDATE people SET note = 'm' WHERE id = 2 RETURNING *", "ROLLBACK"]),
    (Shows::All, &["BEGIN", "UPDATE people SET note = 'm' WHERE id = 2 RETURNING people", "ROLLBACK"]),
    (Shows::Two, &["BEGIN", "DELETE FROM people WHERE id = 2 RETURNING email, ssn", "ROLLBACK"]),
    (
        Shows::Two,
        &["BEGIN", "WITH d AS (DELETE FROM people WHERE id = 2 RETURNING email, ssn) SELECT * FROM d", "ROLLBACK"],
    ),
    (
        Shows::Two,
        &[
            "BEGIN",
            "INSERT INTO people (id, account_id, note) VALUES (2, 2, 'm') ON CONFLICT (id) DO UPDATE SET note = 'm' RETURNING email, ssn",
            "ROLLBACK",
        ],
    ),
    (Shows::All, &["PREPARE s AS SELECT * FROM people WHERE id = $1", "EXECUTE s(2)", "DEALLOCATE s"]),
    (Shows::All, &["BEGIN", "DECLARE c CURSOR FOR SELECT * FROM people WHERE id = 2", "FETCH ALL FROM c", "ROLLBACK"]),
    (
        Shows::Two,
        &[
            "BEGIN",
            "DECLARE c BINARY SCROLL CURSOR FOR SELECT email, ssn FROM people WHERE id = 2",
            "FETCH LAST FROM c",
            "ROLLBACK",
        ],
    ),
    (
        Shows::Two,
        &[
            "DECLARE c CURSOR WITH HOLD FOR SELECT email, ssn FROM people WHERE id = 2",
            "FETCH FORWARD 1 FROM c",
            "CLOSE c",
        ],
    ),
    (
        Shows::Two,
        &["BEGIN", "DECLARE c CURSOR FOR SELECT json_agg(p) FROM people p WHERE id = 2", "FETCH c", "ROLLBACK"],
    ),
    (Shows::All, &["SELECT * FROM row_of(2)"]),
    (Shows::Two, &["SELECT r.ssn, r.email FROM plain, LATERAL public.row_of(plain.id) WITH ORDINALITY AS r"]),
    (Shows::All, &["SELECT row_of(2)"]),
    (Shows::All, &["SELECT to_json(r) FROM row_of(2) r"]),
    (Shows::All, &["SELECT id, to_json(row_of(id)) FROM plain"]),
    (Shows::Two, &["PREPARE s AS SELECT email, ssn FROM row_of($1)", "EXECUTE s(2)", "DEALLOCATE s"]),
    (Shows::All, &["COPY (SELECT * FROM row_of(2)) TO STDOUT (FORMAT csv)"]),
    (Shows::All, &["COPY people TO STDOUT"]),
    (Shows::All, &["COPY people TO STDOUT (FORMAT csv, HEADER)"]),
    (Shows::All, &["COPY people TO STDOUT (FORMAT binary)"]),
    (Shows::Two, &["COPY people (ssn, email) TO STDOUT (FORMAT csv, FORCE_QUOTE *)"]),
    (Shows::All, &["COPY (SELECT * FROM people WHERE id = 2) TO STDOUT"]),
    (Shows::Two, &["COPY (SELECT email, ssn FROM people WHERE id = 2) TO STDOUT (FORMAT binary)"]),
    (Shows::All, &["COPY (SELECT to_json(p) FROM people p WHERE id = 2) TO STDOUT"]),
    (Shows::Two, &["BEGIN", "COPY (DELETE FROM people WHERE id = 2 RETURNING email, ssn) TO STDOUT", "ROLLBACK"]),
];

/// Roads that the proxy cannot look into. Only a role that sees cells may go them.
const CLOSED: &[&str] = &[
    "SELECT mail_of(2)",
    "SELECT * FROM mail_of(2)",
    "SELECT text_of(2)",
    "SELECT id, mail_of(id) FROM plain WHERE id = 2",
    "COPY (SELECT mail_of(2)) TO STDOUT",
    "SELECT (row_of(2)).email",
];

/// Errors whose fields the server fills with the row.
const ERRORS: &[&str] = &[
    "INSERT INTO people (id, account_id) VALUES (2, 2)",
    "UPDATE people SET account_id = NULL, note = 'm' WHERE id = 2",
    "UPDATE people SET id = 1 WHERE id = 2",
    "SELECT 1 / (id - 2) FROM people WHERE id = 2",
    "SELECT note::int4 FROM people WHERE id = 2",
];

#[test]
fn no_road_shows_a_role_more_than_it_may_see_on_15() {
    roads(Version::V15);
}

#[test]
fn no_road_shows_a_role_more_than_it_may_see_on_18() {
    roads(Version::V18);
}

fn roads(version: Version) {
    let scene = scene(version);
    let stored = ["email", "name", "nick", "ssn", "age"].map(|column| scene.stored(column, 2));
    let mut wrong = Vec::new();
    for role in ["opener", "masked", "seeker", "clerk", "cells", "nobody"] {
        let mut peer = scene.login(role);
        for (shows, statements) in ROADS {
            for way in WAYS {
                let statements: Vec<String> = statements.iter().map(ToString::to_string).collect();
                let replies = replies(&mut peer, &statements, way);
                if let Some(why) = judge(role, *shows, &replies, &stored) {
                    wrong.push(format!("{role}, {way:?}, {statements:?}: {why}: {}", show(&replies)));
                }
                peer.send(&Out::new().query("ROLLBACK; DEALLOCATE ALL; CLOSE ALL").0);
                peer.until_ready(1);
            }
        }
        for sql in CLOSED {
            for way in WAYS {
                let replies = replies(&mut peer, &[(*sql).to_owned()], way);
                let (shown, cell) = (bytes(&replies), shows_cell(&bytes(&replies)));
                if tells(&shown).is_some()
                    || (cell && role != "cells")
                    || (role != "cells" && error(&replies).is_none())
                {
                    wrong.push(format!("{role}, {way:?}, {sql}: {}", show(&replies)));
                }
            }
        }
        for sql in ERRORS {
            for way in WAYS {
                let replies = replies(&mut peer, &[(*sql).to_owned()], way);
                let shown = bytes(&replies);
                if error(&replies).is_none() || tells(&shown).is_some() || shows_cell(&shown) {
                    wrong.push(format!("{role}, {way:?}, {sql}: {}", show(&replies)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    scene.assert_nothing_is_told();
}

/// What is wrong with what a role was shown.
fn judge(role: &str, shows: Shows, replies: &[Message], stored: &[String; 5]) -> Option<String> {
    let (shown, error) = (bytes(replies), error(replies));
    let at = |shows: Shows| match shows {
        Shows::All => &[0, 1, 2, 3, 4][..],
        Shows::Two => &[0, 3],
        Shows::Mail => &[0],
    };
    let (told, cell) = (tells(&shown), shows_cell(&shown));
    let lacks = |what: &[u8]| !contains(&shown, what);
    match role {
        "opener" => {
            let missing = at(shows).iter().find(|at| {
                let number = **at == 4 && !lacks(&1_234_567_891_i32.to_be_bytes());
                lacks(SECRETS[**at].as_bytes()) && !number
            });
            match (error, cell, missing) {
                (None, false, None) => None,
                (error, cell, missing) => Some(format!("error {error:?}, cell {cell}, without {missing:?}")),
            }
        }
        "nobody" => match (error.as_deref(), told, cell) {
            (Some("42501"), None, false) => None,
            (error, told, cell) => Some(format!("error {error:?}, told {told:?}, cell {cell}")),
        },
        "cells" => {
            let raw = |at: &&usize| rowseal_hex(&stored[**at]);
            let missing = at(shows).iter().find(|at| lacks(stored[**at].as_bytes()) && lacks(&raw(at)));
            match (error, told, missing) {
                (None, None, None) => None,
                (error, told, missing) => Some(format!("error {error:?}, told {told:?}, without {missing:?}")),
            }
        }
        _ => {
            let missing = at(shows).iter().filter_map(|at| MASKS.get(*at)).find(|mask| lacks(mask.as_bytes()));
            let hash = at(shows).contains(&3) && hashes(&shown).is_empty();
            match (error, told, cell, missing, hash) {
                (None, None, false, None, false) => None,
                other => Some(format!("{other:?}")),
            }
        }
    }
}

fn rowseal_hex(digits: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(digit).collect()
}

/// All runs of exactly 32 hexadecimal digits.
fn hashes(shown: &[u8]) -> Vec<String> {
    let runs = shown.split(|byte| !(byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)));
    runs.filter(|run| run.len() == 32).map(|run| String::from_utf8_lossy(run).into_owned()).collect()
}

/// Equal values of one tenant have equal hashes, also in another session and in another proxy; of two tenants not.
#[test]
fn a_hash_says_which_values_of_a_tenant_are_equal_and_no_more() {
    let scene = scene(Version::Any);
    let written = "INSERT INTO people (id, account_id, ssn, name) VALUES (4, 1, '078-05-1120', '078-05-1120'), (5, 2, NULL, NULL)";
    assert!(scene.login("opener").ask(written).contains("INSERT 0 2"));
    let sql = "SELECT ssn FROM people ORDER BY id";
    let seen = |scene: &Scene| hashes(&bytes(&replies(&mut scene.login("masked"), &[sql.to_owned()], Way::Text)));
    let shown = seen(&scene);
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown[1] == shown[2] && shown[0] != shown[1] && shown[3] != shown[1] && shown[3] != shown[0], "{shown:?}");
    // It is no token, nor anything else that is stored.
    for column in ["email", "name", "nick", "ssn", "age"] {
        assert!(shown.iter().all(|hash| !scene.stored(column, 2).contains(hash.as_str())), "{column}");
    }
    assert_eq!(scene.proxy.stop(), 0);
    let Scene { cluster, tap, site, .. } = scene;
    let proxy = site.serve();
    let again = Scene { cluster, tap, site, proxy };
    assert_eq!(seen(&again), shown);
}
