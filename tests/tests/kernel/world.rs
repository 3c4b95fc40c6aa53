//! What the tests of the daemon share: cgroups with real processes in them, and a running daemon.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_tests::guest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The emulator is slow and the host may be busy: a limit for what must come at all, never a measurement. What takes longest
/// comes within 30 s where the host is quiet, and a host may be a few times slower than that.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often [`wait`] and [`within`] look.
const LOOK: Duration = Duration::from_millis(5);

/// What the time from one look to the next counts for at most: on a quiet host it takes little more than [`LOOK`].
const STEP: Duration = Duration::from_millis(10);

/// Waits until `done`, or fails saying what was waited for.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Waits until `done`, or fails after `limit` of the time that the host gave to this guest: the guest's clock goes on while the
/// host lets it stand still or makes it slow. So it is looked all the while, and each look counts for no more than it takes on a
/// quiet host. Whoever waits longer than `limit` by himself is looked at as often as that, and fails on any host.
pub(crate) fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let (mut last, mut given) = (Instant::now(), Duration::ZERO);
    while !done() {
        assert!(given < limit, "not within {limit:?}: {what}");
        std::thread::sleep(LOOK);
        let now = Instant::now();
        given += (now - last).min(STEP);
        last = now;
    }
}

/// A cgroup below the root, removed with everything in it at the end.
pub(crate) struct Group {
    pub(crate) path: PathBuf,
}

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new("/sys/fs/cgroup").join(name);
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub(crate) fn inode(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }

    pub(crate) fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default().trim().to_owned()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.path.join(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    pub(crate) fn number(&self, file: &str) -> u64 {
        self.read(file).parse().unwrap_or(0)
    }

    pub(crate) fn event(&self, file: &str, key: &str) -> u64 {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.event("cgroup.events", "frozen") == 1
    }

    pub(crate) fn is_populated(&self) -> bool {
        self.event("cgroup.events", "populated") == 1
    }

    /// Starts `plimsoll-workload ARGS` in it.
    pub(crate) fn workload(&self, arguments: &[&str]) -> Workload {
        let program = guest::workload();
        let child = Command::new(&program)
            .arg("launch")
            .arg("--cgroup")
            .arg(&self.path)
            .arg("--")
            .arg(&program)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Workload(child)
    }

    /// Starts a workload that grows to a size and sits on it, and waits until it has.
    pub(crate) fn idle_on(&self, mib: u64) -> Workload {
        let size = mib.to_string();
        let child = self.workload(&["batch-job", "--idle", "--from-mib", &size, "--to-mib", &size]);
        wait("the workload has its memory", || self.number("memory.current") >= mib << 20);
        child
    }

    /// Whether one of its processes is stopped by a signal.
    pub(crate) fn has_stopped(&self) -> bool {
        self.read("cgroup.procs").lines().any(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let end = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.path).is_err() && self.path.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A process that ends with its variable.
pub(crate) struct Workload(Child);

impl From<Child> for Workload {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for Workload {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Workload {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running daemon with its own files.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) dir: tempfile::TempDir,
}

const ADDRESS: &str = "127.0.0.1:9478";

impl Daemon {
    /// Starts the daemon with these keys of the configuration, and waits until it protects.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir_in("/run").unwrap(), config)
    }

    /// As [`Self::start`], with the files of a predecessor.
    pub(crate) fn start_in(dir: tempfile::TempDir, config: &str) -> Self {
        Self::launch(&mut Command::new(guest::plimsoll()), dir, config)
    }

    /// As [`Self::start`], where the loader finds the libraries of a directory first.
    pub(crate) fn start_with_libraries(libraries: &Path, config: &str) -> Self {
        let mut command = Command::new(guest::plimsoll());
        Self::launch(command.env("LD_LIBRARY_PATH", libraries), tempfile::tempdir_in("/run").unwrap(), config)
    }

    /// As [`Self::start_in`], by this command.
    pub(crate) fn launch(command: &mut Command, dir: tempfile::TempDir, config: &str) -> Self {
        let path = dir.path().display();
        let files = format!(
            "run_dir: \"{path}/run\", journal: \"{path}/journal.jsonl\", state: \"{path}/state.json\""
        );
        let daemon = format!("daemon: {{ listen: {ADDRESS:?}, {files} }}\n");
        let file = dir.path().join("plimsoll.yaml");
        fs::write(&file, daemon + config).unwrap();
        let log = fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
        let child = command.arg("run").arg("--config").arg(file).stderr(log).spawn().unwrap();
        let mut this = Self { child, dir };
        wait("the daemon is ready", || {
            let ended = this.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {ended:?}\n{}", this.log());
            get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        this
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The passes in the journal so far.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path().join("journal.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line: &Value| line["sample"].is_object()).collect()
    }

    /// The acts of all outcomes in the journal, such as `freeze`, with their results.
    pub(crate) fn outcomes(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for outcome in self
            .journal()
            .iter()
            .flat_map(|line| line["sample"]["outcomes"].as_array().cloned().unwrap_or_default())
        {
            all.push((name(&outcome["act"]), name(&outcome["result"])));
        }
        all
    }

    /// Whether an act ended like this.
    pub(crate) fn saw(&self, act: &str, result: &str) -> bool {
        self.outcomes().iter().any(|(a, r)| a == act && r == result)
    }

    /// The tiers of the journal, without repetitions.
    pub(crate) fn tiers(&self) -> Vec<String> {
        let mut tiers: Vec<String> =
            self.journal().iter().map(|line| name(&line["assessment"]["tier"])).collect();
        tiers.dedup();
        tiers
    }

    /// Every rung that any workload was ever on.
    pub(crate) fn rungs(&self) -> BTreeSet<String> {
        let plans =
            self.journal().into_iter().filter_map(|line| line["plan"]["workloads"].as_object().cloned());
        plans
            .flat_map(|workloads| workloads.values().map(|wanted| name(&wanted["rung"])).collect::<Vec<_>>())
            .collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGTERM, and its exit code.
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        (self.stop(), self.log())
    }

    /// The same; its files stay as long as the variable.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut code = None;
        wait("the daemon ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|code| code.code())
    }

    /// Where the journal is.
    pub(crate) fn journal_path(&self) -> String {
        self.dir.path().join("journal.jsonl").display().to_string()
    }

    /// SIGTERM; the files stay.
    pub(crate) fn leave(mut self) -> tempfile::TempDir {
        self.stop();
        self.keep()
    }

    fn keep(mut self) -> tempfile::TempDir {
        let Self { dir, .. } = &mut self;
        std::mem::replace(dir, tempfile::tempdir_in("/run").unwrap())
    }

    /// SIGKILL; the files stay.
    pub(crate) fn crash(mut self) -> tempfile::TempDir {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
        self.keep()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}", self.log());
            eprintln!("--- tiers {:?}\n--- outcomes {:?}", self.tiers(), self.outcomes());
        }
        // Ended already, or a test failed: the guardian releases what is set.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The key of an externally tagged value, or the text itself.
fn name(value: &Value) -> String {
    match value {
        Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

/// One HTTP request to the daemon.
pub(crate) fn get(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(ADDRESS).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Whether this guest has swap.
pub(crate) fn has_swap() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// `MemAvailable` in MiB.
pub(crate) fn available_mib() -> u64 {
    meminfo_mib("MemAvailable:")
}

/// `MemTotal` in MiB.
pub(crate) fn total_mib() -> u64 {
    meminfo_mib("MemTotal:")
}

fn meminfo_mib(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}
