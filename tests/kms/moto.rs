//! A second opinion on the wire: the suite against moto, which is not ours. It is lax where the strict stand-in is not,
//! so what it does otherwise is listed, and the list must be exact.
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use rowseal::keys::kms::aws::{AwsKms, AwsSettings};

use super::suite::suite;
use crate::support::guard::{Guarded, poll};

/// What does not hold with moto, and why that says nothing about the provider.
const DIFFERS: &[(&str, &str)] = &[
    (
        "a broken blob",
        "answers NotFound or AccessDenied where AWS answers InvalidCiphertext: it reads the key's id from the blob",
    ),
    ("decrypting under another key", "answers AccessDenied where AWS answers IncorrectKey"),
    ("the old key for what was wrapped again", "the same"),
    ("wrapping again from another key", "looks for the source key in the blob and ignores SourceKeyId"),
    ("{ab: c} for {a: bc}", "joins names and values of the context without lengths"),
    ("disabling a key", BY_ARN),
    ("disabling a disabled key", BY_ARN),
    ("disabling a key pending deletion", BY_ARN),
    ("enabling a key", BY_ARN),
    ("enabling a key pending deletion", BY_ARN),
    ("scheduling a deletion", BY_ARN),
    ("scheduling a deletion twice", BY_ARN),
    ("cancelling a deletion", BY_ARN),
    ("cancelling a deletion that is none", BY_ARN),
    ("a disabled key says so", NO_STATE),
    ("a key pending deletion says so", NO_STATE),
    ("wrapping again under a disabled key", NO_STATE),
    ("disabled: GenerateDataKey", NO_STATE),
    ("disabled: Encrypt", NO_STATE),
    ("disabled: Decrypt", NO_STATE),
    ("disabled: ReEncrypt", NO_STATE),
    ("pending: GenerateDataKey", NO_STATE),
    ("pending: Encrypt", NO_STATE),
    ("pending: Decrypt", NO_STATE),
    ("pending: ReEncrypt", NO_STATE),
];

const BY_ARN: &str =
    "answers 500 when a key whose state is to be changed is named by its ARN, as the registry names it";
const NO_STATE: &str = "the state could not be changed; and it uses keys in whatever state they are";

/// Starts moto on a port that the system chooses; it ends with the guard.
fn start(dir: &Path) -> (Guarded, SocketAddr) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/venv/bin/moto_server");
    assert!(program.exists(), "moto is not installed: run scripts/bootstrap.sh");
    let moto = Guarded::spawn(dir, &program, &["-H", "127.0.0.1", "-p", "0"]);
    let address = poll("moto's port", || {
        assert!(moto.ended().is_none(), "moto ended at once:\n{}", moto.log());
        let log = moto.log();
        let address = log.split("Running on http://").nth(1)?.split_whitespace().next()?;
        address.trim_end_matches('/').parse().ok()
    });
    (moto, address)
}

#[tokio::test]
async fn moto_agrees_but_for_what_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let (moto, address) = start(dir.path());
    let settings = AwsSettings { endpoint: Some(format!("http://{address}")), ..AwsSettings::default() };
    let differs: BTreeSet<String> =
        suite(&AwsKms::with_credentials(&settings, "test", "test")).await.into_iter().collect();
    let listed: BTreeSet<String> = DIFFERS.iter().map(|(what, _)| (*what).to_owned()).collect();
    assert_eq!(differs, listed, "{}", moto.log());
}
