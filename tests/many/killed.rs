//! kill -9 of one proxy after the other while a service works: no write that was acknowledged is lost, and whatever was
//! answered is in the audit log of the proxy that answered.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::crew::{Crew, PROXIES};
use crate::support::guard::poll;

const WRITERS: i64 = 4;
const KILLS: usize = 6;

/// What one writer knows.
#[derive(Debug, Default)]
struct Known {
    /// Rows that were acknowledged, and the session that wrote them.
    written: BTreeMap<i64, String>,
    /// Rows whose answer never came.
    in_doubt: BTreeSet<i64>,
    /// Rows that were shown, and the sessions that they were shown to.
    read: Vec<(i64, String)>,
}

#[derive(Clone)]
struct Signals {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

#[test]
fn a_killed_proxy_loses_no_write_and_no_audit_record() {
    for wrapping in ["direct", "hierarchical"] {
        let mut crew = Crew::start(wrapping);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let signals = Signals { stop: Arc::default(), done: Arc::default() };
        let writers: Vec<_> = (1..=WRITERS).map(|n| runtime.spawn(write(crew.front(), n, signals.clone()))).collect();
        let work = || {
            let before = signals.done.load(SeqCst);
            poll("some work", || (signals.done.load(SeqCst) > before + 40).then_some(()));
        };
        for kill in 0..KILLS {
            work();
            crew.proxies[kill % PROXIES].kill();
            // The others go on.
            work();
            crew.proxies[kill % PROXIES] = crew.sites[kill % PROXIES].serve();
        }
        work();
        signals.stop.store(true, SeqCst);
        let known: Vec<Known> = writers.into_iter().map(|writer| runtime.block_on(writer).unwrap()).collect();
        check(&crew, &known);
    }
}

async fn write(front: SocketAddr, n: i64, signals: Signals) -> Known {
    let (mut known, mut id, mut sessions) = (Known::default(), 100_000 * n, 0);
    while !signals.stop.load(SeqCst) {
        sessions += 1;
        let application = format!("writer{n}-{sessions}");
        match connect(front, &application).await {
            Some(client) => session(&client, &application, (&mut known, &mut id), &signals).await,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    known
}

async fn connect(front: SocketAddr, application: &str) -> Option<Client> {
    let port = front.port();
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=app application_name={application}");
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

/// Writes and reads until the connection breaks.
async fn session(client: &Client, application: &str, (known, id): (&mut Known, &mut i64), signals: &Signals) {
    while !signals.stop.load(SeqCst) {
        *id += 1;
        let insert = "INSERT INTO users (id, account_id, email) VALUES ($1, 1, $2)";
        if client.execute(insert, &[id, &email(*id)]).await.is_err() {
            known.in_doubt.insert(*id);
            return;
        }
        known.written.insert(*id, application.to_owned());
        // One of the rows that any session of this writer has written.
        let nth = usize::try_from(*id * 7).unwrap() % known.written.len();
        let read = *known.written.keys().nth(nth).unwrap();
        let Ok(row) = client.query_one("SELECT email FROM users WHERE id = $1", &[&read]).await else { return };
        assert_eq!(row.get::<_, String>(0), email(read));
        known.read.push((read, application.to_owned()));
        signals.done.fetch_add(1, SeqCst);
    }
}

fn email(id: i64) -> String {
    format!("user{id}@x")
}

fn check(crew: &Crew, known: &[Known]) {
    let deks =
        crew.cluster.psql("app", "SELECT id, encode(substring(rowseal.slot(email) FROM 1 FOR 16), 'hex') FROM users");
    let deks: BTreeMap<i64, &str> =
        deks.lines().map(|row| row.split_once('|').unwrap()).map(|(id, dek)| (id.parse().unwrap(), dek)).collect();
    let shown = crew.cluster.psql_at(crew.front(), "app", "SELECT id, email FROM users").unwrap();
    let shown: BTreeMap<i64, &str> =
        shown.lines().map(|row| row.split_once('|').unwrap()).map(|(id, email)| (id.parse().unwrap(), email)).collect();
    crew.proxies.iter().for_each(|proxy| assert_eq!(proxy.stop(), 0));
    let audited = crew.audited();
    let mut expected: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for known in known {
        for (id, application) in &known.written {
            assert_eq!(shown.get(id), Some(&&*email(*id)), "an acknowledged row");
            *expected.entry((application.clone(), "seal".to_owned(), deks[id].to_owned())).or_default() += 1;
        }
        for (id, application) in &known.read {
            *expected.entry((application.clone(), "open".to_owned(), deks[id].to_owned())).or_default() += 1;
        }
    }
    // What was answered has been recorded, and what is stored without an answer too.
    for (dek_use, times) in &expected {
        let recorded = audited.uses.get(dek_use).copied().unwrap_or_default();
        assert!(recorded >= *times, "{dek_use:?}: {times} answers, {recorded} records");
    }
    let sealed: BTreeSet<&str> =
        audited.uses.keys().filter(|(_, act, _)| act == "seal").map(|(_, _, dek)| &**dek).collect();
    let in_doubt: BTreeSet<i64> = known.iter().flat_map(|known| known.in_doubt.iter().copied()).collect();
    let written: BTreeSet<i64> = known.iter().flat_map(|known| known.written.keys().copied()).collect();
    for (id, dek) in &deks {
        assert!(written.contains(id) || in_doubt.contains(id), "row {id} is nobody's");
        assert!(sealed.contains(dek), "row {id} was written without a record");
    }
    let busy: BTreeSet<usize> = expected.keys().filter_map(|(app, _, _)| audited.proxy.get(app).copied()).collect();
    assert_eq!(busy.len(), PROXIES, "HAProxy has left one out");
}
