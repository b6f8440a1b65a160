//! Clients that go on writing through a storm: what a statement did that was not answered is in doubt until it is read.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls};

use super::Random;

/// Rows of `visits` that writers change; the others stay as they were filled.
pub const VISITS_CHANGED: i64 = 40;
const ROWS_MAX: usize = 120;

/// What a row may hold: `None` is no row. One value is certain.
type Possible = Vec<Option<String>>;

/// What a writer knows of its rows.
#[derive(Debug, Default, Clone)]
pub struct Model {
    pub people: BTreeMap<i64, Possible>,
    pub visits: BTreeMap<i64, Possible>,
    pub answers: u64,
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    /// What no kill explains.
    wrong: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<Model>>,
}

impl Writers {
    /// Two clients of tenant 1.
    pub fn start(runtime: &tokio::runtime::Runtime, address: SocketAddr) -> Writers {
        let (stop, wrong) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let tasks = (1..=2)
            .map(|n| {
                let writer = Writer { address, n, random: Random(n.unsigned_abs()), model: Model::default() };
                runtime.spawn(writer.work(stop.clone(), wrong.clone()))
            })
            .collect();
        Writers { stop, wrong, tasks }
    }

    #[track_caller]
    pub fn check(&self) {
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Stops them; gives what each knows.
    pub fn stop(self, runtime: &tokio::runtime::Runtime) -> Vec<Model> {
        self.stop.store(true, SeqCst);
        self.check();
        self.tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).collect()
    }
}

struct Writer {
    address: SocketAddr,
    n: i64,
    random: Random,
    model: Model,
}

impl Writer {
    async fn work(mut self, stop: Arc<AtomicBool>, wrong: Arc<Mutex<Vec<String>>>) -> Model {
        while !stop.load(SeqCst) {
            let Some(client) = connect(self.address).await else {
                tokio::time::sleep(Duration::from_millis(30)).await;
                continue;
            };
            while !stop.load(SeqCst) && !client.is_closed() {
                match self.step(&client).await {
                    Ok(()) => self.model.answers += 1,
                    Err(Trouble::Server(error)) if is_expected(&error) => {}
                    Err(Trouble::Server(error)) => {
                        let error = format!("writer {}: {error:?}", self.n);
                        wrong.lock().unwrap().push(error);
                    }
                    Err(Trouble::Wrong(what)) => wrong.lock().unwrap().push(format!("writer {}: {what}", self.n)),
                }
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        }
        self.model
    }

    async fn step(&mut self, client: &Client) -> Result<(), Trouble> {
        match self.random.below(6) {
            0 | 1 if self.model.people.len() < ROWS_MAX => {
                let id = 100_000 * self.n + self.model.people.len() as i64;
                let value = self.value();
                self.model.people.insert(id, vec![None, Some(value.clone())]);
                let insert = "INSERT INTO people (id, account_id, email, ssn) VALUES ($1, 1, $2, 'fresh')";
                client.execute(insert, &[&id, &value]).await?;
                self.model.people.insert(id, vec![Some(value)]);
            }
            0..=2 => {
                let Some(id) = self.own() else { return Ok(()) };
                let value = self.value();
                let update = "UPDATE people SET email = $2 WHERE id = $1 AND account_id = 1";
                change(client, (update, id, value), self.model.people.get_mut(&id).unwrap()).await?;
            }
            3 => {
                let id = self.random.below(VISITS_CHANGED as u64 / 2) as i64 * 2 + self.n - 1;
                let value = self.value();
                let update = "UPDATE visits SET place = $2 WHERE id = $1 AND account_id = 1";
                let possible = self.model.visits.entry(id).or_insert_with(|| vec![Some(place(id))]);
                change(client, (update, id, value), possible).await?;
            }
            4 => {
                let Some(id) = self.own() else { return Ok(()) };
                let read = client.query_opt("SELECT email FROM people WHERE id = $1", &[&id]).await?;
                let read = read.map(|row| row.get::<_, String>(0));
                settle(("people", id), self.model.people.get_mut(&id).unwrap(), read)?;
            }
            _ => {
                let Some(id) = self.own() else { return Ok(()) };
                let [Some(email)] = &self.model.people[&id][..] else { return Ok(()) };
                let found = client.query("SELECT id FROM people WHERE account_id = 1 AND email = $1", &[email]).await?;
                let found: Vec<i64> = found.iter().map(|row| row.get(0)).collect();
                if found != [id] {
                    return Err(Trouble::Wrong(format!("a search for row {id} of people found {found:?}")));
                }
            }
        }
        Ok(())
    }

    /// Never the same twice.
    fn value(&mut self) -> String {
        format!("writer{}-{}-{}", self.n, self.model.answers, self.random.below(1 << 30))
    }

    fn own(&mut self) -> Option<i64> {
        let nth = self.random.below(self.model.people.len().max(1) as u64);
        self.model.people.keys().nth(nth as usize).copied()
    }
}

enum Trouble {
    Server(Error),
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Server(error)
    }
}

async fn connect(address: SocketAddr) -> Option<Client> {
    let conninfo = format!("host={} port={} user=postgres dbname=app connect_timeout=5", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

async fn change(
    client: &Client,
    (update, id, value): (&str, i64, String),
    possible: &mut Possible,
) -> Result<(), Trouble> {
    possible.push(Some(value.clone()));
    match client.execute(update, &[&id, &value]).await? {
        1 => *possible = vec![Some(value)],
        // No row was there, so none was changed.
        0 if possible.contains(&None) => *possible = vec![None],
        n => return Err(Trouble::Wrong(format!("{update} of {id} changed {n} rows"))),
    }
    Ok(())
}

fn settle((table, id): (&str, i64), possible: &mut Possible, read: Option<String>) -> Result<(), Trouble> {
    if !possible.contains(&read) {
        return Err(Trouble::Wrong(format!("row {id} of {table} holds {read:?}, not one of {possible:?}")));
    }
    *possible = vec![read];
    Ok(())
}

/// What a kill explains: the connection, the server or the proxy is gone, or the keys cannot be had for a moment.
fn is_expected(error: &Error) -> bool {
    let code = error.code().map(|code| code.code().to_owned());
    code.is_none_or(|code| code.starts_with("57P") || code.starts_with("08") || code == "58030")
}

/// What stands in `visits` from the start.
pub fn place(id: i64) -> String {
    format!("place {id}")
}
