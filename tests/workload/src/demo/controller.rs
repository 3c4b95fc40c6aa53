//! Plimsoll as the demo runs it: a daemon in its own cgroup, asked for its status once a second, told to go at the end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::parse;
use crate::time::now_ns;

/// Attaching every hook takes a second or two in the emulator.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long we wait for the controller to leave everybody alone, and for how long it must have done so. A machine that
/// is never calm is a story, too: then it begins from there.
const CALM_WITHIN: Duration = Duration::from_secs(30);
const CALM_FOR: Duration = Duration::from_secs(3);
/// Everything must be released well before.
const GONE_WITHIN: Duration = Duration::from_secs(20);
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The running daemon.
pub(super) struct Controller {
    child: Child,
    group: PathBuf,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Controller {
    /// Starts `PROGRAM run --config CONFIG` and waits until it says that it is ready.
    pub(super) fn start(
        program: &Path,
        config: &Path,
        address: SocketAddr,
        group: &Path,
        out: &Path,
    ) -> anyhow::Result<Self> {
        let log = File::create(out.join("plimsoll.log")).context("creating plimsoll.log")?;
        let child = Command::new(std::env::current_exe().context("finding this program")?)
            .args(["launch", "--oom-score-adj", "-900", "--cgroup"])
            .arg(group)
            .arg("--")
            .arg(program)
            .args(["run", "--config"])
            .arg(config)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the controller")?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut controller = Self { child, group: group.to_owned(), address, stop };
        controller.wait_ready()?;
        controller.poll_status(File::create(out.join("status.jsonl"))?);
        Ok(controller)
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + READY_WITHIN;
        while !get(self.address, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            let status = self.child.try_wait()?;
            anyhow::ensure!(status.is_none(), "the controller ended before it was ready: {status:?}");
            anyhow::ensure!(Instant::now() < end, "the controller was not ready within {READY_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until it has seen both loads and left them alone for a while; false where it does not.
    pub(super) fn wait_calm(&self) -> bool {
        let end = Instant::now() + CALM_WITHIN;
        let mut since = Instant::now();
        while Instant::now() < end {
            if !get(self.address, "/status").is_ok_and(|answer| is_calm(&answer)) {
                since = Instant::now();
            } else if since.elapsed() >= CALM_FOR {
                return true;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        false
    }

    /// Asks for `/status` as a person's dashboard would, until the end.
    fn poll_status(&self, mut out: File) {
        let (address, stop) = (self.address, self.stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                if let Some(body) = get(address, "/status").ok().as_deref().and_then(body) {
                    // A status that can't be written is only missing from the material, not from the judgement.
                    let _ = writeln!(out, r#"{{"at_ns":{},"status":{body}}}"#, now_ns());
                }
                std::thread::sleep(STATUS_EVERY);
            }
        });
    }

    /// `memory.current` and `memory.peak` of its cgroup.
    pub(super) fn memory(&self) -> Option<(u64, u64)> {
        let read =
            |name| std::fs::read_to_string(self.group.join(name)).ok().as_deref().and_then(parse::number);
        read("memory.current").zip(read("memory.peak"))
    }

    /// Processor time of its cgroup in microseconds.
    pub(super) fn cpu_us(&self) -> Option<u64> {
        parse::keyed(&std::fs::read_to_string(self.group.join("cpu.stat")).ok()?, "usage_usec")
    }

    /// Tells it to go, as systemd would, and gives its exit code; none where it had to be killed.
    pub(super) fn finish(mut self) -> anyhow::Result<Option<i32>> {
        self.stop.store(true, Ordering::Release);
        let pid = Pid::from_child(&self.child);
        // It may have gone already; its exit code tells.
        let _ = kill_process(pid, Signal::TERM);
        let end = Instant::now() + GONE_WITHIN;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().context("killing the controller")?;
        Ok(None)
    }
}

/// One HTTP request, the whole answer. The loopback interface is up, and the daemon closes the connection.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What follows the head of an HTTP answer.
fn body(answer: &str) -> Option<&str> {
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim())
}

/// Whether a status says that both loads are there and nothing is done to either.
fn is_calm(answer: &str) -> bool {
    let Some(Ok(status)) = body(answer).map(serde_json::from_str::<serde_json::Value>) else { return false };
    let loads = status["workloads"].as_array().map_or(&[][..], Vec::as_slice);
    loads.len() == 2 && loads.iter().all(|load| load["rung"] == "free")
}

#[cfg(test)]
mod tests {
    use super::is_calm;

    #[test]
    fn calm_is_when_nobody_is_touched() {
        let answer = |rung: &str| {
            let rungs = format!(r#"[{{"rung":"free"}},{{"rung":"{rung}"}}]"#);
            format!("HTTP/1.1 200 OK\r\n\r\n{{\"workloads\":{rungs}}}")
        };
        assert!(is_calm(&answer("free")));
        assert!(!is_calm(&answer("trim")));
        assert!(!is_calm("HTTP/1.1 200 OK\r\n\r\n{}"));
        assert!(!is_calm("HTTP/1.1 503 Service Unavailable\r\n\r\n"));
    }
}
