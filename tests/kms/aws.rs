//! AWS KMS through the real SDK, against the strict stand-in.
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rowseal::keys::kms::aws::{AwsKms, AwsSettings};
use rowseal::keys::kms::{Kms, KmsErrorClass, Patient};
use serde_json::{Value, json};

use super::suite::{class, context, suite, tags};
use crate::strict_kms::{self as server, StrictKms};

async fn start() -> (AwsKms, Arc<StrictKms>) {
    let (address, server) = server::start("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let settings = AwsSettings { endpoint: Some(format!("http://{address}")), ..AwsSettings::default() };
    (AwsKms::with_credentials(&settings, "test", "test"), server)
}

fn set(server: &StrictKms, knobs: Value) {
    server.control(&knobs).unwrap();
}

#[tokio::test]
async fn aws_does_what_a_kms_does() {
    assert_eq!(suite(&start().await.0).await, Vec::<String>::new());
}

#[tokio::test]
async fn blobs_have_the_size_aws_gives_and_calls_name_their_keys() {
    let (kms, server) = start().await;
    let key = kms.create_key(&tags("acme")).await.unwrap();
    let made = kms.generate_data_key(&key, &context("acme")).await.unwrap();
    assert_eq!(made.blob.len(), 184);
    let (_, request_id) = kms.decrypt(&key, &made.blob, &context("acme")).await.unwrap();
    let log = server.log();
    let entry = log.iter().find(|entry| entry["request_id"] == request_id.as_str()).unwrap();
    assert_eq!(entry["operation"], "Decrypt");
    assert_eq!(entry["key_id"], key.as_str());
    assert_eq!(entry["context"], json!({"rowseal:tenant": "acme", "rowseal:dek": "0f"}));
    assert!(log.iter().any(|entry| entry["request_id"] == made.request_id.as_str()));
    assert!(log.iter().all(|entry| entry["key_id"].is_string()));
}

#[tokio::test]
async fn errors_are_classed_by_name_and_carry_the_request_id() {
    let (kms, server) = start().await;
    let key = kms.create_key(&tags("acme")).await.unwrap();
    let cases = [
        ("AccessDeniedException", KmsErrorClass::AccessDenied),
        ("DisabledException", KmsErrorClass::Disabled),
        ("KMSInvalidStateException", KmsErrorClass::PendingDeletion),
        ("NotFoundException", KmsErrorClass::NotFound),
        ("ThrottlingException", KmsErrorClass::Throttled),
        ("KMSInternalException", KmsErrorClass::Transient),
        ("KeyUnavailableException", KmsErrorClass::Transient),
        ("DependencyTimeoutException", KmsErrorClass::Transient),
        ("ServiceUnavailable", KmsErrorClass::Transient),
        ("UnrecognizedClientException", KmsErrorClass::Credentials),
        ("ExpiredTokenException", KmsErrorClass::Credentials),
    ];
    for (name, expected) in cases {
        set(&server, json!({"error_burst": 1, "error_name": name}));
        let error = kms.describe(&key).await.unwrap_err();
        assert_eq!(error.class, expected, "{name}");
        let last = server.log().last().cloned().unwrap();
        assert_eq!(error.request_id.as_deref(), last["request_id"].as_str(), "{name}");
        set(&server, json!({"error_burst": 0}));
    }
}

#[tokio::test]
async fn the_provider_asks_once_and_patience_asks_again() {
    let (kms, server) = start().await;
    let key = kms.create_key(&tags("acme")).await.unwrap();
    let kms = Arc::new(kms);
    let patient = Patient::new(kms.clone());
    for trouble in [
        json!({"error_burst": 3, "error_name": "ThrottlingException"}),
        json!({"error_burst": 3, "error_name": "KMSInternalException"}),
        json!({"error_burst": 3, "error_name": "ServiceUnavailable"}),
        json!({"cut": 3}),
        json!({"lose_replies": 3}),
    ] {
        set(&server, trouble.clone());
        assert!(class(kms.generate_data_key(&key, &context("acme")).await).is_passing(), "{trouble}");
        assert!(patient.generate_data_key(&key, &context("acme")).await.is_ok(), "{trouble}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up_and_asked_for_again() {
    let (kms, server) = start().await;
    let key = kms.create_key(&tags("acme")).await.unwrap();
    set(&server, json!({"stall": 1}));
    let begun = Instant::now();
    let made = Patient::new(Arc::new(kms)).generate_data_key(&key, &context("acme")).await;
    assert!(made.is_ok() && begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_cannot_call_at_all_is_told_what_is_missing() {
    let endpoint = |endpoint: &str| AwsSettings { endpoint: Some(endpoint.to_owned()), ..AwsSettings::default() };
    let cases = [
        ("http://127.0.0.1:1", KmsErrorClass::Transient, "refused"),
        ("nowhere", KmsErrorClass::Credentials, "the endpoint is not a URL"),
    ];
    for (address, class, part) in cases {
        let kms = AwsKms::with_credentials(&endpoint(address), "test", "test");
        let error = kms.describe(&rowseal::keys::kms::KeyArn::new("arn:aws:kms:x")).await.unwrap_err();
        assert!(error.class == class && error.to_string().contains(part), "{address}: {error}");
    }
}

#[tokio::test]
async fn a_key_whose_creation_was_not_heard_of_is_found_and_not_created_twice() {
    let (kms, server) = start().await;
    set(&server, json!({"lose_replies": 1, "only": "CreateKey"}));
    let error = kms.create_key(&tags("acme")).await.unwrap_err();
    assert_eq!((error.class, error.request_id), (KmsErrorClass::Transient, None));
    assert_eq!(kms.find_by_tag("rowseal:tenant", "acme").await.unwrap().len(), 1);
}

#[tokio::test]
async fn many_keys_are_searched_page_by_page() {
    let (kms, _server) = start().await;
    for n in 0..105 {
        kms.create_key(&tags(&format!("t{n}"))).await.unwrap();
    }
    assert_eq!(kms.find_by_tag("rowseal:version", "1").await.unwrap().len(), 105);
    assert_eq!(kms.find_by_tag("rowseal:tenant", "t104").await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_outage_ends_in_an_error_within_the_deadline() {
    let (kms, server) = start().await;
    let key = kms.create_key(&tags("acme")).await.unwrap();
    let kms = Patient::new(Arc::new(kms));
    set(&server, json!({"outage": true}));
    let begun = Instant::now();
    assert_eq!(class(kms.generate_data_key(&key, &context("acme")).await), KmsErrorClass::Transient);
    assert!(begun.elapsed() < Duration::from_secs(9));
    set(&server, json!({"outage": false}));
    assert!(kms.generate_data_key(&key, &context("acme")).await.is_ok());
}

#[tokio::test]
async fn a_new_key_may_not_be_seen_at_once() {
    let (kms, server) = start().await;
    set(&server, json!({"propagation_ms": 60_000}));
    let key = kms.create_key(&tags("acme")).await.unwrap();
    assert_eq!(class(kms.generate_data_key(&key, &context("acme")).await), KmsErrorClass::NotFound);
    set(&server, json!({"propagation_ms": 0}));
    let key = kms.create_key(&tags("globex")).await.unwrap();
    set(&server, json!({"propagation_ms": 60_000}));
    kms.disable(&key).await.unwrap();
    assert!(kms.generate_data_key(&key, &context("globex")).await.is_ok(), "the new state is not yet seen");
}

#[tokio::test]
async fn a_quota_throttles() {
    let (kms, server) = start().await;
    let key = kms.create_key(&tags("acme")).await.unwrap();
    set(&server, json!({"quota_per_second": 1}));
    for _ in 0..3 {
        let _ = kms.generate_data_key(&key, &context("acme")).await;
    }
    let throttled = |entry: &Value| entry["outcome"] == "ThrottlingException";
    assert!(server.log().iter().any(throttled));
}

#[tokio::test]
async fn keys_of_the_stand_in_outlive_it_in_its_state_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let mut made = None;
    for _ in 0..2 {
        let (address, server) = server::start("127.0.0.1:0".parse().unwrap(), Some(file.clone())).await.unwrap();
        let settings = AwsSettings { endpoint: Some(format!("http://{address}")), ..AwsSettings::default() };
        let kms = AwsKms::with_credentials(&settings, "test", "test");
        match &made {
            None => {
                let key = kms.create_key(&tags("acme")).await.unwrap();
                let data_key = kms.generate_data_key(&key, &context("acme")).await.unwrap();
                made = Some((key, data_key.blob));
            }
            Some((key, blob)) => assert!(kms.decrypt(key, blob, &context("acme")).await.is_ok()),
        }
        assert!(!server.knobs().outage);
    }
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_key_is_logged_even_at_trace_level() {
    let log = Captured::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    tracing::subscriber::set_global_default(subscriber.with_writer(move || writer.clone()).finish()).unwrap();
    let (kms, _server) = start().await;
    let key = kms.create_key(&tags("acme")).await.unwrap();
    // Base64 of it begins with Q0FOQVJZ whatever follows.
    let (blob, _) = kms.encrypt(&key, b"CANARY of a key", &context("acme")).await.unwrap();
    kms.decrypt(&key, &blob, &context("acme")).await.unwrap();
    let nowhere = AwsSettings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..AwsSettings::default() };
    let unreachable = AwsKms::with_credentials(&nowhere, "test", "test");
    assert_eq!(class(unreachable.create_key(&tags("acme")).await), KmsErrorClass::Transient);
    // The SDK quotes a request that it cannot address.
    let nowhere = AwsSettings { endpoint: Some("nowhere".to_owned()), ..AwsSettings::default() };
    let lost = AwsKms::with_credentials(&nowhere, "test", "test");
    let error = lost.encrypt(&key, b"CANARY of a key", &context("acme")).await.unwrap_err();
    tracing::warn!(%error, ?error, "not encrypted");
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let gave_none = |line: &&str| line.contains("the key service gave no answer") && line.contains("CreateKey");
    let cause = log.lines().find(gave_none).unwrap();
    assert!(cause.contains("CreateKey") && cause.contains("refused"), "{cause}");
    for form in ["CANARY", "Q0FOQVJZ", "43414e415259", "67, 65, 78, 65, 82, 89"] {
        assert!(!log.contains(form), "{form}");
    }
    // Whether the SDK prints bodies is up to an environment variable, so its calls must not log at all.
    assert!(!log.contains("KMS.Decrypt") && !log.contains("CiphertextBlob"));
}
