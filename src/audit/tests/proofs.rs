//! Proofs of single records, and exports of a tenant's.
use super::*;

fn key(directory: &Path) -> VerifierKey {
    verifier(directory).unwrap()
}

#[test]
fn each_record_of_logs_of_many_sizes_is_proved() {
    for size in [1, 2, 3, 7, 8, 255, 256, 257, 600] {
        let directory = log_of(size);
        for seq in (1..=size).filter(|seq| size < 10 || seq % 37 == 0 || *seq == size) {
            let proof = prove(directory.path(), seq).unwrap().unwrap();
            let text = proof.encode();
            assert_eq!(Proof::decode_all(&text).unwrap(), std::slice::from_ref(&proof));
            let (entry, checkpoint) = proof.check(&key(directory.path())).unwrap();
            assert_eq!((entry.statement, checkpoint.size), (seq, size));
        }
        assert_eq!(prove(directory.path(), 0).unwrap(), None);
        assert_eq!(prove(directory.path(), size + 1).unwrap(), None);
    }
}

#[test]
fn a_proof_that_was_changed_in_any_byte_does_not_hold() {
    let directory = log_of(7);
    let key = key(directory.path());
    let text = prove(directory.path(), 3).unwrap().unwrap().encode();
    assert!(Proof::decode_all(&text).unwrap()[0].check(&key).is_ok());
    for at in 0..text.len() {
        for other in [b'A', b'x', b'\n', b'1'] {
            let mut bytes = text.clone().into_bytes();
            if bytes[at] == other {
                continue;
            }
            bytes[at] = other;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let holds =
                Proof::decode_all(&changed).is_ok_and(|proofs| proofs.iter().all(|proof| proof.check(&key).is_ok()));
            assert!(!holds, "{at} {other}: {changed}");
        }
    }
    let good = prove(directory.path(), 3).unwrap().unwrap();
    let other = prove(directory.path(), 4).unwrap().unwrap();
    for bad in [
        Proof { index: 3, ..good.clone() },
        Proof { index: u64::MAX, ..good.clone() },
        Proof { entry: other.entry.clone(), ..good.clone() },
        Proof { hashes: other.hashes.clone(), ..good.clone() },
        Proof { hashes: good.hashes[1..].to_vec(), ..good.clone() },
        Proof { hashes: [&good.hashes[..], &good.hashes[..1]].concat(), ..good.clone() },
    ] {
        assert!(matches!(bad.check(&key), Err(ProofError::NotIncluded { .. })), "{bad:?}");
    }
    let foreign = verifier(log_of(7).path()).unwrap();
    assert!(matches!(good.check(&foreign), Err(ProofError::Note(_))));
}

#[test]
fn an_export_has_all_of_a_tenant_and_nothing_of_another() {
    let directory = TempDir::new().unwrap();
    let audit = open(directory.path());
    let search =
        |n: u64, tenant: &str| Record { act: Act::Search, dek_ids: vec![], tenant: tenant.into(), ..record(n) };
    for n in 0..300 {
        audit.append(&[record(n), search(n, "acme"), search(n, "umbrella")]).unwrap();
    }
    drop(audit);
    let (mut text, mut count) = (String::new(), 0);
    let unsigned = export::<VerifyError>(directory.path(), "acme", |proof| {
        text.push_str(&proof.encode());
        count += 1;
        Ok(())
    });
    assert_eq!((unsigned.unwrap(), count), (0, 450));
    let proofs = Proof::decode_all(&text).unwrap();
    assert_eq!(proofs.len(), 450);
    for proof in &proofs {
        let (entry, _) = proof.check(&key(directory.path())).unwrap();
        assert_eq!(entry.tenant, "acme");
        for other in ["globex", "umbrella"] {
            assert!(!String::from_utf8_lossy(&proof.entry).contains(other) && !text.contains(other));
        }
    }
    // The neighbour of a record is only a hash, and one that cannot be guessed: no two are alike.
    let mut leaves: Vec<_> = proofs.iter().map(|proof| proof.hashes[0].0).collect();
    leaves.sort_unstable();
    leaves.dedup();
    assert!(leaves.len() > 300);
}
