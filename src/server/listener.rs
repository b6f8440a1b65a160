//! The listener and its workers.
//!
//! Each worker is a thread with a runtime of its own (`current_thread`), and a connection lives its whole life on one
//! worker: both its sockets are polled by the same thread, so no message ever pays for waking another thread, no task
//! moves between caches, and no lock is contended. The price is that a busy connection cannot be moved to an idle
//! core; a new one goes to the worker with the fewest, which evens out for the many short and equal statements of a
//! Postgres application.
//!
//! Start at [`Server::bind`]; [`serve`] adds the signals.
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::SessionRunner;
use super::affinity;
use super::bounds::SessionBounds;
use super::connection::{Shared, serve_connection};
use super::stream::ClientStream;
use super::tls::{ListenTls, TlsError};
use super::upstream::{Upstream, tune};

/// How long the listener rests when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The full path of a Unix socket; a stale one is replaced.
    Unix(PathBuf),
}

/// What the outside of the proxy needs to know.
pub struct ServerSettings {
    /// Where clients connect.
    pub listen: ListenAddress,
    /// Certificate and key for clients; none means clear text only.
    pub tls: Option<Arc<ListenTls>>,
    /// The server behind the proxy.
    pub upstream: Upstream,
    /// How many worker threads; at least one.
    pub workers: usize,
    /// How many sessions at once; the next one gets 53300.
    pub sessions_max: usize,
    /// For TLS, startup and authentication together.
    pub login_timeout: Duration,
    /// How long sessions may go on after [`ServerHandle::drain`].
    pub drain_timeout: Duration,
}

impl ServerSettings {
    /// Settings with the usual bounds: a worker a core, 10,000 sessions, a minute to log in, half a minute to drain.
    pub fn new(listen: ListenAddress, upstream: Upstream) -> ServerSettings {
        ServerSettings {
            listen,
            tls: None,
            upstream,
            workers: thread::available_parallelism().map_or(1, usize::from),
            sessions_max: 10_000,
            login_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A worker thread or its runtime could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
    /// Signals cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signal(io::Error),
}

/// A bound listener with its workers running; [`Server::run`] accepts.
pub struct Server {
    listener: Listener,
    workers: Vec<Worker>,
    handle: ServerHandle,
}

/// What others may ask of a running server.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) shared: Arc<Shared>,
    drain: Arc<watch::Sender<bool>>,
    address: Option<SocketAddr>,
}

impl ServerHandle {
    /// The TCP address that is listened on.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How many sessions there are, those logging in included.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Stops accepting and lets sessions end at their next idle moment.
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Whether a drain has begun: readiness is then false.
    pub fn is_draining(&self) -> bool {
        *self.drain.borrow()
    }

    /// Reads certificate and key for clients again.
    ///
    /// # Errors
    /// [`TlsError`]; what was in use stays in use.
    pub fn reload_certificates(&self) -> Result<(), TlsError> {
        self.shared.settings.tls.as_deref().map_or(Ok(()), ListenTls::reload)
    }
}

impl Server {
    /// Listens and starts the workers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ServeError`]; nothing keeps running then.
    pub async fn bind(settings: ServerSettings, runner: Arc<dyn SessionRunner>) -> Result<Server, ServeError> {
        raise_nofile();
        let listener = Listener::bind(&settings.listen).await?;
        let (sender, drain) = watch::channel(false);
        let bounds = ArcSwap::from_pointee(SessionBounds::of(&settings));
        let shared = Arc::new(Shared { settings, bounds, runner, sessions: AtomicUsize::new(0), drain });
        let count = shared.settings.workers.max(1);
        let cores = affinity::cores(count);
        let start = |number| Worker::start(number, cores.get(number).copied(), &shared);
        let workers = (0..count).map(start).collect::<Result<_, _>>()?;
        let handle = ServerHandle { shared, drain: Arc::new(sender), address: listener.address() };
        Ok(Server { listener, workers, handle })
    }

    /// A handle that stays valid while the server runs.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Accepts until [`ServerHandle::drain`], then waits for the sessions, at most `drain_timeout`.
    pub async fn run(self) {
        let Server { listener, workers, handle } = self;
        let mut drain = handle.drain.subscribe();
        tokio::select! {
            () = accept_all(&listener, &workers) => {}
            _ = drain.wait_for(|draining| *draining) => {}
        }
        drop(listener);
        info!(sessions = handle.sessions(), "draining");
        // All channels close before the first wait, so that the workers drain side by side.
        let threads: Vec<_> = workers.into_iter().map(|worker| worker.thread).collect();
        let ended = tokio::task::spawn_blocking(move || threads.into_iter().for_each(join)).await;
        if ended.is_err() {
            warn!("a worker did not end in order");
        }
    }
}

/// Serves until SIGTERM or SIGINT, then drains. `started` is given the handle before the first connection is accepted.
///
/// # Errors
/// [`ServeError`] when the server cannot start.
pub async fn serve(
    settings: ServerSettings,
    runner: Arc<dyn SessionRunner>,
    started: impl FnOnce(ServerHandle),
) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    // Without a handler, a write beyond the limit of a file's size would end the process; with one it is an error.
    let file_size = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    let _ignored = signal(file_size).map_err(ServeError::Signal)?;
    let address = settings.listen.clone();
    let server = Server::bind(settings, runner).await?;
    info!(%address, "listening");
    let handle = server.handle();
    started(handle.clone());
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        handle.drain();
    });
    server.run().await;
    signals.abort();
    Ok(())
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket between two runtimes: registered with neither.
enum Incoming {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    async fn bind(address: &ListenAddress) -> Result<Listener, ServeError> {
        match address {
            ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(Listener::Tcp),
            ListenAddress::Unix(path) => {
                if UnixStream::connect(path).await.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                    // Left behind by a process that is gone; failing to remove it shows in bind.
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path).map(Listener::Unix)
            }
        }
        .map_err(|source| ServeError::Bind { address: address.to_string(), source })
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Incoming::Tcp(stream.into_std()?, peer))
            }
            Listener::Unix(listener) => Ok(Incoming::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Incoming {
    /// Registers the socket with the runtime of the calling worker.
    fn register(self) -> io::Result<(ClientStream, String)> {
        match self {
            Incoming::Tcp(stream, peer) => {
                let stream = TcpStream::from_std(stream)?;
                tune(&stream)?;
                Ok((ClientStream::Tcp(stream), peer.to_string()))
            }
            Incoming::Unix(stream) => Ok((ClientStream::Unix(UnixStream::from_std(stream)?), "unix".to_owned())),
        }
    }
}

struct Worker {
    sender: mpsc::UnboundedSender<(Incoming, Load)>,
    load: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

/// One connection in a worker's count.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    fn start(number: usize, core: Option<usize>, shared: &Arc<Shared>) -> Result<Worker, ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Worker)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::clone(shared);
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                if let Some(core) = core {
                    affinity::stay_on(core);
                }
                runtime.block_on(work(receiver, shared));
            })
            .map_err(ServeError::Worker)?;
        Ok(Worker { sender, load: Arc::new(AtomicUsize::new(0)), thread })
    }
}

fn join(thread: thread::JoinHandle<()>) {
    if thread.join().is_err() {
        warn!("a worker thread panicked");
    }
}

/// Accepts for ever.
async fn accept_all(listener: &Listener, workers: &[Worker]) {
    for turn in 0.. {
        match listener.accept().await {
            Ok(incoming) => hand_over(incoming, workers, turn),
            Err(error) => rest_after(error).await,
        }
    }
}

/// Gives a socket to the worker with the fewest connections, beginning the count elsewhere each time.
fn hand_over(incoming: Incoming, workers: &[Worker], turn: usize) {
    let order = (0..workers.len()).filter_map(|step| workers.get((turn + step) % workers.len()));
    let Some(worker) = order.min_by_key(|worker| worker.load.load(Ordering::Relaxed)) else { return };
    worker.load.fetch_add(1, Ordering::Relaxed);
    if worker.sender.send((incoming, Load(Arc::clone(&worker.load)))).is_err() {
        warn!("a worker is gone; the connection is dropped");
    }
}

/// A worker's life: takes sockets until the listener closes, then lets what runs end in time.
async fn work(mut receiver: mpsc::UnboundedReceiver<(Incoming, Load)>, shared: Arc<Shared>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            next = receiver.recv() => match next {
                Some((incoming, load)) => start_connection(&mut running, incoming, load, &shared),
                None => break,
            },
            Some(ended) = running.join_next() => note(ended),
        }
    }
    let rest = async {
        while let Some(ended) = running.join_next().await {
            note(ended);
        }
    };
    if tokio::time::timeout(shared.bounds.load().drain_timeout, rest).await.is_err() {
        warn!(sessions = running.len(), "sessions cut off at the end of the drain");
    }
}

fn start_connection(running: &mut JoinSet<()>, incoming: Incoming, load: Load, shared: &Arc<Shared>) {
    let (client, peer) = match incoming.register() {
        Ok(registered) => registered,
        Err(error) => return warn!(%error, "a new connection could not be set up"),
    };
    let shared = Arc::clone(shared);
    running.spawn(async move {
        let _load = load;
        serve_connection(client, peer, shared).await;
    });
}

/// A panic ends one connection only, and must be seen.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a connection ended in a panic");
    }
}

/// Out of descriptors, the same error would come at once again; a client that gave up is no reason to rest.
async fn rest_after(error: io::Error) {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    warn!(%error, "cannot accept connections");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Keeps keys and plaintexts out of core dumps and out of reach of debuggers of the same user.
pub fn forbid_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if setrlimit(Resource::Core, none).is_err() || set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        warn!("core dumps could not be switched off");
    }
}

/// Raises the limit of open files to the hard limit: each session has two.
fn raise_nofile() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        warn!(%error, "the limit of open files stays as it is");
    }
}
