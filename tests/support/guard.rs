//! A program that cannot outlive the test: it is killed when the pipe to this process closes, however that happens.
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const GUARD: &str = r#"
dir=$1; shift
exec 3<&0
"$@" </dev/null 3<&- >>"$dir/log" 2>&1 &
program=$!
echo $program >"$dir/pid.half" && mv "$dir/pid.half" "$dir/pid"
( read -r _; kill -KILL $program ) <&3 3<&- 2>/dev/null &
wait $program
echo $? >"$dir/ended.half" && mv "$dir/ended.half" "$dir/ended"
wait
"#;

/// A running program; its output goes to the file `log` in its directory.
pub struct Guarded {
    shell: Child,
    dir: PathBuf,
}

impl Guarded {
    /// Starts `program` with its files `log`, `pid` and `ended` in `dir`.
    pub fn spawn(dir: &Path, program: &Path, args: &[&str]) -> Guarded {
        for file in ["pid", "ended"] {
            let _ = fs::remove_file(dir.join(file));
        }
        let shell = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(dir)
            .arg(program)
            .args(args)
            .env("ROWSEAL_LOG", "trace")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let guarded = Guarded { shell, dir: dir.to_owned() };
        poll("a process id", || guarded.pid().map(|_| ()));
        guarded
    }

    /// What it has written so far, both streams together.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()
    }

    /// Its exit code once it has ended, 128 and the signal's number if by a signal.
    pub fn ended(&self) -> Option<i32> {
        fs::read_to_string(self.dir.join("ended")).ok()?.trim().parse().ok()
    }

    /// Sends a signal by name: `TERM`, `KILL`, `HUP`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().unwrap().to_string();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
        assert!(sent.success() || self.ended().is_some(), "no process {pid}");
    }

    /// Waits for its end; gives the exit code.
    pub fn wait(&self) -> i32 {
        poll("the program's end", || self.ended())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Asks every 10 ms until there is an answer; panics after a minute.
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
