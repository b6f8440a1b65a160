//! A stand-in for AWS KMS that refuses what AWS refuses: key states, exact contexts, blobs of other keys.
//!
//! It speaks AWS's JSON 1.1 protocol over plain HTTP, checks no signatures, and can be told to misbehave
//! (`POST /_control`, see [`Knobs`]). `GET /_log` gives every request it acted on, one JSON object a line, to be
//! reconciled with an audit log. Passing against it is not the same as being tested against AWS.
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::state::{Answer, Failure, State, random};

mod state;

/// What AWS's clients need in their environment beside the address: any credentials will do, and nothing of the machine's
/// own configuration is looked at.
pub const ENVIRONMENT: [(&str, &str); 6] = [
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "strict"),
    ("AWS_SECRET_ACCESS_KEY", "strict"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

/// How it misbehaves. A `POST /_control` with some of these fields sets them and leaves the others.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Knobs {
    /// Added to every answer.
    pub latency_ms: u64,
    /// Cryptographic calls a second; 0 is no limit.
    pub quota_per_second: u64,
    /// Keys made in a second; 0 is no limit.
    pub creates_per_second: u64,
    /// Cuts every connection without an answer.
    pub outage: bool,
    /// So many of the next requests fail with `error_name` and are not acted on.
    pub error_burst: u64,
    /// The error of a burst; empty is `KMSInternalException`.
    pub error_name: String,
    /// So many of the next requests are acted on, and their answers lost with the connection.
    pub lose_replies: u64,
    /// So many of the next requests are not acted on, and their connections cut.
    pub cut: u64,
    /// So many of the next requests are not acted on and get no answer for a minute.
    pub stall: u64,
    /// So many of the next requests are acted on, and their answers held back for a minute.
    pub hold: u64,
    /// So many of the next requests go their usual way before bursts, losses, cuts, stalls and held answers begin.
    pub skip: u64,
    /// Limits bursts, losses, cuts, stalls and held answers to this operation; empty is all.
    pub only: String,
    /// Limits the same to requests that are signed with this access key; empty is all.
    pub caller: String,
    /// How long a new key or a new state is not yet seen.
    pub propagation_ms: u64,
}

/// A running server; its keys live as long as the process, or in the state file.
pub struct StrictKms {
    state: Mutex<State>,
    file: Option<PathBuf>,
    held: AtomicU64,
}

/// Starts a server on `listen` and serves until the runtime ends.
///
/// # Errors
/// When the address cannot be bound, or the state file not be read.
pub async fn start(listen: SocketAddr, file: Option<PathBuf>) -> io::Result<(SocketAddr, Arc<StrictKms>)> {
    let state = match &file {
        Some(path) if path.exists() => serde_json::from_slice(&std::fs::read(path)?)?,
        _ => State::default(),
    };
    let kms = Arc::new(StrictKms { state: Mutex::new(state), file, held: AtomicU64::new(0) });
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    tokio::spawn(accept(listener, kms.clone()));
    Ok((address, kms))
}

async fn accept(listener: TcpListener, kms: Arc<StrictKms>) {
    while let Ok((socket, _)) = listener.accept().await {
        let kms = kms.clone();
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let service = service_fn(move |request| serve(kms.clone(), request));
            // An error is a connection cut by either side; cutting is what some knobs ask for.
            let _ =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// Why a connection is cut: the service gives hyper this error.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection cut")
    }
}

impl std::error::Error for Cut {}

async fn serve(kms: Arc<StrictKms>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/_log") => return Ok(plain(kms.log_lines())),
        (&Method::GET, "/_control") => return Ok(plain(json!(kms.knobs()).to_string())),
        (&Method::POST, "/_control") => return Ok(control(&kms, &body)),
        _ => {}
    }
    let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix("TrentService.")).unwrap_or("");
    let latency = kms.knobs().latency_ms;
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    let signed = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kms.is_concerned(signed) || kms.skips(operation) {
        return kms.request(operation, &body, true).ok_or(Cut);
    }
    if kms.stalls(operation) {
        tokio::time::sleep(Duration::from_secs(60)).await;
        return Err(Cut);
    }
    let is_held = kms.holds(operation);
    let answer = kms.request(operation, &body, false).ok_or(Cut);
    if is_held {
        kms.held.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    answer
}

fn control(kms: &StrictKms, body: &[u8]) -> Response<Full<Bytes>> {
    match serde_json::from_slice(body).and_then(|change| kms.control(&change)) {
        Ok(()) => plain(String::new()),
        Err(e) => {
            let mut answer = plain(format!("{e}\n"));
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            answer
        }
    }
}

fn plain(text: String) -> Response<Full<Bytes>> {
    Response::new(Full::new(text.into()))
}

impl StrictKms {
    /// Sets the fields of [`Knobs`] that `change` has.
    ///
    /// # Errors
    /// When it has others, or not of their types.
    pub fn control(&self, change: &Value) -> Result<(), serde_json::Error> {
        let mut state = self.state();
        let mut knobs = json!(state.knobs);
        if let (Some(knobs), Some(change)) = (knobs.as_object_mut(), change.as_object()) {
            knobs.extend(change.clone());
        }
        state.knobs = serde_json::from_value(knobs)?;
        Ok(())
    }

    /// How it misbehaves now.
    pub fn knobs(&self) -> Knobs {
        self.state().knobs.clone()
    }

    /// Every request acted on or refused by it, in order.
    pub fn log(&self) -> Vec<Value> {
        self.state().log.clone()
    }

    /// Everything it has seen in clear, keys that is, in base64 as it crossed the wire: to be looked for where it must
    /// not be.
    #[allow(dead_code, reason = "the program does not look")]
    pub fn seen_in_clear(&self) -> Vec<String> {
        self.state().seen_in_clear.clone()
    }

    /// How many answers are held back, and how many requests stalled, so far.
    #[allow(dead_code, reason = "the program does not look")]
    pub fn stopped(&self) -> u64 {
        self.held.load(SeqCst)
    }

    fn is_concerned(&self, signed: &str) -> bool {
        let caller = self.knobs().caller;
        caller.is_empty() || signed.contains(&format!("Credential={caller}/"))
    }

    fn skips(&self, operation: &str) -> bool {
        self.state().takes(operation, |knobs| &mut knobs.skip)
    }

    fn holds(&self, operation: &str) -> bool {
        self.state().takes(operation, |knobs| &mut knobs.hold)
    }

    fn stalls(&self, operation: &str) -> bool {
        let stalls = self.state().takes(operation, |knobs| &mut knobs.stall);
        self.held.fetch_add(u64::from(stalls), SeqCst);
        stalls
    }

    fn log_lines(&self) -> String {
        self.log().iter().map(|line| format!("{line}\n")).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on one request; `None` cuts the connection.
    fn request(&self, operation: &str, body: &[u8], is_skipped: bool) -> Option<Response<Full<Bytes>>> {
        let mut state = self.state();
        if state.knobs.outage || (!is_skipped && state.takes(operation, |knobs| &mut knobs.cut)) {
            return None;
        }
        let request_id = uuid::Uuid::from_bytes(random()).to_string();
        let input: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let failure = if is_skipped { None } else { state.take_burst(operation) };
        let answer = match failure {
            Some(failure) => Err(failure),
            None => state.act(operation, &input),
        };
        let lost = answer.is_ok() && !is_skipped && state.takes(operation, |knobs| &mut knobs.lose_replies);
        state.note(&request_id, operation, &input, &answer, lost);
        if let Some(path) = &self.file
            && answer.is_ok()
            && changes_state(operation)
        {
            save(path, &state);
        }
        if lost { None } else { Some(respond(&request_id, answer)) }
    }
}

fn changes_state(operation: &str) -> bool {
    !matches!(
        operation,
        "DescribeKey" | "ListKeys" | "ListResourceTags" | "GenerateDataKey" | "Encrypt" | "Decrypt" | "ReEncrypt"
    )
}

fn save(path: &Path, state: &State) {
    let new = path.with_extension("new");
    let written = serde_json::to_vec_pretty(state).map_err(io::Error::from).and_then(|json| {
        std::fs::write(&new, json)?;
        std::fs::rename(&new, path)
    });
    if let Err(e) = written {
        eprintln!("{}: {e}", path.display());
    }
}

fn respond(request_id: &str, answer: Answer) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(Value::Null) => (StatusCode::OK, String::new()),
        Ok(body) => (StatusCode::OK, body.to_string()),
        Err(Failure(name)) => (status_of(name), json!({"__type": name, "message": message_of(name)}).to_string()),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static("application/x-amz-json-1.1"));
    if let Ok(id) = request_id.parse() {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

fn status_of(error: &str) -> StatusCode {
    match error {
        "KMSInternalException" | "KeyUnavailableException" | "DependencyTimeoutException" => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn message_of(error: &str) -> Option<&'static str> {
    match error {
        "DisabledException" => Some("the key is disabled"),
        "KMSInvalidStateException" => Some("the state of the key does not allow this"),
        "NotFoundException" => Some("the key does not exist"),
        "ThrottlingException" => Some("rate exceeded"),
        // AWS says nothing about why a ciphertext is not valid.
        _ => None,
    }
}
