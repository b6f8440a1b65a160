//! The only file that awaits sockets: feeds the [`Machine`] and carries out its work.
//!
//! One task a connection. Every turn writes what is pending, finishes work, then reads; a blocked direction never
//! blocks the other, and no more is read from one side than the other side's bounded buffer takes.
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::audit::{Act, AuditError, Ticket};
use crate::keys::{Granted, KeyError, Need};
use crate::refusal::{Class, Refusal};
use crate::wire::backend;

use super::machine::{Fatal, Machine, OUT_BYTES_MAX, Shared};
use super::open::key_refusal;
use super::work::{Side, Work, WorkId};

/// Loads the schema anew and puts it into [`Shared::schema`].
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>> + Send + Sync>;

/// How often a session looks for the log to be free before it waits for it.
const RECORD_TRIES_MAX: u32 = 200;

/// Room for the bytes of one read, to begin with and where much comes at a time.
const READ_BYTES: usize = 16 * 1024;
const READ_BYTES_MAX: usize = 128 * 1024;

type Job = Pin<Box<dyn Future<Output = Done> + Send>>;

enum Done {
    Granted(WorkId, Result<Granted, Refusal>),
    Reloaded(WorkId, Result<(), Refusal>),
}

/// Why a session ended.
#[derive(Debug)]
pub enum End {
    /// The client left, or said goodbye and the server closed.
    Client,
    /// The server closed.
    Server,
    /// The proxy asked it to.
    Stopping(Stop),
    /// A broken protocol or a fault of ours; the client has been told.
    Fatal(Fatal),
}

/// The connection to the server.
pub trait ServerEnd: AsyncRead + AsyncWrite + Unpin {
    /// Ends the stream to the server: nothing more is sent, not even what a layer of encryption still holds back.
    fn close(&self);
}

/// Why a session is asked to end at its next idle moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The proxy is stopping.
    Proxy,
    /// The policy looks after columns that it did not when the session began: what the session has prepared since then
    /// was never looked at.
    Policy,
}

/// The two sockets of a session and what was read from them before it began.
pub struct Ends<C, S> {
    /// The client.
    pub client: C,
    /// The server.
    pub server: S,
    /// Bytes of the client not yet consumed.
    pub client_in: BytesMut,
    /// Bytes of the server not yet consumed.
    pub server_in: BytesMut,
}

struct Driver<C, S> {
    ends: Ends<C, S>,
    machine: Machine,
    shared: Arc<Shared>,
    reload: Reload,
    jobs: Vec<Job>,
    /// Records handed in; nothing leaves before they are written.
    recording: Option<Recording>,
    leaving: Leaving,
    /// A layer of encryption may hold back bytes for the server.
    is_held_back: bool,
    /// Room for the next read from the client, and from the server.
    client_room: usize,
    server_room: usize,
}

/// Records handed in to the audit log.
struct Recording {
    ticket: Ticket,
    /// Whether a key use is among them. What is only refused need not wait for its record.
    is_needed: bool,
    /// How often the log was found busy.
    tries: u32,
}

/// How far the client's end of stream has been carried to the server, which then ends the session itself: what the
/// client sent before still counts, as it does without a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// The client sends nothing more; what it sent may still be under way.
    Ended,
    /// The server knows.
    Told,
}

/// Runs a session to its end.
///
/// # Cancel safety
/// Dropping the future closes both sockets; a statement under way is then left to the server as if the client had
/// vanished.
pub async fn run<C, S>(
    ends: Ends<C, S>,
    machine: Machine,
    shared: Arc<Shared>,
    reload: Reload,
    stop: impl Future<Output = Stop>,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: ServerEnd,
{
    let mut driver = Driver {
        ends,
        machine,
        shared,
        reload,
        jobs: Vec::new(),
        recording: None,
        leaving: Leaving::No,
        is_held_back: false,
        client_room: READ_BYTES,
        server_room: READ_BYTES,
    };
    let mut stop = pin!(stop);
    let mut stopped = None;
    let end = poll_fn(|cx| {
        if stopped.is_none()
            && let Poll::Ready(why) = stop.as_mut().poll(cx)
        {
            stopped = Some(why);
        }
        driver.turn(cx, stopped)
    })
    .await;
    driver.say_goodbye(&end).await;
    driver.see_cells_arrive().await;
    end
}

impl<C, S> Driver<C, S>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: ServerEnd,
{
    fn turn(&mut self, cx: &mut Context<'_>, stopped: Option<Stop>) -> Poll<End> {
        loop {
            let mut progress = false;
            match self.step(cx, &mut progress) {
                Ok(None) => {}
                Ok(Some(end)) => return Poll::Ready(end),
                Err(fatal) => return Poll::Ready(End::Fatal(fatal)),
            }
            if !progress {
                self.machine.tell_state();
                let quiet = self.ends.client_in.is_empty() && self.machine.to_client.is_empty();
                return match stopped {
                    Some(why) if quiet && self.machine.is_idle() => Poll::Ready(End::Stopping(why)),
                    _ => Poll::Pending,
                };
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Result<Option<End>, Fatal> {
        if self.record(cx)?.is_pending() {
            return Ok(None);
        }
        self.check_lease()?;
        if self.write(cx, progress).is_err() {
            return Ok(Some(End::Client));
        }
        self.finish_jobs(cx, progress)?;
        if let Some(end) = self.read_server(cx, progress)? {
            return Ok(Some(end));
        }
        if let Some(end) = self.read_client(cx, progress)? {
            return Ok(Some(end));
        }
        self.start_jobs(progress);
        Ok(None)
    }

    /// Writes what is to be recorded. Others on this thread that are ready hand in theirs first, for one write.
    fn record(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Fatal> {
        let is_recorded = self.commit_unless_busy()?;
        if is_recorded && !self.submit() {
            return Ok(Poll::Ready(()));
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    /// Hands the machine's records in; false when there are none.
    fn submit(&mut self) -> bool {
        let records = self.machine.take_records();
        if records.is_empty() {
            return false;
        }
        let is_needed = records.iter().any(|record| record.act != Act::Refuse);
        let ticket = self.shared.audit.submit(&records);
        self.recording = Some(Recording { ticket, is_needed, tries: 0 });
        true
    }

    /// Writes what was handed in; false while another thread writes: to wait for it here would hold up the other
    /// sessions of this thread, and cost it a sleep that is longer than the write.
    fn commit_unless_busy(&mut self) -> Result<bool, Fatal> {
        let Some(mut recording) = self.recording.take() else { return Ok(true) };
        if recording.tries == RECORD_TRIES_MAX {
            return self.commit(&recording).map(|()| true);
        }
        if let Some(written) = self.shared.audit.try_commit(&recording.ticket) {
            return self.settle(&recording, written).map(|()| true);
        }
        recording.tries += 1;
        self.recording = Some(recording);
        Ok(false)
    }

    fn commit(&mut self, recording: &Recording) -> Result<(), Fatal> {
        let written = self.shared.audit.commit(&recording.ticket);
        self.settle(recording, written)
    }

    fn settle(&mut self, recording: &Recording, written: Result<(), AuditError>) -> Result<(), Fatal> {
        match written {
            Err(error) if recording.is_needed => Err(self.machine.on_unrecorded(&error)),
            Err(error) => {
                tracing::error!(%error, "audit record of a refusal not written");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Ends a session whose unsent bytes may hold cells under a key that has been rotated away, because this proxy was
    /// stopped or cut off for so long.
    fn check_lease(&mut self) -> Result<(), Fatal> {
        let has_unsent = self.is_held_back || !self.machine.to_server.is_empty();
        if !has_unsent || !self.machine.is_pinned() || self.machine.may_send() {
            return Ok(());
        }
        self.machine.to_server.clear();
        self.ends.server.close();
        let message = "sealed values were not sent, because the registry has been silent for too long";
        Err(Fatal(Refusal::new(Class::Unreachable, message).hint("Connect again and repeat the transaction.")))
    }

    fn write(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> io::Result<()> {
        // A failed write to the server is not the end: what the server said before it closed is still to be read.
        let written = write_out(&mut self.ends.server, &mut self.machine.to_server, cx);
        self.is_held_back = written.is_pending();
        match written {
            Poll::Ready(Ok(wrote)) => *progress |= wrote,
            Poll::Ready(Err(_)) => self.machine.to_server.clear(),
            Poll::Pending => {}
        }
        match write_out(&mut self.ends.client, &mut self.machine.to_client, cx) {
            Poll::Ready(result) => *progress |= result?,
            Poll::Pending => {}
        }
        Ok(())
    }

    fn read_server(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Result<Option<End>, Fatal> {
        let before = self.ends.server_in.len();
        if before > 0 {
            self.machine.on_server(&mut self.ends.server_in)?;
            *progress |= self.ends.server_in.len() != before;
        }
        if self.machine.to_client.len() >= OUT_BYTES_MAX || self.machine.is_waiting_for_keys() {
            return Ok(None);
        }
        match read_in(&mut self.ends.server, (&mut self.ends.server_in, &mut self.server_room), cx) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(n)) if n > 0 => {
                *progress = true;
                self.machine.on_server(&mut self.ends.server_in)?;
                Ok(None)
            }
            Poll::Ready(_) if self.leaving != Leaving::No => Ok(Some(End::Client)),
            Poll::Ready(_) => Ok(Some(End::Server)),
        }
    }

    fn read_client(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Result<Option<End>, Fatal> {
        let before = self.ends.client_in.len();
        if before > 0 {
            self.machine.on_client(&mut self.ends.client_in)?;
            *progress |= self.ends.client_in.len() != before;
        }
        if self.leaving != Leaving::No {
            self.tell_server(cx, *progress);
            return Ok(None);
        }
        let full = self.machine.is_held() && self.ends.client_in.len() >= OUT_BYTES_MAX;
        if self.machine.to_server.len() >= OUT_BYTES_MAX || full || self.machine.is_terminated() {
            return Ok(None);
        }
        match read_in(&mut self.ends.client, (&mut self.ends.client_in, &mut self.client_room), cx) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(n)) if n > 0 => {
                *progress = true;
                self.machine.on_client(&mut self.ends.client_in)?;
                Ok(None)
            }
            Poll::Ready(Ok(_)) => {
                *progress = true;
                self.leaving = Leaving::Ended;
                Ok(None)
            }
            Poll::Ready(Err(_)) => Ok(Some(End::Client)),
        }
    }

    /// Ends the stream to the server once nothing of the client's is left to send; half a message never will be.
    fn tell_server(&mut self, cx: &mut Context<'_>, progress: bool) {
        let quiet = !progress && !self.machine.is_held() && self.machine.to_server.is_empty();
        if quiet && self.leaving == Leaving::Ended && Pin::new(&mut self.ends.server).poll_shutdown(cx).is_ready() {
            self.leaving = Leaving::Told;
        }
    }

    fn start_jobs(&mut self, progress: &mut bool) {
        for side in [Side::Client, Side::Server] {
            if let Some((id, work)) = self.machine.take_work(side) {
                *progress = true;
                self.jobs.push(self.job(id, work));
            }
        }
    }

    fn job(&self, id: WorkId, work: Work) -> Job {
        match work {
            Work::Grant(need) => {
                let shared = self.shared.clone();
                Box::pin(async move {
                    let granted = grant(&shared, need).await;
                    Done::Granted(id, granted.map_err(|error| key_refusal(&error)))
                })
            }
            Work::Reload => {
                let load = (self.reload)();
                Box::pin(async move { Done::Reloaded(id, load.await) })
            }
        }
    }

    fn finish_jobs(&mut self, cx: &mut Context<'_>, progress: &mut bool) -> Result<(), Fatal> {
        let mut at = 0;
        while at < self.jobs.len() {
            let Poll::Ready(done) = self.jobs[at].as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            drop(self.jobs.swap_remove(at));
            *progress = true;
            match done {
                Done::Granted(id, granted) => self.machine.on_granted(id, granted)?,
                Done::Reloaded(id, loaded) => self.machine.on_reloaded(id, loaded)?,
            }
        }
        Ok(())
    }

    /// Records what is still to be recorded. On failure nothing is left to send.
    fn record_last(&mut self) -> Result<(), Fatal> {
        if let Some(recording) = self.recording.take() {
            self.commit(&recording)?;
        }
        if self.submit()
            && let Some(recording) = self.recording.take()
        {
            self.commit(&recording)?;
        }
        Ok(())
    }

    /// Sends what is still pending and, where the client has not heard why, one FATAL.
    async fn say_goodbye(&mut self, end: &End) {
        let recorded = self.record_last();
        let refusal = match end {
            End::Client | End::Server | End::Stopping(_) if recorded.is_err() => recorded.err().map(|fatal| fatal.0),
            End::Client => None,
            End::Server if self.machine.is_terminated() || self.machine.is_fatal_seen() => None,
            End::Server => Some(Refusal::new(Class::ServerLost, "connection to the server was lost")),
            End::Stopping(Stop::Proxy) => {
                Some(Refusal::new(Class::Stopping, "terminating connection because the proxy is stopping"))
            }
            End::Stopping(Stop::Policy) => Some(
                Refusal::new(Class::Stopping, "terminating connection because the policy covers more columns now")
                    .hint("Connect again."),
            ),
            End::Fatal(fatal) => Some(fatal.0.clone()),
        };
        if let Some(refusal) = refusal {
            put_fatal(&mut self.machine.to_client, &refusal);
        }
        let machine = &mut self.machine;
        let ends = &mut self.ends;
        let farewell = async {
            let _ = poll_fn(|cx| write_all(&mut ends.client, &mut machine.to_client, cx)).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut ends.client).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut ends.server).await;
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), farewell).await;
    }
}

impl<C, S> Driver<C, S>
where
    S: ServerEnd,
{
    /// Holds on to the epoch of cells that were sent until the server has read them: it closes then.
    async fn see_cells_arrive(&mut self) {
        if !self.machine.is_pinned() {
            return;
        }
        self.ends.server.close();
        let mut rest = [0; 4096];
        while matches!(self.ends.server.read(&mut rest).await, Ok(1..)) {}
        self.machine.on_server_gone();
    }
}

/// Grants what is needed. Where the policy says so, tenants unknown at a write are registered first.
async fn grant(shared: &Shared, need: Need) -> Result<Granted, KeyError> {
    for _ in 0..need.fresh.len() {
        let granted = shared.keys.grant(need.clone()).await;
        let (Err(KeyError::UnknownTenant(tenant)), Some(wrapping)) = (&granted, shared.auto_register) else {
            return granted;
        };
        if !need.fresh.iter().any(|(writer, _)| writer == tenant) {
            return granted;
        }
        shared.keys.register(tenant, wrapping).await.map_err(|error| {
            tracing::warn!(%error, "tenant not registered");
            if error.is_transient() { KeyError::Unreachable } else { KeyError::UnknownTenant(tenant.clone()) }
        })?;
    }
    shared.keys.grant(need).await
}

/// Appends a FATAL ErrorResponse.
pub fn put_fatal(out: &mut BytesMut, refusal: &Refusal) {
    let fields = [
        (b'S', &b"FATAL"[..]),
        (b'V', b"FATAL"),
        (b'C', refusal.class.sqlstate().as_bytes()),
        (b'M', refusal.message.as_bytes()),
        (b'D', refusal.detail.as_bytes()),
        (b'H', refusal.hint.as_bytes()),
    ];
    backend::put_notice(out, b'E', fields.into_iter().filter(|(_, text)| !text.is_empty()));
}

/// Writes as much as goes; true when something was written and nothing is left.
fn write_out<W: AsyncWrite + Unpin>(to: &mut W, out: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
    if out.is_empty() {
        return Pin::new(to).poll_flush(cx).map_ok(|()| false);
    }
    write_all(to, out, cx).map_ok(|()| true)
}

fn write_all<W: AsyncWrite + Unpin>(to: &mut W, out: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        let n = ready!(Pin::new(&mut *to).poll_write(cx, out))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        out.advance(n);
    }
    Pin::new(to).poll_flush(cx)
}

/// Reads once. Who fills the room gets more of it; who no longer does gives it back.
fn read_in<R: AsyncRead + Unpin>(
    from: &mut R,
    (input, room): (&mut BytesMut, &mut usize),
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if *room == READ_BYTES && input.is_empty() && input.capacity() > 2 * READ_BYTES {
        *input = BytesMut::new();
    }
    if input.capacity() - input.len() < *room / 4 {
        input.reserve(*room);
    }
    let spare = input.capacity() - input.len();
    let read = ready!(pin!(from.read_buf(input)).poll(cx))?;
    if read == spare {
        *room = (*room * 2).min(READ_BYTES_MAX);
    } else if read < READ_BYTES {
        *room = READ_BYTES;
    }
    Poll::Ready(Ok(read))
}
