//! Logs of earlier releases: read for ever, and followed by a log that names their end.
use std::str::FromStr;

use super::*;

/// Five records as the release before wrote them.
const CHAIN: &str = include_str!("../../../tests/data/audit/chain.jsonl");
const HEAD: &str = "5:c7391f434dfac9b2c49eaa8bc89556c098a04efcc120f060516a7840b8aa6fea";

fn chain() -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("audit.jsonl"), CHAIN).unwrap();
    directory
}

/// Applies `tamper` to the lines of the chain and returns what is found.
fn tampered(tamper: impl FnOnce(&mut Vec<String>)) -> String {
    let directory = chain();
    let mut lines: Vec<String> = CHAIN.split_inclusive('\n').map(str::to_owned).collect();
    tamper(&mut lines);
    fs::write(directory.path().join("audit.jsonl"), lines.concat()).unwrap();
    match verify_chain(directory.path(), None) {
        Ok(_) => "whole".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_kind_of_tampering_is_found_in_a_chain() {
    let changed = "record 2 was changed";
    assert_eq!(tampered(|_| ()), "whole");
    assert_eq!(tampered(|lines| lines[1] = lines[1].replace("acme", "acm3")), changed);
    assert_eq!(tampered(|lines| lines[1] = lines[1].replace("\"rows\":2", "\"rows\":3")), changed);
    assert_eq!(tampered(|lines| lines[1] = lines[1].replace("\"seq\":2", "\"seq\": 2")), changed);
    assert_eq!(tampered(|lines| drop(lines.remove(2))), "record 4 stands where record 3 belongs");
    assert_eq!(tampered(|lines| drop(lines.remove(0))), "record 2 stands where record 1 belongs");
    assert_eq!(tampered(|lines| lines.swap(1, 2)), "record 3 stands where record 2 belongs");
    assert_eq!(tampered(|lines| lines.insert(3, lines[2].clone())), "record 3 stands where record 4 belongs");
    assert_eq!(tampered(|lines| lines.insert(3, "{}\n".to_owned())), "record 4: not a record");
    assert_eq!(tampered(|lines| lines[4].truncate(90)), "record 5 is only half written");
    let upper = |lines: &mut Vec<String>| {
        let at = lines[4].len() - 67;
        let hash = lines[4][at..].to_uppercase();
        lines[4].replace_range(at.., &hash);
    };
    assert_eq!(tampered(upper), "record 5: not a record");
}

#[test]
fn a_cut_tail_of_a_chain_shows_against_a_head_that_was_kept() {
    let directory = chain();
    let head = Head::from_str(HEAD).unwrap();
    assert_eq!(verify_chain(directory.path(), Some(&head)).unwrap(), head);
    let other = Head { hash: [1; 32], ..head };
    assert!(matches!(verify_chain(directory.path(), Some(&other)), Err(VerifyError::Forked { size: 5 })));
    let lines: Vec<&str> = CHAIN.split_inclusive('\n').collect();
    fs::write(directory.path().join("audit.jsonl"), lines[..4].concat()).unwrap();
    assert_eq!(verify_chain(directory.path(), None).unwrap().seq, 4);
    let cut = verify_chain(directory.path(), Some(&head));
    assert!(matches!(cut, Err(VerifyError::Truncated { known: 5, found: 4 })));
}

#[test]
fn a_log_that_follows_a_chain_signs_its_end_and_shows_its_records() {
    let directory = chain();
    open(directory.path()).append(&records(6..=8)).unwrap();
    open(directory.path()).append(&[record(9)]).unwrap();
    let verified = whole(directory.path());
    assert_eq!((verified.checkpoint.size, verified.chain.unwrap().to_string()), (5, HEAD.to_owned()));
    assert_eq!(fs::read_to_string(directory.path().join("audit.jsonl")).unwrap(), CHAIN);
    let mut statements = Vec::new();
    show::<VerifyError>(directory.path(), &Filter::default(), |entry| {
        statements.push(entry.statement);
        Ok(())
    })
    .unwrap();
    assert_eq!(statements, [1, 2, 3, 4, 5, 0, 6, 7, 8, 9]);
    let lines: Vec<&str> = CHAIN.split_inclusive('\n').collect();
    for other in [lines[..4].concat(), String::new()] {
        fs::write(directory.path().join("audit.jsonl"), other).unwrap();
        assert!(matches!(verify(directory.path(), None, &[]), Err(VerifyError::OtherChain)));
    }
    fs::remove_file(directory.path().join("audit.jsonl")).unwrap();
    assert!(matches!(verify(directory.path(), None, &[]), Err(VerifyError::OtherChain)));
}

#[test]
fn a_damaged_chain_is_not_followed_and_a_torn_one_is_mended_first() {
    let directory = chain();
    fs::write(directory.path().join("audit.jsonl"), CHAIN.replacen("\"rows\":3", "\"rows\":4", 1)).unwrap();
    assert!(matches!(
        Audit::open(directory.path(), Durability::Group),
        Err(AuditError::Damaged(VerifyError::Changed { seq: 3 }))
    ));
    fs::write(directory.path().join("audit.jsonl"), &CHAIN[..CHAIN.len() - 40]).unwrap();
    drop(open(directory.path()));
    let verified = whole(directory.path());
    assert_eq!((verified.chain.unwrap().seq, verified.set_aside), (4, 1));
}
