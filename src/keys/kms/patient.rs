//! Patience with the key service: what fails in passing is asked again, after pauses of growing and random length, for
//! a bounded time.
//!
//! This is the only place where calls are repeated (the AWS client is told not to), so that a service in trouble is not
//! asked a multiple of times for the same thing. Start at [`Patient`].
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    DataKey, Decrypted, Encrypted, EncryptionContext, KeyArn, KeyDescription, Kms, KmsError, KmsErrorClass, KmsFuture,
    Under,
};
use crate::crypto::random_bytes;

/// How long a call is repeated; below the deadline of a grant, so that the caller hears what was wrong.
pub const RETRY_FOR: Duration = Duration::from_secs(6);

/// How long it is repeated while the service is known to be away.
const AWAY_RETRY_FOR: Duration = Duration::from_millis(250);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A provider whose calls are repeated while they fail in passing: throttled, timed out, cut off, 5xx.
///
/// Only calls that may be made twice are: not [`Kms::create_key`], [`Kms::schedule_deletion`] and
/// [`Kms::cancel_deletion`], whose first attempt may have had its effect, and not [`Kms::find_by_tag`], which is many
/// calls and repeats each by itself.
///
/// A call that was repeated in vain tells that the service is away. Until the next answer, calls are repeated for a
/// moment only, so that statements are refused at once instead of piling up.
pub struct Patient {
    kms: Arc<dyn Kms>,
    within: Duration,
    is_away: AtomicBool,
}

impl Patient {
    /// Repeats for [`RETRY_FOR`].
    pub fn new(kms: Arc<dyn Kms>) -> Self {
        Patient::within(kms, RETRY_FOR)
    }

    /// Repeats for this long.
    pub fn within(kms: Arc<dyn Kms>, within: Duration) -> Self {
        Patient { kms, within, is_away: AtomicBool::new(false) }
    }

    fn again<'a, T: Send + 'a>(&'a self, call: impl Fn() -> KmsFuture<'a, T> + Send + 'a) -> KmsFuture<'a, T> {
        Box::pin(async move {
            let within = if self.is_away.load(SeqCst) { AWAY_RETRY_FOR.min(self.within) } else { self.within };
            let outcome = again_while(within, KmsErrorClass::is_passing, call).await;
            match outcome.as_ref().err().map(|error| error.class) {
                Some(class) if class.is_passing() => self.is_away.store(true, SeqCst),
                // It was not asked, or its answer is not known.
                Some(KmsErrorClass::Credentials | KmsErrorClass::Unrecorded) => {}
                _ => self.is_away.store(false, SeqCst),
            }
            outcome
        })
    }
}

/// Makes a call again while its error is worth it; gives up, with the last error, before `within` has passed. The
/// latest attempt may end later than that.
///
/// # Cancel safety
/// As that of the call.
pub async fn again_while<T, F: Future<Output = Result<T, KmsError>>>(
    within: Duration,
    worth: impl Fn(KmsErrorClass) -> bool,
    call: impl Fn() -> F,
) -> Result<T, KmsError> {
    let (end, mut longest) = (Instant::now() + within, FIRST_PAUSE);
    loop {
        let error = match call().await {
            Err(error) if worth(error.class) => error,
            outcome => return outcome,
        };
        let pause = some_of(longest);
        if Instant::now() + pause >= end {
            return Err(error);
        }
        tracing::debug!(%error, request = error.request_id, "the key service is asked again");
        sleep(pause).await;
        longest = (longest * 2).min(PAUSE_MAX);
    }
}

/// Half of it to all of it, so that callers that failed together do not come back together.
fn some_of(longest: Duration) -> Duration {
    let share = f64::from(u16::from_be_bytes(random_bytes())) / f64::from(u16::MAX);
    longest.mul_f64(0.5 + share / 2.0)
}

impl Kms for Patient {
    fn settles_within(&self) -> Duration {
        self.kms.settles_within()
    }

    fn create_key<'a>(&'a self, tags: &'a [(String, String)]) -> KmsFuture<'a, KeyArn> {
        self.kms.create_key(tags)
    }

    fn find_by_tag<'a>(&'a self, name: &'a str, value: &'a str) -> KmsFuture<'a, Vec<KeyArn>> {
        self.kms.find_by_tag(name, value)
    }

    fn generate_data_key<'a>(&'a self, key: &'a KeyArn, context: &'a EncryptionContext) -> KmsFuture<'a, DataKey> {
        self.again(move || self.kms.generate_data_key(key, context))
    }

    fn encrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        plaintext: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Encrypted> {
        self.again(move || self.kms.encrypt(key, plaintext, context))
    }

    fn decrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        blob: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Decrypted> {
        self.again(move || self.kms.decrypt(key, blob, context))
    }

    fn re_encrypt<'a>(&'a self, source: Under<'a>, destination: Under<'a>, blob: &'a [u8]) -> KmsFuture<'a, Encrypted> {
        self.again(move || self.kms.re_encrypt(source, destination, blob))
    }

    fn disable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.again(move || self.kms.disable(key))
    }

    fn enable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.again(move || self.kms.enable(key))
    }

    fn schedule_deletion<'a>(&'a self, key: &'a KeyArn, days: u8) -> KmsFuture<'a, String> {
        self.kms.schedule_deletion(key, days)
    }

    fn cancel_deletion<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        self.kms.cancel_deletion(key)
    }

    fn describe<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, KeyDescription> {
        self.again(move || self.kms.describe(key))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    async fn attempts(class: KmsErrorClass, failures: usize, within: Duration) -> (usize, bool) {
        let calls = AtomicUsize::new(0);
        let call = || async {
            let fails = calls.fetch_add(1, SeqCst) < failures;
            if fails { Err(KmsError::new("Decrypt", class)) } else { Ok(()) }
        };
        let outcome = again_while(within, KmsErrorClass::is_passing, call).await;
        (calls.load(SeqCst), outcome.is_ok())
    }

    #[tokio::test]
    async fn what_passes_is_asked_again_and_what_does_not_is_not() {
        for (class, failures, expected) in [
            (KmsErrorClass::Throttled, 2, (3, true)),
            (KmsErrorClass::Transient, 1, (2, true)),
            (KmsErrorClass::Disabled, 1, (1, false)),
            (KmsErrorClass::AccessDenied, 1, (1, false)),
            (KmsErrorClass::WrongContextOrBlob, 1, (1, false)),
            (KmsErrorClass::Credentials, 1, (1, false)),
        ] {
            assert_eq!(attempts(class, failures, RETRY_FOR).await, expected, "{class:?}");
        }
    }

    #[tokio::test]
    async fn it_ends_in_time() {
        let (within, began) = (Duration::from_millis(500), Instant::now());
        let (calls, is_ok) = attempts(KmsErrorClass::Transient, usize::MAX, within).await;
        assert!(!is_ok && (3..9).contains(&calls), "{calls}");
        assert!(began.elapsed() <= within, "{:?}", began.elapsed());
    }
}
