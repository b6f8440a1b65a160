//! Every use of a master key is in the audit log (A1), whoever asked for it: a statement, a pool that is filled, a canary, a
//! registration. Below [`Patient`](super::Patient), so that each attempt counts.
//!
//! A call is recorded when it was answered and before the answer is handed on; what cannot be recorded did not happen for
//! the caller (A4). What only describes or finds keys is no use of one.
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::{
    DataKey, Decrypted, Encrypted, EncryptionContext, KeyArn, KeyDescription, Kms, KmsError, KmsErrorClass, KmsFuture,
    Under,
};
use crate::audit::{Act, Audit, AuditError, Durability, Record, Who, WhoFields};
use crate::crypto::DekId;
use crate::keys::context::{DEK, PURPOSE, TAG_TENANT};

/// How long a log that another process has open is waited for.
const OPEN_TRIES_MAX: u32 = 100;
const OPEN_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Where calls are recorded.
#[derive(Clone)]
pub enum Recorder {
    /// In this log.
    Log(Arc<Audit>),
    /// In a log that is opened when the first call is to be recorded: what does not use keys leaves no trace.
    WhenNeeded(LogPlace, Arc<OnceLock<Arc<Audit>>>),
    /// In a log that is opened for each record and closed again, so that a long command keeps no other from being recorded.
    Briefly(LogPlace),
}

/// What it takes to open a log.
#[derive(Debug, Clone)]
pub struct LogPlace {
    /// Its directory.
    pub directory: PathBuf,
    /// When a record is on disk.
    pub durability: Durability,
    /// The file with its signing key, if it is elsewhere.
    pub key: Option<PathBuf>,
}

impl Recorder {
    /// A log that is opened when it is needed.
    pub fn at(place: LogPlace) -> Recorder {
        Recorder::WhenNeeded(place, Arc::default())
    }

    /// The log, opened if need be; waits for a while where another process has it open.
    ///
    /// # Errors
    /// [`AuditError`] when it cannot be opened.
    pub fn log(&self) -> Result<Arc<Audit>, AuditError> {
        match self {
            Recorder::Log(audit) => Ok(audit.clone()),
            Recorder::WhenNeeded(place, opened) => match opened.get() {
                Some(audit) => Ok(audit.clone()),
                None => {
                    let audit = Arc::new(place.open()?);
                    Ok(opened.get_or_init(|| audit).clone())
                }
            },
            Recorder::Briefly(place) => Ok(Arc::new(place.open()?)),
        }
    }
}

impl LogPlace {
    fn open(&self) -> Result<Audit, AuditError> {
        let open = || Audit::open_with_key(&self.directory, self.durability, self.key.as_deref());
        for _ in 0..OPEN_TRIES_MAX {
            match open() {
                Err(AuditError::InUse) => std::thread::sleep(OPEN_PAUSE),
                opened => return opened,
            }
        }
        open()
    }
}

/// A provider whose calls are recorded.
pub struct Recorded {
    kms: Arc<dyn Kms>,
    recorder: Recorder,
    who: Who,
    /// False where the caller records these itself, many at a time.
    with_rewraps: bool,
}

/// What a record says of a call.
struct Call<'a> {
    operation: &'static str,
    key: &'a KeyArn,
    tenant: &'a str,
    dek_id: Option<DekId>,
    purpose: Option<&'a str>,
}

impl<'a> Call<'a> {
    fn new(operation: &'static str, key: &'a KeyArn) -> Call<'a> {
        Call { operation, key, tenant: "", dek_id: None, purpose: None }
    }

    fn bound(operation: &'static str, key: &'a KeyArn, context: &'a EncryptionContext) -> Call<'a> {
        let value = |wanted| context.pairs().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        let tenant = value(TAG_TENANT).unwrap_or_default();
        let mut id = Vec::new();
        let is_id = value(DEK).is_some_and(|digits| crate::hex::decode_into(digits.as_bytes(), &mut id));
        let dek_id = id.try_into().ok().filter(|_| is_id).map(DekId);
        Call { operation, key, tenant, dek_id, purpose: value(PURPOSE) }
    }
}

impl Recorded {
    /// Records what is asked of `kms`.
    pub fn new(kms: Arc<dyn Kms>, recorder: Recorder) -> Recorded {
        let who = WhoFields { database: "", user: "", role: "", client: "", application: "rowseal", session: 0 };
        Recorded { kms, recorder, who: Who::new(who), with_rewraps: true }
    }

    /// The same for a caller that records each ReEncrypt itself, with its request id.
    #[must_use]
    pub fn without_rewraps(self) -> Recorded {
        Recorded { with_rewraps: false, ..self }
    }

    /// Records how a call ended; then the caller may know.
    async fn recorded<T>(
        &self,
        call: Call<'_>,
        outcome: Result<T, KmsError>,
        request: impl Fn(&T) -> Option<&str>,
    ) -> Result<T, KmsError> {
        let id = outcome.as_ref().map_or_else(|error| error.request_id.as_deref(), &request).map(str::to_owned);
        let record = self.record(&call, id, outcome.as_ref().err());
        match (self.append(record).await, outcome) {
            (Ok(()), outcome) | (Err(_), outcome @ Err(_)) => outcome,
            (Err(error), Ok(_)) => {
                tracing::error!(%error, operation = call.operation, "audit record of a key use not written");
                Err(KmsError::new(call.operation, KmsErrorClass::Unrecorded))
            }
        }
    }

    fn record(&self, call: &Call<'_>, request: Option<String>, error: Option<&KmsError>) -> Record {
        let of = call.purpose.map(|purpose| format!(" ({purpose})")).unwrap_or_default();
        let ended = error.map(|error| format!(": {}", error.class.text())).unwrap_or_default();
        Record {
            act: Act::Key,
            who: self.who.clone(),
            statement: 0,
            tenant: call.tenant.into(),
            key: None,
            dek_ids: call.dek_id.into_iter().collect(),
            columns: Vec::new(),
            rows: 0,
            result: error.map_or("ok", |error| if error.revokes_key() { "55000" } else { "58030" }),
            kms_requests: request.into_iter().collect(),
            detail: Some(format!("{}{of} {}{ended}", call.operation, call.key)),
        }
    }

    /// Calls that end at the same time are written together, as statements are.
    async fn append(&self, record: Record) -> Result<(), AuditError> {
        let audit = self.recorder.log()?;
        if matches!(self.recorder, Recorder::Briefly(_)) {
            // Not open while others go on: they would wait for it.
            return audit.append(&[record]);
        }
        let ticket = audit.submit(&[record]);
        tokio::task::yield_now().await;
        match audit.try_commit(&ticket) {
            Some(written) => written,
            None => audit.commit(&ticket),
        }
    }
}

impl Kms for Recorded {
    fn settles_within(&self) -> std::time::Duration {
        self.kms.settles_within()
    }

    fn create_key<'a>(&'a self, tags: &'a [(String, String)]) -> KmsFuture<'a, KeyArn> {
        Box::pin(async move {
            let outcome = self.kms.create_key(tags).await;
            let tenant = tags.iter().find(|(name, _)| name == TAG_TENANT).map_or("", |(_, value)| value);
            let none = KeyArn::new("");
            let key = outcome.as_ref().unwrap_or(&none).clone();
            self.recorded(Call { tenant, ..Call::new("CreateKey", &key) }, outcome, |_| None).await
        })
    }

    fn find_by_tag<'a>(&'a self, name: &'a str, value: &'a str) -> KmsFuture<'a, Vec<KeyArn>> {
        self.kms.find_by_tag(name, value)
    }

    fn generate_data_key<'a>(&'a self, key: &'a KeyArn, context: &'a EncryptionContext) -> KmsFuture<'a, DataKey> {
        Box::pin(async move {
            let outcome = self.kms.generate_data_key(key, context).await;
            let call = Call::bound("GenerateDataKey", key, context);
            self.recorded(call, outcome, |made| Some(&made.request_id)).await
        })
    }

    fn encrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        plaintext: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            let outcome = self.kms.encrypt(key, plaintext, context).await;
            self.recorded(Call::bound("Encrypt", key, context), outcome, |(_, id)| Some(id)).await
        })
    }

    fn decrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        blob: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Decrypted> {
        Box::pin(async move {
            let outcome = self.kms.decrypt(key, blob, context).await;
            self.recorded(Call::bound("Decrypt", key, context), outcome, |(_, id)| Some(id)).await
        })
    }

    fn re_encrypt<'a>(&'a self, source: Under<'a>, destination: Under<'a>, blob: &'a [u8]) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            let outcome = self.kms.re_encrypt(source, destination, blob).await;
            if !self.with_rewraps {
                return outcome;
            }
            let call = Call::bound("ReEncrypt", destination.key, destination.context);
            self.recorded(call, outcome, |(_, id)| Some(id)).await
        })
    }

    fn disable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.act("DisableKey", key, self.kms.disable(key))
    }

    fn enable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.act("EnableKey", key, self.kms.enable(key))
    }

    fn schedule_deletion<'a>(&'a self, key: &'a KeyArn, days: u8) -> KmsFuture<'a, String> {
        self.act("ScheduleKeyDeletion", key, self.kms.schedule_deletion(key, days))
    }

    fn cancel_deletion<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.act("CancelKeyDeletion", key, self.kms.cancel_deletion(key))
    }

    fn describe<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, KeyDescription> {
        self.kms.describe(key)
    }
}

impl Recorded {
    /// What changes a key's state gives its request id.
    fn act<'a>(
        &'a self,
        operation: &'static str,
        key: &'a KeyArn,
        asked: KmsFuture<'a, String>,
    ) -> KmsFuture<'a, String> {
        Box::pin(async move {
            let outcome = asked.await;
            self.recorded(Call::new(operation, key), outcome, |id| Some(id)).await
        })
    }
}
