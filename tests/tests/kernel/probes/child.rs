//! Processes that do something to memory: this test binary again, told by its environment what to do.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::sense::probes::{Options, Probes};

use super::group::Group;

const TASK: &str = "PLIMSOLL_TEST_TASK";
const CGROUP: &str = "PLIMSOLL_TEST_CGROUP";
const MIB: usize = 1 << 20;

/// A child process, killed when dropped.
pub(super) struct Child {
    process: std::process::Child,
}

impl Child {
    /// Runs a task in a cgroup: `eat MIB`, `churn`, `touch MIB`, or `write FILE TEXT`. The last two wait for [`Child::go`].
    pub(super) fn start(group: &Group, task: &str) -> Self {
        let process = command(task)
            .env(CGROUP, group.path())
            // Every allocation is mapped anew, and so faults anew.
            .env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=65536")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary runs");
        Self { process }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets a task that waits go on.
    pub(super) fn go(&mut self) {
        self.process.stdin.take().expect("goes once").write_all(b"go").expect("the child waits");
    }

    pub(super) fn is_gone(&mut self) -> bool {
        self.process.try_wait().expect("our own child").is_some()
    }

    pub(super) fn kill(&mut self) {
        // It fails only where it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// State letter, minor faults.
    pub(super) fn stat(&self) -> (char, u64) {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let state = fields.first().and_then(|state| state.chars().next()).unwrap_or('?');
        (state, fields.get(7).and_then(|minor| minor.parse().ok()).unwrap_or(0))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What an unprivileged process gets to hear when it loads the programs.
pub(super) fn load_as_nobody() -> String {
    let output = command("load").env(CGROUP, "").uid(65534).output().expect("the test binary runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn command(task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a test binary knows itself"));
    command.args(["--exact", "probes::child::body", "--nocapture"]).env(TASK, task);
    command
}

/// What a child does. As a test of its own it does nothing.
#[test]
fn body() {
    let (Ok(task), Ok(cgroup)) = (std::env::var(TASK), std::env::var(CGROUP)) else { return };
    if task == "load" {
        return match Probes::load(&Options::default()) {
            Ok(_) => println!("loaded"),
            Err(error) => println!("{error}"),
        };
    }
    fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("may move itself");
    let mut words = task.split(' ');
    match [words.next(), words.next(), words.next()] {
        [Some("eat"), Some(mib), None] => eat(mib.parse().expect("a number")),
        [Some("churn"), None, None] => loop {
            fill(1);
        },
        [Some("touch"), Some(mib), None] => {
            let mut held = fill(mib.parse().expect("a number"));
            wait();
            dirty(&mut held);
            sleep();
        }
        [Some("write"), Some(file), Some(text)] => {
            wait();
            // The kernel answers EAGAIN where it could not reclaim everything; that it tried is what counts here.
            let _ = fs::write(file, text);
            sleep();
        }
        other => panic!("no such task: {other:?}"),
    }
}

/// Grows by a MiB at a time, then keeps it.
fn eat(mib: usize) {
    let held: Vec<Vec<u8>> = (0..mib).map(|_| fill(1)).collect();
    std::hint::black_box(&held);
    sleep();
}

fn fill(mib: usize) -> Vec<u8> {
    let mut bytes = vec![0; mib * MIB];
    dirty(&mut bytes);
    std::hint::black_box(bytes)
}

/// Touches every page, with bytes that no compressor can shrink to nothing.
fn dirty(bytes: &mut [u8]) {
    for (n, page) in bytes.chunks_mut(4096).enumerate() {
        page[n % 64] = n as u8 | 1;
    }
}

fn wait() {
    let _ = std::io::stdin().read(&mut [0; 8]);
}

fn sleep() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
