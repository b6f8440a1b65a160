//! What every provider must do.
use rowseal::keys::kms::{EncryptionContext, KeyArn, KeyState, Kms, KmsError, KmsErrorClass, Under};

/// The class of an operation that must fail.
pub fn class<T>(result: Result<T, KmsError>) -> KmsErrorClass {
    match result {
        Ok(_) => panic!("succeeded"),
        Err(e) => e.class,
    }
}

pub fn tags(tenant: &str) -> Vec<(String, String)> {
    vec![("rowseal:tenant".to_owned(), tenant.to_owned()), ("rowseal:version".to_owned(), "1".to_owned())]
}

pub fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::new().with("rowseal:tenant", tenant).with("rowseal:dek", "0f")
}

/// Runs all of it on a provider without keys.
pub async fn suite(kms: &dyn Kms) {
    let key = creates_and_finds(kms).await;
    wraps_and_unwraps(kms, &key).await;
    refuses_what_is_foreign(kms, &key).await;
    wraps_again(kms, &key).await;
    enforces_disabled(kms, &key).await;
    enforces_pending_deletion(kms, &key).await;
    refuses_unknown_keys(kms).await;
}

async fn creates_and_finds(kms: &dyn Kms) -> KeyArn {
    assert!(kms.find_by_tag("rowseal:tenant", "acme").await.unwrap().is_empty());
    let key = kms.create_key(&tags("acme")).await.unwrap();
    kms.create_key(&tags("globex")).await.unwrap();
    assert_eq!(kms.find_by_tag("rowseal:tenant", "acme").await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(kms.find_by_tag("rowseal:version", "1").await.unwrap().len(), 2);
    let description = kms.describe(&key).await.unwrap();
    assert_eq!(description.state, KeyState::Enabled);
    assert_eq!(description.tag("rowseal:tenant"), Some("acme"));
    assert_eq!(description.tag("tenant"), None);
    key
}

async fn wraps_and_unwraps(kms: &dyn Kms, key: &KeyArn) {
    let context = context("acme");
    let made = kms.generate_data_key(key, &context).await.unwrap();
    let other = kms.generate_data_key(key, &context).await.unwrap();
    assert!(made.plaintext != other.plaintext && made.blob != other.blob);
    let (opened, request_id) = kms.decrypt(key, &made.blob, &context).await.unwrap();
    assert_eq!(opened.as_slice(), made.plaintext.as_slice());
    assert!(!request_id.is_empty() && request_id != made.request_id);
    for length in [1, 32, 4096] {
        let plaintext = vec![7; length];
        let (blob, _) = kms.encrypt(key, &plaintext, &context).await.unwrap();
        assert_eq!(*kms.decrypt(key, &blob, &context).await.unwrap().0, plaintext);
    }
    let none = EncryptionContext::new();
    let (blob, _) = kms.encrypt(key, b"canary", &none).await.unwrap();
    assert_eq!(kms.decrypt(key, &blob, &none).await.unwrap().0.as_slice(), b"canary");
    assert_eq!(class(kms.decrypt(key, &blob, &context).await), KmsErrorClass::WrongContextOrBlob);
    assert_eq!(class(kms.encrypt(key, &[7; 4097], &none).await), KmsErrorClass::WrongContextOrBlob);
}

async fn refuses_what_is_foreign(kms: &dyn Kms, key: &KeyArn) {
    let wrong = KmsErrorClass::WrongContextOrBlob;
    let made = kms.generate_data_key(key, &context("acme")).await.unwrap();
    assert_eq!(class(kms.decrypt(key, &made.blob, &context("globex")).await), wrong);
    let other = kms.create_key(&tags("initech")).await.unwrap();
    assert_eq!(class(kms.decrypt(&other, &made.blob, &context("acme")).await), wrong);
    for at in [0, 5, made.blob.len() / 2, made.blob.len() - 1] {
        let mut broken = made.blob.to_vec();
        broken[at] ^= 1;
        assert_eq!(class(kms.decrypt(key, &broken, &context("acme")).await), wrong);
        let cut = &made.blob[..at.max(1)];
        assert_eq!(class(kms.decrypt(key, cut, &context("acme")).await), wrong);
    }
    let split = EncryptionContext::new().with("a", "bc");
    let (blob, _) = kms.encrypt(key, b"x", &split).await.unwrap();
    let moved = EncryptionContext::new().with("ab", "c");
    assert_eq!(class(kms.decrypt(key, &blob, &moved).await), wrong);
    assert!(kms.decrypt(key, &blob, &split).await.is_ok());
    let (one, two) = (split.clone().with("d", "e"), EncryptionContext::new().with("d", "e").with("a", "bc"));
    let (blob, _) = kms.encrypt(key, b"x", &one).await.unwrap();
    assert!(kms.decrypt(key, &blob, &two).await.is_ok(), "the order of pairs must not matter");
}

async fn wraps_again(kms: &dyn Kms, key: &KeyArn) {
    let next = kms.create_key(&tags("acme")).await.unwrap();
    let (old, new) = (context("acme"), context("acme").with("rowseal:version", "2"));
    let (source, destination) = (Under { key, context: &old }, Under { key: &next, context: &new });
    let made = kms.generate_data_key(key, &old).await.unwrap();
    let (blob, _) = kms.re_encrypt(source, destination, &made.blob).await.unwrap();
    assert_eq!(kms.decrypt(&next, &blob, &new).await.unwrap().0.as_slice(), made.plaintext.as_slice());
    assert_eq!(class(kms.decrypt(key, &blob, &new).await), KmsErrorClass::WrongContextOrBlob);
    let lying = Under { key: &next, context: &old };
    assert_eq!(class(kms.re_encrypt(lying, destination, &made.blob).await), KmsErrorClass::WrongContextOrBlob);
    kms.disable(&next).await.unwrap();
    assert_eq!(class(kms.re_encrypt(source, destination, &made.blob).await), KmsErrorClass::Disabled);
}

async fn enforces_disabled(kms: &dyn Kms, key: &KeyArn) {
    let context = context("acme");
    let made = kms.generate_data_key(key, &context).await.unwrap();
    kms.disable(key).await.unwrap();
    kms.disable(key).await.unwrap();
    refuses_every_use(kms, key, &made.blob, KmsErrorClass::Disabled).await;
    assert_eq!(kms.describe(key).await.unwrap().state, KeyState::Disabled);
    assert_eq!(class(kms.cancel_deletion(key).await), KmsErrorClass::PendingDeletion);
    kms.enable(key).await.unwrap();
    assert_eq!(kms.decrypt(key, &made.blob, &context).await.unwrap().0.as_slice(), made.plaintext.as_slice());
}

async fn enforces_pending_deletion(kms: &dyn Kms, key: &KeyArn) {
    let made = kms.generate_data_key(key, &context("acme")).await.unwrap();
    assert!(!kms.schedule_deletion(key, 7).await.unwrap().is_empty());
    refuses_every_use(kms, key, &made.blob, KmsErrorClass::PendingDeletion).await;
    assert_eq!(kms.describe(key).await.unwrap().state, KeyState::PendingDeletion);
    assert_eq!(class(kms.enable(key).await), KmsErrorClass::PendingDeletion);
    assert_eq!(class(kms.disable(key).await), KmsErrorClass::PendingDeletion);
    assert_eq!(class(kms.schedule_deletion(key, 7).await), KmsErrorClass::PendingDeletion);
    assert!(kms.find_by_tag("rowseal:tenant", "acme").await.unwrap().contains(key));
    kms.cancel_deletion(key).await.unwrap();
    refuses_every_use(kms, key, &made.blob, KmsErrorClass::Disabled).await;
    kms.enable(key).await.unwrap();
    assert!(kms.decrypt(key, &made.blob, &context("acme")).await.is_ok());
}

async fn refuses_every_use(kms: &dyn Kms, key: &KeyArn, blob: &[u8], expected: KmsErrorClass) {
    let context = context("acme");
    let under = Under { key, context: &context };
    assert_eq!(class(kms.generate_data_key(key, &context).await), expected);
    assert_eq!(class(kms.encrypt(key, b"x", &context).await), expected);
    assert_eq!(class(kms.decrypt(key, blob, &context).await), expected);
    assert_eq!(class(kms.re_encrypt(under, under, blob).await), expected);
}

async fn refuses_unknown_keys(kms: &dyn Kms) {
    let key = KeyArn::new("arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000");
    assert_eq!(class(kms.generate_data_key(&key, &context("acme")).await), KmsErrorClass::NotFound);
    assert_eq!(class(kms.decrypt(&key, b"no blob", &context("acme")).await), KmsErrorClass::NotFound);
    assert_eq!(class(kms.describe(&key).await), KmsErrorClass::NotFound);
    assert_eq!(class(kms.disable(&key).await), KmsErrorClass::NotFound);
    let error = kms.enable(&key).await.unwrap_err();
    assert!(error.is_definitive() && error.revokes_key());
    assert_eq!(error.to_string(), "kms EnableKey: there is no such key");
}
