//! AWS KMS.
//!
//! Every call names the key it means by ARN, also where AWS could read it from the blob, so a blob of another key is
//! refused. Errors are classed by AWS's exact error names. The SDK makes every call once: repeating is for
//! [`Patient`](super::Patient), except for the many calls of a search by tag.
use std::collections::HashMap;
use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::iter::successors;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{Builder, Credentials, Region, SharedHttpClient};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, KeyState as AwsKeyState, Tag};
use aws_smithy_http_client::tls;
use bytes::Bytes;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use zeroize::Zeroizing;

use super::patient::{RETRY_FOR, again_while};
use super::{
    DataKey, Decrypted, Encrypted, EncryptionContext, KeyArn, KeyDescription, KeyState, Kms, KmsError, KmsErrorClass,
    KmsFuture, Under, deletion_days,
};
use crate::crypto::Dek;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// AWS gives no bound; most changes are seen everywhere within seconds.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// The longest word of the network that is passed on.
const CAUSE_BYTES_MAX: usize = 200;

/// Where the service is and who calls; what is not given comes from the environment and profile as usual for AWS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// The region.
    pub region: Option<String>,
    /// Another address than the region's own, for tests and VPC endpoints.
    pub endpoint: Option<String>,
    /// The profile in the AWS configuration files.
    pub profile: Option<String>,
}

/// AWS KMS as a [`Kms`].
pub struct AwsKms {
    client: Client,
}

impl AwsKms {
    /// A client with the credentials AWS's usual chain finds. Makes no call to the service.
    pub async fn connect(settings: &AwsSettings) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client());
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        Self::build(Builder::from(&loader.load().await), settings)
    }

    /// A client with credentials given by the caller: for tests and stand-ins.
    pub fn with_credentials(settings: &AwsSettings, access_key_id: &str, secret_access_key: &str) -> Self {
        let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "given");
        let region = settings.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
        let builder = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client())
            .region(Region::new(region))
            .credentials_provider(credentials);
        Self::build(builder, settings)
    }

    fn build(mut builder: Builder, settings: &AwsSettings) -> Self {
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let once = RetryConfig::disabled();
        AwsKms { client: Client::from_conf(builder.timeout_config(timeouts).retry_config(once).build()) }
    }

    async fn tags_of(&self, key: &str) -> Result<Vec<(String, String)>, KmsError> {
        let mut tags = Vec::new();
        let mut marker = None;
        loop {
            let call = self.client.list_resource_tags().key_id(key).set_marker(marker);
            let page = ask("ListResourceTags", call.send()).await?;
            tags.extend(page.tags().iter().map(|tag| (tag.tag_key.clone(), tag.tag_value.clone())));
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(tags);
            }
        }
    }

    /// The ARNs of all keys of the account and region.
    async fn keys(&self) -> Result<Vec<String>, KmsError> {
        let mut arns = Vec::new();
        let mut marker = None;
        loop {
            let page = || async {
                let call = self.client.list_keys().set_marker(marker.clone());
                ask("ListKeys", call.send()).await
            };
            let page = again_while(RETRY_FOR, KmsErrorClass::is_passing, page).await?;
            arns.extend(page.keys().iter().filter_map(|key| key.key_arn.clone()));
            marker = page.next_marker;
            if marker.is_none() {
                return Ok(arns);
            }
        }
    }
}

impl Kms for AwsKms {
    fn settles_within(&self) -> Duration {
        SETTLES_WITHIN
    }

    fn create_key<'a>(&'a self, tags: &'a [(String, String)]) -> KmsFuture<'a, KeyArn> {
        const OPERATION: &str = "CreateKey";
        Box::pin(async move {
            let tags: Result<Vec<_>, _> =
                tags.iter().map(|(name, value)| Tag::builder().tag_key(name).tag_value(value).build()).collect();
            let tags = tags.map_err(|_| KmsError::new(OPERATION, KmsErrorClass::WrongContextOrBlob))?;
            let call = self.client.create_key().description("RowSeal tenant master key").set_tags(Some(tags));
            let created = ask(OPERATION, call.send()).await?;
            let arn = created.key_metadata.and_then(|key| key.arn);
            arn.map(KeyArn::new).ok_or_else(|| KmsError::new(OPERATION, KmsErrorClass::Transient))
        })
    }

    fn find_by_tag<'a>(&'a self, name: &'a str, value: &'a str) -> KmsFuture<'a, Vec<KeyArn>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for arn in self.keys().await? {
                match again_while(RETRY_FOR, KmsErrorClass::is_passing, || self.tags_of(&arn)).await {
                    Ok(tags) if tags.iter().any(|(n, v)| n == name && v == value) => found.push(KeyArn::new(arn)),
                    Ok(_) => {}
                    // A key of others in the same account, or one that was just deleted: not ours.
                    Err(e) if matches!(e.class, KmsErrorClass::AccessDenied | KmsErrorClass::NotFound) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(found)
        })
    }

    fn generate_data_key<'a>(&'a self, key: &'a KeyArn, context: &'a EncryptionContext) -> KmsFuture<'a, DataKey> {
        const OPERATION: &str = "GenerateDataKey";
        Box::pin(async move {
            let call = self.client.generate_data_key().key_id(key.as_str()).key_spec(DataKeySpec::Aes256);
            let answer = ask(OPERATION, call.set_encryption_context(map(context)).send()).await?;
            let request_id = id_of(&answer);
            let plaintext = Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default());
            let blob = answer.ciphertext_blob.map(Blob::into_inner).filter(|blob| !blob.is_empty());
            match (Dek::from_slice(&plaintext), blob) {
                (Some(plaintext), Some(blob)) => Ok(DataKey { plaintext, blob: blob.into(), request_id }),
                _ => {
                    Err(KmsError { request_id: Some(request_id), ..KmsError::new(OPERATION, KmsErrorClass::Transient) })
                }
            }
        })
    }

    fn encrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        plaintext: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            let call = self.client.encrypt().key_id(key.as_str()).plaintext(Blob::new(plaintext));
            let answer = ask("Encrypt", call.set_encryption_context(map(context)).send()).await?;
            let request_id = id_of(&answer);
            Ok((bytes_of("Encrypt", answer.ciphertext_blob)?, request_id))
        })
    }

    fn decrypt<'a>(
        &'a self,
        key: &'a KeyArn,
        blob: &'a [u8],
        context: &'a EncryptionContext,
    ) -> KmsFuture<'a, Decrypted> {
        Box::pin(async move {
            let call = self.client.decrypt().key_id(key.as_str()).ciphertext_blob(Blob::new(blob));
            let answer = ask("Decrypt", call.set_encryption_context(map(context)).send()).await?;
            let request_id = id_of(&answer);
            let plaintext = answer.plaintext.map(Blob::into_inner);
            let plaintext = plaintext.ok_or_else(|| KmsError::new("Decrypt", KmsErrorClass::Transient))?;
            Ok((Zeroizing::new(plaintext), request_id))
        })
    }

    fn re_encrypt<'a>(&'a self, source: Under<'a>, destination: Under<'a>, blob: &'a [u8]) -> KmsFuture<'a, Encrypted> {
        Box::pin(async move {
            let call = self.client.re_encrypt().ciphertext_blob(Blob::new(blob));
            let call = call.source_key_id(source.key.as_str()).set_source_encryption_context(map(source.context));
            let call = call.destination_key_id(destination.key.as_str());
            let call = call.set_destination_encryption_context(map(destination.context));
            let answer = ask("ReEncrypt", call.send()).await?;
            let request_id = id_of(&answer);
            Ok((bytes_of("ReEncrypt", answer.ciphertext_blob)?, request_id))
        })
    }

    fn disable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        Box::pin(
            async move { Ok(id_of(&ask("DisableKey", self.client.disable_key().key_id(key.as_str()).send()).await?)) },
        )
    }

    fn enable<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        Box::pin(
            async move { Ok(id_of(&ask("EnableKey", self.client.enable_key().key_id(key.as_str()).send()).await?)) },
        )
    }

    fn schedule_deletion<'a>(&'a self, key: &'a KeyArn, days: u8) -> KmsFuture<'a, String> {
        Box::pin(async move {
            let call = self.client.schedule_key_deletion().key_id(key.as_str());
            let call = call.pending_window_in_days(i32::from(deletion_days(days)));
            Ok(id_of(&ask("ScheduleKeyDeletion", call.send()).await?))
        })
    }

    fn cancel_deletion<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, String> {
        Box::pin(async move {
            Ok(id_of(&ask("CancelKeyDeletion", self.client.cancel_key_deletion().key_id(key.as_str()).send()).await?))
        })
    }

    fn describe<'a>(&'a self, key: &'a KeyArn) -> KmsFuture<'a, KeyDescription> {
        Box::pin(async move {
            let answer = ask("DescribeKey", self.client.describe_key().key_id(key.as_str()).send()).await?;
            let state = match answer.key_metadata.and_then(|key| key.key_state) {
                Some(AwsKeyState::Enabled) => KeyState::Enabled,
                Some(AwsKeyState::Disabled) => KeyState::Disabled,
                Some(AwsKeyState::PendingDeletion | AwsKeyState::PendingReplicaDeletion) => KeyState::PendingDeletion,
                _ => KeyState::Unavailable,
            };
            Ok(KeyDescription { state, tags: self.tags_of(key.as_str()).await? })
        })
    }
}

/// Makes a call of the SDK with its logging off; the only way in which this file makes one.
///
/// # Secrets
/// At trace level the SDK logs the bodies of answers: wrapped keys always, and plaintext keys too when the environment
/// has `LOG_SENSITIVE_BODIES=true`. That must not be up to an environment variable.
async fn ask<T, E, R>(
    operation: &'static str,
    call: impl Future<Output = Result<T, SdkError<E, R>>>,
) -> Result<T, KmsError>
where
    E: Error + ProvideErrorMetadata + 'static,
    R: Debug,
    SdkError<E, R>: RequestId,
{
    call.with_subscriber(Dispatch::none()).await.map_err(|failure| failed(operation, &failure))
}

fn http_client() -> SharedHttpClient {
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(ring).build_https()
}

fn map(context: &EncryptionContext) -> Option<HashMap<String, String>> {
    let pairs: HashMap<_, _> = context.pairs().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    if pairs.is_empty() { None } else { Some(pairs) }
}

fn id_of(answer: &impl RequestId) -> String {
    answer.request_id().unwrap_or_default().to_owned()
}

fn bytes_of(operation: &'static str, blob: Option<Blob>) -> Result<Bytes, KmsError> {
    let blob = blob.map(Blob::into_inner).filter(|blob| !blob.is_empty());
    blob.map(Bytes::from).ok_or_else(|| KmsError::new(operation, KmsErrorClass::Transient))
}

fn failed<E, R>(operation: &'static str, failure: &SdkError<E, R>) -> KmsError
where
    E: Error + ProvideErrorMetadata + 'static,
    R: Debug,
    SdkError<E, R>: RequestId,
{
    let request_id = failure.request_id().map(str::to_owned);
    match failure.as_service_error() {
        Some(answer) => {
            let code = answer.code().unwrap_or_default();
            tracing::debug!(operation, code, request_id, "the key service refused");
            let class = class_of(code);
            let cause = (!class.is_definitive() && is_name(code)).then(|| code.into());
            KmsError { class, request_id, operation, cause }
        }
        None => {
            let cause = cause_of(failure);
            tracing::warn!(operation, request_id, cause, "the key service gave no answer");
            KmsError { class: class_without_answer(failure), request_id, operation, cause: Some(cause.into()) }
        }
    }
}

/// Whether an error code is one: it comes from outside and is shown.
fn is_name(code: &str) -> bool {
    !code.is_empty() && code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
}

/// What kept a call from being made or answered.
///
/// # Secrets
/// Where the request could not be made, the SDK's own words may quote it, body and all, so they are read and never passed
/// on. Those of the network are.
fn cause_of<E, R>(failure: &SdkError<E, R>) -> String
where
    E: Error + 'static,
    R: Debug,
{
    let is_network = match failure {
        SdkError::TimeoutError(_) => true,
        SdkError::DispatchFailure(_) => class_without_answer(failure) == KmsErrorClass::Transient,
        SdkError::ResponseError(_) | SdkError::ServiceError(_) => return "an answer that cannot be read".to_owned(),
        _ => false,
    };
    let causes: Vec<String> = successors(failure.source(), |error: &&(dyn Error + 'static)| (**error).source())
        .map(ToString::to_string)
        .collect();
    if is_network {
        let fits =
            |cause: &&String| cause.len() <= CAUSE_BYTES_MAX && !cause.contains(['\n', '{']) && *cause != "other";
        let causes: Vec<&str> = causes.iter().filter(fits).map(String::as_str).collect();
        return causes.join(": ");
    }
    let says = |word: &str| causes.iter().any(|cause| cause.to_ascii_lowercase().contains(word));
    let cause = if says("failed to apply endpoint") {
        "the endpoint is not a URL"
    } else if says("missing region") || says("`region`") {
        "the region is missing or not one"
    } else if says("credential") {
        "no credentials were found in the environment, the profile or the machine's role"
    } else {
        "the request could not be made"
    };
    cause.to_owned()
}

/// Without an answer it is the way there that failed: passing when it is the network, lasting when the request could not
/// even be made.
fn class_without_answer<E, R>(failure: &SdkError<E, R>) -> KmsErrorClass {
    match failure {
        SdkError::ConstructionFailure(_) => KmsErrorClass::Credentials,
        // The SDK reports missing credentials as a connector's error of no kind.
        SdkError::DispatchFailure(cause) if cause.is_user() || cause.is_other() && cause.as_other().is_none() => {
            KmsErrorClass::Credentials
        }
        _ => KmsErrorClass::Transient,
    }
}

/// AWS's error names. What is not known is taken as transient: it drops no key and gives no access.
fn class_of(code: &str) -> KmsErrorClass {
    match code {
        "DisabledException" => KmsErrorClass::Disabled,
        "KMSInvalidStateException" => KmsErrorClass::PendingDeletion,
        "NotFoundException" => KmsErrorClass::NotFound,
        "AccessDeniedException" => KmsErrorClass::AccessDenied,
        "IncorrectKeyException"
        | "InvalidCiphertextException"
        | "InvalidKeyUsageException"
        | "InvalidArnException"
        | "TagException"
        | "ValidationException" => KmsErrorClass::WrongContextOrBlob,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "OptInRequired" => KmsErrorClass::Credentials,
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "LimitExceededException" => {
            KmsErrorClass::Throttled
        }
        _ => KmsErrorClass::Transient,
    }
}
