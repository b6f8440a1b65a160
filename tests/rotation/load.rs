//! Clients that write and read through the proxy while a key is rotated, and know what must be there.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::stage::{Contents, Stage};
use crate::support::postgres::connect_at;

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Contents>>,
}

/// Rows that one client has to itself.
const OWN_ROWS: i64 = 40;

impl Load {
    /// Two clients of tenant 1 that work on rows of their own until they are stopped; every error is a failure.
    pub fn start(stage: &Stage, address: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |n: i64| stage.runtime.spawn(work(address, n, stop.clone()));
        Load { clients: vec![client(1), client(2)], stop }
    }

    /// Stops them and adds what they wrote.
    pub fn stop(self, stage: &Stage, contents: &mut Contents) -> usize {
        self.stop.store(true, SeqCst);
        let mut rows = 0;
        for client in self.clients {
            let written = stage.runtime.block_on(client).unwrap();
            rows += written.people.len();
            contents.people.extend(written.people);
            contents.events.extend(written.events);
        }
        rows
    }
}

async fn work(address: SocketAddr, n: i64, stop: Arc<AtomicBool>) -> Contents {
    let client = connect_at(address, "app").await;
    let (mut written, mut turn) = (Contents::default(), 0);
    while !stop.load(SeqCst) {
        turn += 1;
        let id = 100_000 * n + turn;
        step(&client, &mut written, (id, turn))
            .await
            .unwrap_or_else(|error| panic!("client {n}, turn {turn}: {error:?}"));
        // A machine of two cores has other things to do as well.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    written
}

async fn step(client: &Client, written: &mut Contents, (id, turn): (i64, i64)) -> Result<(), tokio_postgres::Error> {
    let email = format!("new{id}@example.com");
    if turn <= OWN_ROWS || turn % 5 == 0 {
        let insert = "INSERT INTO people (id, account_id, email, ssn) VALUES ($1, 1, $2, 'fresh')";
        client.execute(insert, &[&id, &email]).await?;
        written.people.insert(id, (email, Some("fresh".to_owned())));
        return Ok(());
    }
    let nth = usize::try_from(turn).unwrap() % written.people.len();
    let (own, (known, _)) = written.people.iter().nth(nth).map(|(id, row)| (*id, row.clone())).unwrap();
    match turn % 5 {
        // One cell of two: the row then has cells of two data keys.
        1 => {
            client.execute("UPDATE people SET email = $2 WHERE id = $1 AND account_id = 1", &[&own, &email]).await?;
            written.people.get_mut(&own).unwrap().0 = email;
        }
        // A plain column alone: the row moves with the cells it has.
        2 => {
            let moved = "UPDATE people SET seen = seen + 1 WHERE id BETWEEN $1 AND $1 + 20";
            client.execute(moved, &[&(turn * 7 % 2000)]).await?;
        }
        3 => {
            let rows = client.query("SELECT id FROM people WHERE account_id = 1 AND email = $1", &[&known]).await?;
            assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [own]);
        }
        _ => {
            let rows = client
                .query("SELECT id, email FROM people WHERE id BETWEEN $1 AND $1 + 30", &[&(turn * 13 % 2000)])
                .await?;
            for row in rows {
                assert_eq!(row.get::<_, String>(1), format!("person{}@example.com", row.get::<_, i64>(0)));
            }
        }
    }
    Ok(())
}
