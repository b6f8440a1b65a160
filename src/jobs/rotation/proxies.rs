//! Waiting until no proxy makes cells under the old key any more.
use std::time::Duration;

use tokio::time::sleep;

use crate::jobs::{Event, JobError, Worker};

const PAUSE: Duration = Duration::from_millis(100);
/// How often it is said what is waited for, in pauses.
const TELL_EVERY: u32 = 20;

/// A proxy whose heartbeat is older has stopped sealing by itself: its lease of 15 s is over. Its row goes, so that it must
/// register anew.
const SILENT: &str = "SELECT id::text FROM rowseal.proxy
    WHERE epoch < $1 AND heartbeat < clock_timestamp() - interval '20 seconds'";
const FENCE: &str = "DELETE FROM rowseal.proxy WHERE id = $2::text::uuid
    AND epoch < $1 AND heartbeat < clock_timestamp() - interval '20 seconds'";
const BEHIND: &str = "SELECT count(*) FROM rowseal.proxy WHERE epoch < $1";

/// Returns once every live proxy has acknowledged the epoch; the others are fenced.
///
/// # Errors
/// A server that does not answer.
pub(super) async fn acknowledged(worker: &Worker<'_>, epoch: Option<i64>) -> Result<(), JobError> {
    let epoch = epoch.ok_or(JobError::Internal("a rotation that has switched without an epoch"))?;
    let failed = || JobError::server("read the table of proxies");
    let mut looks = 0;
    loop {
        for silent in worker.client.query(SILENT, &[&epoch]).await.map_err(failed())? {
            let id: String = silent.get(0);
            worker.journal.say(format!("fence the silent proxy {id}"), None).await?;
            worker.client.execute(FENCE, &[&epoch, &id]).await.map_err(failed())?;
            worker.tell(Event::Warning(&format!("proxy {id} has been silent and is fenced")));
        }
        let behind: i64 = worker.client.query_one(BEHIND, &[&epoch]).await.map_err(failed())?.get(0);
        if behind == 0 {
            return Ok(());
        }
        if looks % TELL_EVERY == 0 {
            worker.tell(Event::Waiting(&format!("{behind} proxies have not taken up the new key yet")));
        }
        looks += 1;
        sleep(PAUSE).await;
    }
}
