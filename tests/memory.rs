//! What is left of keys in the memory of a serving proxy (docs/threat-model.md): nothing, once they are used and dropped.
//! The memory is read as a debugger would read it. The proxy closes it to whoever lacks CAP_SYS_PTRACE, so the test looks
//! into it where it runs with that (as root of a machine, or of a container that was given it); elsewhere it is content
//! with being kept out.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use rowseal::crypto::{BranchKey, Cell, unwrap_dek};
use sha2::Sha256;

use crate::kms::proxy::Stage;
use crate::support::guard::{Guarded, poll};
use crate::support::proxy::{Proxy, rowseal};

/// More than the smallest cache holds, which is 204.
const ROWS: usize = 400;
const CACHED_MAX: usize = 204;
/// Rows of one INSERT; a pool holds keys for two such.
const TOGETHER: usize = 20;
const CHUNK: usize = 1 << 20;
const PAGE: usize = 4096;
/// Longer than whatever is looked for.
const OVERLAP: usize = 64;

/// What is looked for, each in the forms in which it may stand somewhere.
#[derive(Default)]
struct Secrets(Vec<(String, Vec<u8>)>);

/// Where they were found, by name.
type Found = BTreeMap<String, Vec<String>>;

impl Secrets {
    fn add(&mut self, name: &str, key: &[u8]) {
        let masked = |mask: u8| key.iter().map(|byte| byte ^ mask).collect::<Vec<u8>>();
        self.0.push((name.to_owned(), key.to_vec()));
        self.0.push((format!("{name}, as the service sends it"), STANDARD.encode(key).into_bytes()));
        self.0.push((format!("{name}, in HMAC's inner block"), masked(0x36)));
        self.0.push((format!("{name}, in HMAC's outer block"), masked(0x5c)));
    }

    /// Looks through all memory of a process that it may write to; `None` where that may not be read.
    fn found_in(&self, pid: u32) -> Option<Found> {
        let memory = match File::open(format!("/proc/{pid}/mem")) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
            opened => opened.unwrap(),
        };
        let pages = File::open(format!("/proc/{pid}/pagemap")).unwrap();
        let finder = AhoCorasick::new(self.0.iter().map(|(_, bytes)| bytes)).unwrap();
        let mut found = Found::new();
        for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            if !rights.starts_with("rw") {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
            for at in (start..end).step_by(CHUNK).filter(|at| is_there(&pages, *at, end)) {
                let mut bytes = vec![0; (CHUNK + OVERLAP).min((end - at) as usize)];
                let read = memory.read_at(&mut bytes, at).unwrap_or(0);
                for hit in finder.find_iter(&bytes[..read]).filter(|hit| hit.start() < CHUNK) {
                    let place = format!("{line} +{:x}", at - start + hit.start() as u64);
                    found.entry(self.0[hit.pattern().as_usize()].0.clone()).or_default().push(place);
                }
            }
        }
        Some(found)
    }
}

/// Whether any page of a chunk has been touched: most of what an allocator reserves has not.
fn is_there(pages: &File, at: u64, end: u64) -> bool {
    let mut entries = vec![0; (CHUNK + OVERLAP).min((end - at) as usize).div_ceil(PAGE) * 8];
    pages.read_exact_at(&mut entries, at / PAGE as u64 * 8).unwrap();
    // Present, or swapped out.
    entries.chunks(8).any(|entry| entry[7] & 0xc0 != 0)
}

/// Every key of 32 bytes that the service has seen, in hierarchical mode also the data keys under the branch key; and what
/// encrypts the cells under each data key.
fn secrets(stage: &Stage) -> Secrets {
    let seen = stage.server.seen_in_clear();
    let keys: BTreeSet<[u8; 32]> =
        seen.iter().filter_map(|text| STANDARD.decode(text).unwrap().try_into().ok()).collect();
    let mut secrets = Secrets::default();
    for (n, key) in keys.iter().enumerate() {
        secrets.add(&format!("key {n}"), key);
        secrets.add(&format!("what key {n} encrypts with"), &encryption_key(key));
    }
    let cells = stage.cluster.psql("app", "SELECT encode(email, 'hex') FROM users");
    for (n, cell) in cells.lines().enumerate() {
        let mut bytes = Vec::new();
        assert!(rowseal::hex::decode_into(cell.as_bytes(), &mut bytes));
        let cell = Cell::parse(&bytes).unwrap();
        let slot = cell.slot();
        let opened =
            |key: &[u8; 32]| unwrap_dek(&BranchKey::from_bytes(*key), "1", slot.key_id, slot.dek_id, slot.wrapped).ok();
        if let Some(dek) = keys.iter().find_map(opened) {
            secrets.add(&format!("data key {n}"), dek.expose());
            secrets.add(&format!("what data key {n} encrypts with"), &encryption_key(dek.expose()));
        }
    }
    secrets
}

/// docs/format.md, of column email.
fn encryption_key(dek: &[u8; 32]) -> [u8; 32] {
    let (column, mut key) = ("public.users.email", [0; 32]);
    let info = [b"rowseal/v1/cell", &[1][..], &(column.len() as u32).to_be_bytes(), column.as_bytes()].concat();
    Hkdf::<Sha256>::from_prk(dek).unwrap().expand(&info, &mut key).unwrap();
    key
}

fn use_keys(stage: &Stage, proxy: &Proxy) {
    for start in (0..ROWS).step_by(TOGETHER) {
        let rows: Vec<String> = (start..start + TOGETHER).map(|n| format!("({n}, 1, 'user{n}', 'ssn{n}')")).collect();
        let insert = format!("INSERT INTO users (id, account_id, email, ssn) VALUES {}", rows.join(", "));
        stage.run(proxy.address(), &insert).unwrap();
    }
    for n in (0..ROWS).step_by(40) {
        let find = format!("SELECT ssn FROM users WHERE account_id = 1 AND email = 'user{n}'");
        assert_eq!(stage.run(proxy.address(), &find), Ok(vec![format!("ssn{n}")]));
    }
    assert_eq!(stage.run(proxy.address(), "SELECT email FROM users").unwrap().len(), ROWS);
}

#[test]
fn keys_that_were_used_and_dropped_are_not_in_memory() {
    for wrapping in ["direct", "hierarchical"] {
        let mut stage = Stage::start(wrapping);
        stage.site.set_environment([("ROWSEAL_KEYS_CACHE_BYTES_MAX", "65536"), ("ROWSEAL_KEYS_POOL_SIZE", "8")]);
        let proxy = stage.site.serve();
        use_keys(&stage, &proxy);
        let known = secrets(&stage);
        assert!(known.0.len() > 8 * ROWS, "{wrapping}: {}", known.0.len());
        let Some(found) = known.found_in(proxy.pid()) else {
            eprintln!("not looked for: this test lacks CAP_SYS_PTRACE, and the proxy's memory is closed to it");
            return;
        };
        // What is cached is there, which shows that it would be found; what was evicted is not.
        let kept = if wrapping == "direct" { CACHED_MAX + 2 * TOGETHER + 1 } else { 2 };
        let keys: Vec<&String> = found.keys().filter(|name| name.starts_with("key ")).collect();
        assert!(!keys.is_empty() && keys.len() <= kept, "{wrapping}: {} keys in use: {keys:?}", keys.len());
        let others = but_for_stacks(&found).into_iter().filter(|(name, _)| !keys.contains(name)).collect::<Vec<_>>();
        assert!(others.is_empty(), "{wrapping}, in use: {others:#?}");
        stage.site.run_ok(&["key", "deactivate", "1", "--reason", "test"]);
        let read = || stage.run(proxy.address(), "SELECT email FROM users");
        poll("the keys to be dropped", || read().is_err().then_some(()));
        let found = known.found_in(proxy.pid()).unwrap();
        let left = but_for_stacks(&found);
        assert!(left.is_empty(), "{wrapping}, dropped: {left:#?}");
    }
}

/// What a thread did last stays on its stack until it does something else: of the one or two cells that it sealed or opened
/// last, what encrypts them. Never a data key, and nothing of more cells than that.
fn but_for_stacks(found: &Found) -> Vec<(&String, &Vec<String>)> {
    let (derived, others): (Vec<_>, Vec<_>) = found.iter().partition(|(name, _)| name.starts_with("what "));
    assert!(derived.len() <= 2 * std::thread::available_parallelism().unwrap().get(), "{derived:#?}");
    others
}

/// What runs a program without the right to look into others that are the same user's, if this process has it.
fn humble() -> Vec<&'static str> {
    let can_drop = Command::new("setpriv").args(["--bounding-set=-sys_ptrace", "true"]).stderr(Stdio::null()).status();
    match can_drop {
        Ok(status) if status.success() => vec!["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"],
        _ => Vec::new(),
    }
}

fn may_look_into(pid: u32) -> bool {
    let open = format!(": </proc/{pid}/mem");
    let look = [&humble()[..], &["sh", "-c", &open]].concat();
    Command::new(look[0]).args(&look[1..]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn the_memory_of_a_proxy_is_closed_and_never_dumped() {
    let stage = Stage::start("direct");
    let config = stage.site.config();
    let variables: Vec<String> =
        stage.site.environment().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut command = humble();
    command.push("env");
    command.extend(variables.iter().map(String::as_str));
    let plain = Guarded::spawn(
        &stage.site.path().join("audit"),
        Path::new(command[0]),
        &[&command[1..], &["sleep", "100"]].concat(),
    );
    let pid = plain.pid().unwrap();
    poll("sleep", || (fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n").then_some(()));
    assert!(may_look_into(pid), "whatever runs is closed: the test does not see");
    plain.signal("KILL");
    command.extend([rowseal().to_str().unwrap(), "serve", "--config", config.to_str().unwrap()]);
    let proxy = Guarded::spawn(stage.site.path(), Path::new(command[0]), &command[1..]);
    poll("the proxy's port", || std::net::TcpStream::connect(stage.site.address()).ok());
    let pid = proxy.pid().unwrap();
    assert!(!may_look_into(pid), "the proxy can be looked into");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
}
