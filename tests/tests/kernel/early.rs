//! Before the first model: what the supervisor is told and when, and a loader that is there before the daemon.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plimsoll_tests::guest;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Daemon, PATIENCE, get, wait};

/// Our end of `NOTIFY_SOCKET`.
struct Ear(UnixDatagram);

impl Ear {
    fn at(path: &Path) -> Self {
        let ear = UnixDatagram::bind(path).unwrap();
        ear.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(ear)
    }

    fn hears(&self) -> String {
        let mut buffer = [0; 256];
        let length = self.0.recv(&mut buffer).expect("the daemon says something");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn hears_of(&self, word: &str) {
        while !self.hears().contains(word) {}
    }
}

/// The daemon, ended with its variable.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ready_means_that_it_protects_and_answers() {
    let dir = tempfile::tempdir_in("/run").unwrap();
    let (run, socket) = (dir.path().join("run"), dir.path().join("notify"));
    let config = dir.path().join("plimsoll.yaml");
    let files = format!("run_dir: {run:?}, journal: none, state: none");
    fs::write(&config, format!("daemon: {{ listen: \"127.0.0.1:9478\", {files} }}\n")).unwrap();
    let ear = Ear::at(&socket);
    let mut command = Command::new(guest::plimsoll());
    command.args(["run", "--config"]).arg(&config).stderr(Stdio::null());
    let mut daemon =
        Running(command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "4000000").spawn().unwrap());

    assert!(ear.hears().starts_with("READY=1"), "nothing is said before it is ready");
    assert!(run.join("control.sock").exists(), "whoever starts now can be admitted");
    wait("the page agrees", || get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    ear.hears_of("STATUS=tier ");
    ear.hears_of("WATCHDOG=1");
    ear.hears_of("WATCHDOG=1");

    kill_process(Pid::from_child(&daemon.0), Signal::TERM).unwrap();
    ear.hears_of("STOPPING=1");
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
}

/// At boot a model server may be quicker than the daemon: it waits for it, not only for room.
#[test]
fn a_loader_that_comes_first_waits_for_the_daemon() {
    let dir = tempfile::tempdir_in("/run").unwrap();
    let config = dir.path().join("early.yaml");
    fs::write(&config, format!("daemon: {{ run_dir: {:?} }}\n", dir.path().join("run"))).unwrap();
    let mut loader = Command::new(guest::plimsoll())
        .args(["exec", "--name", "t-early", "--needs", "1MiB", "--wait", "2m", "--config"])
        .arg(&config)
        .arg("--")
        .arg(guest::workload())
        .arg("--help")
        .stdout(Stdio::null())
        .spawn()
        .map(Running)
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(loader.0.try_wait().unwrap().is_none(), "it waits");
    let _daemon = Daemon::start_in(dir, "");
    wait("it is let in", || loader.0.try_wait().unwrap().is_some());
    assert_eq!(loader.0.wait().unwrap().code(), Some(0));
}
