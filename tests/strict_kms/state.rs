//! The keys of the strict KMS and what it does with them, without HTTP.
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rowseal::crypto::keyring::{KEYRING_OVERHEAD, keyring_open, keyring_seal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Knobs;

const REGION_AND_ACCOUNT: &str = "us-east-1:111122223333";
/// AWS's blob of a 32-byte key has 184 bytes: so much longer than the plaintext is ours.
const BLOB_OVERHEAD: usize = 152;
/// Mark, key id and filler before the sealed part.
const BLOB_HEAD: usize = BLOB_OVERHEAD - KEYRING_OVERHEAD;
const BLOB_FRONT: &[u8] = &[0x01, 0x02, 0x02, 0x00, 0x78];
const PLAINTEXT_MAX: usize = 4096;
const BLOB_MAX: usize = 6144;

/// Counts against the limit of this second, if there is one.
fn within(counted: &mut (u64, u64), max: u64) -> Result<(), Failure> {
    let second = now_ms() / 1000;
    if counted.0 != second {
        *counted = (second, 0);
    }
    counted.1 += 1;
    if max > 0 && counted.1 > max { Err(Failure("ThrottlingException")) } else { Ok(()) }
}

#[derive(Default, Serialize, Deserialize)]
pub struct State {
    keys: BTreeMap<String, Key>,
    aliases: BTreeMap<String, String>,
    #[serde(skip)]
    pub knobs: Knobs,
    #[serde(skip)]
    pub log: Vec<Value>,
    #[serde(skip)]
    pub seen_in_clear: Vec<String>,
    #[serde(skip)]
    quota: (u64, u64),
    #[serde(skip)]
    creates: (u64, u64),
}

#[derive(Serialize, Deserialize)]
struct Key {
    material: String,
    created_ms: u64,
    description: String,
    tags: BTreeMap<String, String>,
    /// From when which state is seen; the last is the newest.
    states: Vec<(u64, KeyState)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum KeyState {
    Enabled,
    Disabled,
    PendingDeletion { at_ms: u64 },
}

pub struct Failure(pub &'static str);

pub type Answer = Result<Value, Failure>;

impl State {
    pub fn take_burst(&mut self, operation: &str) -> Option<Failure> {
        let takes = self.takes(operation, |knobs| &mut knobs.error_burst);
        takes.then(|| Failure(known_error(&self.knobs.error_name)))
    }

    /// Whether this request is one of those that a knob counts down.
    pub fn takes(&mut self, operation: &str, knob: impl Fn(&mut Knobs) -> &mut u64) -> bool {
        let concerns = self.concerns(operation);
        let left = knob(&mut self.knobs);
        let takes = concerns && *left > 0;
        *left -= u64::from(takes);
        takes
    }

    fn concerns(&self, operation: &str) -> bool {
        self.knobs.only.is_empty() || self.knobs.only == operation
    }

    pub fn note(&mut self, request_id: &str, operation: &str, input: &Value, answer: &Answer, lost: bool) {
        let key = input.get("KeyId").or(input.get("SourceKeyId")).and_then(Value::as_str);
        let created =
            answer.as_ref().ok().and_then(|answer| answer.pointer("/KeyMetadata/Arn")).and_then(Value::as_str);
        self.log.push(json!({
            "request_id": request_id,
            "operation": operation,
            "key_id": key.or(created),
            "context": input.get("EncryptionContext").or(input.get("SourceEncryptionContext")),
            "destination_key_id": input.get("DestinationKeyId"),
            "destination_context": input.get("DestinationEncryptionContext"),
            "outcome": match answer { Ok(_) => "ok", Err(Failure(name)) => name },
            "reply_lost": lost,
        }));
    }

    pub fn act(&mut self, operation: &str, input: &Value) -> Answer {
        match operation {
            "CreateKey" => self.create_key(input),
            "DescribeKey" => self.describe_key(input),
            "ListKeys" => self.list_keys(input),
            "ListResourceTags" => self.list_tags(input),
            "TagResource" => self.tag(input),
            "CreateAlias" => self.create_alias(input),
            "GenerateDataKey" => self.counted()?.generate_data_key(input),
            "Encrypt" => self.counted()?.encrypt(input),
            "Decrypt" => self.counted()?.decrypt(input),
            "ReEncrypt" => self.counted()?.re_encrypt(input),
            "DisableKey" => self.set_state(input, KeyState::Disabled),
            "EnableKey" => self.set_state(input, KeyState::Enabled),
            "ScheduleKeyDeletion" => self.schedule_deletion(input),
            "CancelKeyDeletion" => self.cancel_deletion(input),
            _ => Err(Failure("UnknownOperationException")),
        }
    }

    /// Counts a cryptographic call against the quota of this second.
    fn counted(&mut self) -> Result<&mut Self, Failure> {
        within(&mut self.quota, self.knobs.quota_per_second).map(|()| self)
    }

    fn create_key(&mut self, input: &Value) -> Answer {
        within(&mut self.creates, self.knobs.creates_per_second)?;
        let id = uuid::Uuid::from_bytes(random()).to_string();
        let key = Key {
            material: STANDARD.encode(random::<32>()),
            created_ms: now_ms(),
            description: input.get("Description").and_then(Value::as_str).unwrap_or("").to_owned(),
            tags: tags_in(input)?,
            states: vec![(now_ms() + self.knobs.propagation_ms, KeyState::Enabled)],
        };
        let metadata = metadata(&id, &key, KeyState::Enabled);
        self.keys.insert(id, key);
        Ok(json!({"KeyMetadata": metadata}))
    }

    fn describe_key(&self, input: &Value) -> Answer {
        let (id, key) = self.seen(text(input, "KeyId")?)?;
        Ok(json!({"KeyMetadata": metadata(id, key, key.state())}))
    }

    /// One page of keys; markers are the id of the last key given.
    fn list_keys(&self, input: &Value) -> Answer {
        let limit = input.get("Limit").and_then(Value::as_u64).unwrap_or(100).clamp(1, 1000) as usize;
        let after = input.get("Marker").and_then(Value::as_str).unwrap_or("");
        let mut rest = self.keys.iter().filter(|(id, key)| id.as_str() > after && key.is_seen());
        let page: Vec<_> = rest.by_ref().take(limit).collect();
        let keys: Vec<_> = page.iter().map(|(id, _)| json!({"KeyId": id, "KeyArn": arn(id)})).collect();
        let more = rest.next().is_some();
        let marker = page.last().filter(|_| more).map(|(id, _)| id);
        Ok(json!({"Keys": keys, "Truncated": more, "NextMarker": marker}))
    }

    fn list_tags(&self, input: &Value) -> Answer {
        let (_, key) = self.seen(text(input, "KeyId")?)?;
        let tags: Vec<_> = key.tags.iter().map(|(n, v)| json!({"TagKey": n, "TagValue": v})).collect();
        Ok(json!({"Tags": tags, "Truncated": false}))
    }

    fn tag(&mut self, input: &Value) -> Answer {
        let tags = tags_in(input)?;
        let key = self.changeable(text(input, "KeyId")?)?;
        key.tags.extend(tags);
        Ok(Value::Null)
    }

    fn create_alias(&mut self, input: &Value) -> Answer {
        let name = text(input, "AliasName")?.to_owned();
        let id = self.id_of(text(input, "TargetKeyId")?)?.to_owned();
        if !name.starts_with("alias/") || name.starts_with("alias/aws/") {
            return Err(Failure("InvalidAliasNameException"));
        }
        if self.aliases.contains_key(&name) {
            return Err(Failure("AlreadyExistsException"));
        }
        self.aliases.insert(name, id);
        Ok(Value::Null)
    }

    fn set_state(&mut self, input: &Value, next: KeyState) -> Answer {
        let seen_from = now_ms() + self.knobs.propagation_ms;
        self.changeable(text(input, "KeyId")?)?.states.push((seen_from, next));
        Ok(Value::Null)
    }

    fn schedule_deletion(&mut self, input: &Value) -> Answer {
        let days = input.get("PendingWindowInDays").and_then(Value::as_u64).unwrap_or(30);
        if !(7..=30).contains(&days) {
            return Err(Failure("ValidationException"));
        }
        let at_ms = now_ms() + days * 24 * 60 * 60 * 1000;
        let name = text(input, "KeyId")?;
        let arn = arn(self.id_of(name)?);
        self.set_state(input, KeyState::PendingDeletion { at_ms })?;
        let date = (at_ms / 1000) as f64;
        Ok(json!({"KeyId": arn, "DeletionDate": date, "KeyState": "PendingDeletion", "PendingWindowInDays": days}))
    }

    fn cancel_deletion(&mut self, input: &Value) -> Answer {
        let seen_from = now_ms() + self.knobs.propagation_ms;
        let id = self.id_of(text(input, "KeyId")?)?.to_owned();
        let key = self.keys.get_mut(&id).ok_or(Failure("NotFoundException"))?;
        if !matches!(key.newest(), KeyState::PendingDeletion { .. }) {
            return Err(Failure("KMSInvalidStateException"));
        }
        key.states.push((seen_from, KeyState::Disabled));
        Ok(json!({"KeyId": arn(&id)}))
    }

    fn generate_data_key(&mut self, input: &Value) -> Answer {
        let spec = input.get("KeySpec").and_then(Value::as_str);
        let bytes = input.get("NumberOfBytes").and_then(Value::as_u64);
        let length = match (spec, bytes) {
            (Some("AES_256"), None) => 32,
            (Some("AES_128"), None) => 16,
            (None, Some(n @ 1..=1024)) => n as usize,
            _ => return Err(Failure("ValidationException")),
        };
        let mut plaintext = vec![0; length];
        getrandom::fill(&mut plaintext).map_err(|_| Failure("KMSInternalException"))?;
        let (id, blob) = self.seal(text(input, "KeyId")?, input.get("EncryptionContext"), &plaintext)?;
        let (plaintext, blob) = (STANDARD.encode(plaintext), STANDARD.encode(blob));
        self.seen_in_clear.push(plaintext.clone());
        Ok(json!({"KeyId": arn(&id), "Plaintext": plaintext, "CiphertextBlob": blob}))
    }

    fn encrypt(&mut self, input: &Value) -> Answer {
        let plaintext = decoded(input, "Plaintext", PLAINTEXT_MAX)?;
        self.seen_in_clear.push(text(input, "Plaintext")?.to_owned());
        let (id, blob) = self.seal(text(input, "KeyId")?, input.get("EncryptionContext"), &plaintext)?;
        let blob = STANDARD.encode(blob);
        Ok(json!({"KeyId": arn(&id), "CiphertextBlob": blob, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}))
    }

    fn decrypt(&mut self, input: &Value) -> Answer {
        let blob = decoded(input, "CiphertextBlob", BLOB_MAX)?;
        let (id, plaintext) = self.open(input.get("KeyId"), input.get("EncryptionContext"), &blob)?;
        let plaintext = STANDARD.encode(plaintext);
        self.seen_in_clear.push(plaintext.clone());
        Ok(json!({"KeyId": arn(&id), "Plaintext": plaintext, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}))
    }

    fn re_encrypt(&mut self, input: &Value) -> Answer {
        let blob = decoded(input, "CiphertextBlob", BLOB_MAX)?;
        let (source, plaintext) = self.open(input.get("SourceKeyId"), input.get("SourceEncryptionContext"), &blob)?;
        let context = input.get("DestinationEncryptionContext");
        let (id, blob) = self.seal(text(input, "DestinationKeyId")?, context, &plaintext)?;
        Ok(json!({
            "SourceKeyId": arn(&source),
            "KeyId": arn(&id),
            "CiphertextBlob": STANDARD.encode(blob),
            "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }))
    }

    fn seal(&self, key: &str, context: Option<&Value>, plaintext: &[u8]) -> Result<(String, Vec<u8>), Failure> {
        let (id, key) = self.seen(key)?;
        let material = key.usable()?;
        let sealed = keyring_seal(&material, &aad(id, context)?, plaintext);
        let sealed = sealed.map_err(|_| Failure("KMSInternalException"))?;
        let mut blob = BLOB_FRONT.to_vec();
        blob.extend_from_slice(id.as_bytes());
        blob.resize(BLOB_HEAD, 0);
        blob.extend_from_slice(&sealed);
        Ok((id.to_owned(), blob))
    }

    fn open(&self, key: Option<&Value>, context: Option<&Value>, blob: &[u8]) -> Result<(String, Vec<u8>), Failure> {
        const INVALID: Failure = Failure("InvalidCiphertextException");
        let claimed = key.and_then(Value::as_str).map(|name| self.seen(name)).transpose()?;
        let (head, sealed) = blob.split_at_checked(BLOB_HEAD).ok_or(INVALID)?;
        let (id, filler) = head.strip_prefix(BLOB_FRONT).and_then(|rest| rest.split_at_checked(36)).ok_or(INVALID)?;
        let id = std::str::from_utf8(id).map_err(|_| INVALID)?;
        if filler.iter().any(|byte| *byte != 0) {
            return Err(INVALID);
        }
        if claimed.is_some_and(|(claimed, _)| claimed != id) {
            return Err(Failure("IncorrectKeyException"));
        }
        let (id, key) = self.seen(id).map_err(|_| INVALID)?;
        let material = key.usable()?;
        let plaintext = keyring_open(&material, &aad(id, context)?, sealed).map_err(|_| INVALID)?;
        Ok((id.to_owned(), plaintext.to_vec()))
    }

    /// The id behind an id, an ARN or an alias, whether it is seen yet or not.
    fn id_of(&self, name: &str) -> Result<&str, Failure> {
        let name = name.strip_prefix("arn:").map_or(name, |_| name.rsplit_once("key/").map_or(name, |(_, id)| id));
        let id = self.aliases.get(name).map_or(name, String::as_str);
        let (id, key) = self.keys.get_key_value(id).ok_or(Failure("NotFoundException"))?;
        match key.newest() {
            KeyState::PendingDeletion { at_ms } if at_ms <= now_ms() => Err(Failure("NotFoundException")),
            _ => Ok(id),
        }
    }

    fn seen(&self, name: &str) -> Result<(&str, &Key), Failure> {
        let id = self.id_of(name)?;
        let key = self.keys.get(id).filter(|key| key.is_seen()).ok_or(Failure("NotFoundException"))?;
        Ok((id, key))
    }

    /// A key whose state or tags may be changed: not one that is pending deletion.
    fn changeable(&mut self, name: &str) -> Result<&mut Key, Failure> {
        let id = self.id_of(name)?.to_owned();
        let key = self.keys.get_mut(&id).filter(|key| key.is_seen()).ok_or(Failure("NotFoundException"))?;
        match key.newest() {
            KeyState::PendingDeletion { .. } => Err(Failure("KMSInvalidStateException")),
            _ => Ok(key),
        }
    }
}

impl Key {
    fn is_seen(&self) -> bool {
        self.states.first().is_some_and(|(from, _)| *from <= now_ms())
    }

    fn newest(&self) -> KeyState {
        self.states.last().map_or(KeyState::Disabled, |(_, state)| *state)
    }

    /// The state as it is seen now, which may be an older one.
    fn state(&self) -> KeyState {
        let now = now_ms();
        let seen = self.states.iter().rev().find(|(from, _)| *from <= now);
        seen.map_or(KeyState::Disabled, |(_, state)| *state)
    }

    fn usable(&self) -> Result<[u8; 32], Failure> {
        match self.state() {
            KeyState::Enabled => {}
            KeyState::Disabled => return Err(Failure("DisabledException")),
            KeyState::PendingDeletion { .. } => return Err(Failure("KMSInvalidStateException")),
        }
        let material = STANDARD.decode(&self.material).ok().and_then(|bytes| bytes.try_into().ok());
        material.ok_or(Failure("KMSInternalException"))
    }
}

fn metadata(id: &str, key: &Key, state: KeyState) -> Value {
    let (name, deletion) = match state {
        KeyState::Enabled => ("Enabled", None),
        KeyState::Disabled => ("Disabled", None),
        KeyState::PendingDeletion { at_ms } => ("PendingDeletion", Some((at_ms / 1000) as f64)),
    };
    let mut metadata = json!({
        "AWSAccountId": "111122223333",
        "KeyId": id,
        "Arn": arn(id),
        "CreationDate": (key.created_ms / 1000) as f64,
        "Enabled": state == KeyState::Enabled,
        "Description": key.description,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": name,
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": false,
    });
    if let Some(deletion) = deletion {
        metadata["DeletionDate"] = json!(deletion);
    }
    metadata
}

fn arn(id: &str) -> String {
    format!("arn:aws:kms:{REGION_AND_ACCOUNT}:key/{id}")
}

/// Key and context, each part behind its length, so that no two contexts look the same.
fn aad(id: &str, context: Option<&Value>) -> Result<Vec<u8>, Failure> {
    let mut out = id.as_bytes().to_vec();
    let mut put = |part: &str| {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    };
    // serde_json's map is sorted by key.
    for (name, value) in context.and_then(Value::as_object).into_iter().flatten() {
        put(name);
        put(value.as_str().ok_or(Failure("ValidationException"))?);
    }
    Ok(out)
}

fn tags_in(input: &Value) -> Result<BTreeMap<String, String>, Failure> {
    let tags = input.get("Tags").and_then(Value::as_array).into_iter().flatten();
    tags.map(|tag| {
        let (name, value) = (text(tag, "TagKey")?, text(tag, "TagValue")?);
        let fits = |text: &str, max| text.chars().count() <= max && text.chars().all(is_tag_character);
        if name.is_empty() || name.starts_with("aws:") || !fits(name, 128) || !fits(value, 256) {
            return Err(Failure("TagException"));
        }
        Ok((name.to_owned(), value.to_owned()))
    })
    .collect()
}

fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || " _./=+-@:".contains(c)
}

fn text<'v>(input: &'v Value, field: &str) -> Result<&'v str, Failure> {
    input.get(field).and_then(Value::as_str).ok_or(Failure("ValidationException"))
}

fn decoded(input: &Value, field: &str, bytes_max: usize) -> Result<Vec<u8>, Failure> {
    let bytes = STANDARD.decode(text(input, field)?).map_err(|_| Failure("SerializationException"))?;
    if bytes.is_empty() || bytes.len() > bytes_max {
        return Err(Failure("ValidationException"));
    }
    Ok(bytes)
}

fn known_error(name: &str) -> &'static str {
    const KNOWN: [&str; 11] = [
        "ThrottlingException",
        "AccessDeniedException",
        "DisabledException",
        "KMSInvalidStateException",
        "NotFoundException",
        "KeyUnavailableException",
        "DependencyTimeoutException",
        "LimitExceededException",
        "ServiceUnavailable",
        "UnrecognizedClientException",
        "ExpiredTokenException",
    ];
    KNOWN.into_iter().find(|known| *known == name).unwrap_or("KMSInternalException")
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}
