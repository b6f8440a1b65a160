//! What every provider must do.
use rowseal::keys::kms::{EncryptionContext, KeyArn, KeyState, Kms, KmsError, KmsErrorClass, Under};

const WRONG: KmsErrorClass = KmsErrorClass::WrongContextOrBlob;

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

/// A provider without keys, and what it was found not to do.
struct Examined<'a> {
    kms: &'a dyn Kms,
    failed: Vec<String>,
}

/// Runs all of it on a provider without keys; gives what did not hold.
pub async fn suite(kms: &dyn Kms) -> Vec<String> {
    let mut it = Examined { kms, failed: Vec::new() };
    let key = it.creates_and_finds().await;
    it.wraps_and_unwraps(&key).await;
    it.refuses_what_is_foreign(&key).await;
    it.wraps_again(&key).await;
    it.enforces_disabled(&key).await;
    it.enforces_pending_deletion(&key).await;
    it.refuses_unknown_keys().await;
    it.failed
}

impl Examined<'_> {
    fn check(&mut self, what: &str, holds: bool) {
        if !holds {
            self.failed.push(what.to_owned());
        }
    }

    fn done<T>(&mut self, what: &str, result: Result<T, KmsError>) {
        self.check(what, result.is_ok());
    }

    fn refused<T>(&mut self, what: &str, result: Result<T, KmsError>, class: KmsErrorClass) {
        self.check(what, result.err().map(|error| error.class) == Some(class));
    }

    async fn creates_and_finds(&mut self) -> KeyArn {
        let kms = self.kms;
        self.check("no key before the first", kms.find_by_tag("rowseal:tenant", "acme").await.unwrap().is_empty());
        let key = kms.create_key(&tags("acme")).await.unwrap();
        kms.create_key(&tags("globex")).await.unwrap();
        let found = kms.find_by_tag("rowseal:tenant", "acme").await.unwrap();
        self.check("a key is found by its tag", found == std::slice::from_ref(&key));
        let both = kms.find_by_tag("rowseal:version", "1").await.unwrap();
        self.check("several keys are found by a tag", both.len() == 2);
        let description = kms.describe(&key).await.unwrap();
        self.check("a new key is enabled", description.state == KeyState::Enabled);
        self.check("a key has its tags", description.tag("rowseal:tenant") == Some("acme"));
        self.check("a key has no other tags", description.tag("tenant").is_none());
        key
    }

    async fn wraps_and_unwraps(&mut self, key: &KeyArn) {
        let (kms, context) = (self.kms, context("acme"));
        let made = kms.generate_data_key(key, &context).await.unwrap();
        let other = kms.generate_data_key(key, &context).await.unwrap();
        self.check("data keys differ", made.plaintext.expose() != other.plaintext.expose() && made.blob != other.blob);
        let (opened, request_id) = kms.decrypt(key, &made.blob, &context).await.unwrap();
        self.check("a data key is given back", opened.as_slice() == made.plaintext.expose());
        self.check("calls have ids of their own", !request_id.is_empty() && request_id != made.request_id);
        for length in [1, 32, 4096] {
            let plaintext = vec![7; length];
            let (blob, _) = kms.encrypt(key, &plaintext, &context).await.unwrap();
            let opened = kms.decrypt(key, &blob, &context).await.unwrap().0;
            self.check("what was encrypted is given back", *opened == plaintext);
        }
        let none = EncryptionContext::new();
        let (blob, _) = kms.encrypt(key, b"canary", &none).await.unwrap();
        let opened = kms.decrypt(key, &blob, &none).await.unwrap().0;
        self.check("no context is a context", opened.as_slice() == b"canary");
        self.refused("a context where there was none", kms.decrypt(key, &blob, &context).await, WRONG);
        self.refused("4,097 bytes", kms.encrypt(key, &[7; 4097], &none).await, WRONG);
    }

    async fn refuses_what_is_foreign(&mut self, key: &KeyArn) {
        let kms = self.kms;
        let made = kms.generate_data_key(key, &context("acme")).await.unwrap();
        self.refused("another context", kms.decrypt(key, &made.blob, &context("globex")).await, WRONG);
        let other = kms.create_key(&tags("initech")).await.unwrap();
        self.refused("decrypting under another key", kms.decrypt(&other, &made.blob, &context("acme")).await, WRONG);
        for at in [0, 5, made.blob.len() / 2, made.blob.len() - 1] {
            let mut broken = made.blob.to_vec();
            broken[at] ^= 1;
            self.refused("a broken blob", kms.decrypt(key, &broken, &context("acme")).await, WRONG);
            let cut = &made.blob[..at.max(1)];
            self.refused("a blob cut short", kms.decrypt(key, cut, &context("acme")).await, WRONG);
        }
        let split = EncryptionContext::new().with("a", "bc");
        let (blob, _) = kms.encrypt(key, b"x", &split).await.unwrap();
        let moved = EncryptionContext::new().with("ab", "c");
        self.refused("{ab: c} for {a: bc}", kms.decrypt(key, &blob, &moved).await, WRONG);
        self.done("the context it was made with", kms.decrypt(key, &blob, &split).await);
        let (one, two) = (split.clone().with("d", "e"), EncryptionContext::new().with("d", "e").with("a", "bc"));
        let (blob, _) = kms.encrypt(key, b"x", &one).await.unwrap();
        self.done("the pairs in another order", kms.decrypt(key, &blob, &two).await);
    }

    async fn wraps_again(&mut self, key: &KeyArn) {
        let kms = self.kms;
        let next = kms.create_key(&tags("acme")).await.unwrap();
        let (old, new) = (context("acme"), context("acme").with("rowseal:version", "2"));
        let (source, destination) = (Under { key, context: &old }, Under { key: &next, context: &new });
        let made = kms.generate_data_key(key, &old).await.unwrap();
        let (blob, _) = kms.re_encrypt(source, destination, &made.blob).await.unwrap();
        let opened = kms.decrypt(&next, &blob, &new).await.unwrap().0;
        self.check("what was wrapped again is the same", opened.as_slice() == made.plaintext.expose());
        self.refused("the old key for what was wrapped again", kms.decrypt(key, &blob, &new).await, WRONG);
        let lying = Under { key: &next, context: &old };
        let again = kms.re_encrypt(lying, destination, &made.blob).await;
        self.refused("wrapping again from another key", again, WRONG);
        self.done("disabling a key", kms.disable(&next).await);
        let again = kms.re_encrypt(source, destination, &made.blob).await;
        self.refused("wrapping again under a disabled key", again, KmsErrorClass::Disabled);
    }

    async fn enforces_disabled(&mut self, key: &KeyArn) {
        let (kms, context) = (self.kms, context("acme"));
        let made = kms.generate_data_key(key, &context).await.unwrap();
        self.done("disabling a key", kms.disable(key).await);
        self.done("disabling a disabled key", kms.disable(key).await);
        self.refuses_every_use("disabled", key, &made.blob, KmsErrorClass::Disabled).await;
        let state = kms.describe(key).await.unwrap().state;
        self.check("a disabled key says so", state == KeyState::Disabled);
        let cancelled = kms.cancel_deletion(key).await;
        self.refused("cancelling a deletion that is none", cancelled, KmsErrorClass::PendingDeletion);
        self.done("enabling a key", kms.enable(key).await);
        self.done("using an enabled key", kms.decrypt(key, &made.blob, &context).await);
    }

    async fn enforces_pending_deletion(&mut self, key: &KeyArn) {
        let pending = KmsErrorClass::PendingDeletion;
        let kms = self.kms;
        let made = kms.generate_data_key(key, &context("acme")).await.unwrap();
        self.done("scheduling a deletion", kms.schedule_deletion(key, 7).await);
        self.refuses_every_use("pending", key, &made.blob, pending).await;
        let state = kms.describe(key).await.unwrap().state;
        self.check("a key pending deletion says so", state == KeyState::PendingDeletion);
        self.refused("enabling a key pending deletion", kms.enable(key).await, pending);
        self.refused("disabling a key pending deletion", kms.disable(key).await, pending);
        self.refused("scheduling a deletion twice", kms.schedule_deletion(key, 7).await, pending);
        let found = kms.find_by_tag("rowseal:tenant", "acme").await.unwrap();
        self.check("a key pending deletion is found", found.contains(key));
        self.done("cancelling a deletion", kms.cancel_deletion(key).await);
        self.refuses_every_use("disabled", key, &made.blob, KmsErrorClass::Disabled).await;
        self.done("enabling a key", kms.enable(key).await);
        self.done("using an enabled key", kms.decrypt(key, &made.blob, &context("acme")).await);
    }

    async fn refuses_every_use(&mut self, state: &str, key: &KeyArn, blob: &[u8], expected: KmsErrorClass) {
        let (kms, context) = (self.kms, context("acme"));
        let under = Under { key, context: &context };
        self.refused(&format!("{state}: GenerateDataKey"), kms.generate_data_key(key, &context).await, expected);
        self.refused(&format!("{state}: Encrypt"), kms.encrypt(key, b"x", &context).await, expected);
        self.refused(&format!("{state}: Decrypt"), kms.decrypt(key, blob, &context).await, expected);
        self.refused(&format!("{state}: ReEncrypt"), kms.re_encrypt(under, under, blob).await, expected);
    }

    async fn refuses_unknown_keys(&mut self) {
        let (kms, unknown) = (self.kms, KmsErrorClass::NotFound);
        let key = KeyArn::new("arn:aws:kms:us-east-1:111122223333:key/00000000-0000-0000-0000-000000000000");
        self.refused("unknown: GenerateDataKey", kms.generate_data_key(&key, &context("acme")).await, unknown);
        self.refused("unknown: Decrypt", kms.decrypt(&key, b"no blob", &context("acme")).await, unknown);
        self.refused("unknown: DescribeKey", kms.describe(&key).await, unknown);
        self.refused("unknown: DisableKey", kms.disable(&key).await, unknown);
        let error = kms.enable(&key).await.unwrap_err();
        self.check("unknown: revokes", error.is_definitive() && error.revokes_key());
        self.check("unknown: EnableKey", error.to_string() == "kms EnableKey: there is no such key");
    }
}
