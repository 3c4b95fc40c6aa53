//! Admission: two models of which one fits, loaders that die, promises that nobody keeps.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use plimsoll_tests::guest;
use serde_json::{Value, json};

use crate::world::{Daemon, PATIENCE, available_mib, wait};

/// As patient as the test.
const WAITS: [&str; 2] = ["--wait", "2m"];

const MODELS: &str = "/sys/fs/cgroup/plimsoll.slice/models";

/// What one model needs so that one fits and two do not, with what is kept back.
fn half() -> u64 {
    available_mib() / 2
}

/// `exec --needs` of a model that grows to `mib` and sits on it.
fn exec(daemon: &Daemon, name: &str, needs: u64, mib: u64, more: &[&str]) -> Model {
    let size = mib.to_string();
    let child = Command::new(guest::plimsoll())
        .args(["exec", "--name", name, "--needs", &format!("{needs}MiB")])
        .args(more)
        .arg("--config")
        .arg(daemon.dir.path().join("plimsoll.yaml"))
        .arg("--")
        .arg(guest::workload())
        .args(["batch-job", "--idle", "--from-mib", "20", "--to-mib", &size, "--rate-mib", "200"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Model(Some(child))
}

/// A process that ends with its variable, and its cgroup with it.
struct Model(Option<Child>);

impl Model {
    fn ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    fn kill(mut self) {
        self.0.as_mut().unwrap().kill().unwrap();
    }

    fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn current_mib(name: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new(MODELS).join(name).join("memory.current"));
    text.unwrap_or_default().trim().parse().unwrap_or(0) >> 20
}

fn refused(model: Model) -> String {
    let Output { status, stderr, .. } = model.output();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(5), "{said}");
    said
}

/// One call at the control socket.
struct Client(UnixStream);

impl Client {
    fn of(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(daemon.dir.path().join("run/control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let call = json!({ "method": format!("dev.plimsoll.Control.{method}"), "parameters": parameters });
        self.0.write_all((call.to_string() + "\0").as_bytes()).unwrap();
        let (mut text, mut byte) = (Vec::new(), [0]);
        while self.0.read(&mut byte).unwrap() == 1 && byte[0] != 0 {
            text.push(byte[0]);
        }
        serde_json::from_slice(&text).unwrap()
    }
}

fn reserved_mib(daemon: &Daemon) -> u64 {
    Client::of(daemon).call("Headroom", &json!({}))["parameters"]["reserved"].as_u64().unwrap() >> 20
}

#[test]
fn of_two_models_the_one_that_fits_is_started() {
    let daemon = Daemon::start("");
    let size = half();
    let mut first = exec(&daemon, "t-one", size, size, &[]);
    let mut second = exec(&daemon, "t-two", size, size, &[]);
    wait("one is refused", || first.ended() || second.ended());
    let (name, runs, other) = if first.ended() { ("t-two", second, first) } else { ("t-one", first, second) };
    let said = refused(other);
    assert!(said.contains("was not started") && said.contains("asked for"), "{said}");
    assert!(said.contains("available, of which") && said.contains("kept back at tier normal"), "{said}");
    wait("the other one is loaded", || current_mib(name) >= size);
    // What it has is no longer promised to it, and still not there for others.
    wait("its reservation is settled", || reserved_mib(&daemon) < 30);
    refused(exec(&daemon, "t-three", size, size, &[]));
    runs.kill();
    let _third = exec(&daemon, "t-three", size, size, &WAITS);
    wait("there is room when it is gone", || current_mib("t-three") >= size);
    assert_eq!(daemon.outcomes(), [], "nobody was taken anything from");
}

#[test]
fn a_loader_that_dies_gives_its_bytes_back() {
    let daemon = Daemon::start("");
    let size = half();
    let loader = exec(&daemon, "t-loader", size, 20, &[]);
    wait("it is being loaded", || current_mib("t-loader") >= 15);
    assert!(reserved_mib(&daemon) > size - 60, "most of it is promised");
    refused(exec(&daemon, "t-next", size, size, &[]));
    loader.kill();
    let next = exec(&daemon, "t-next", size, 20, &WAITS);
    wait("the next one has room", || current_mib("t-next") >= 15);
    next.kill();
    wait("nothing is held", || reserved_mib(&daemon) == 0);
    // The same for a client that loads in its own process.
    let mut client = Client::of(&daemon);
    let granted = client.call("Reserve", &json!({ "sizes": [size << 20] }));
    assert_eq!(granted["parameters"]["size"], json!(size << 20), "{granted}");
    assert_eq!(reserved_mib(&daemon), size);
    drop(client);
    wait("its connection is closed", || reserved_mib(&daemon) == 0);
}

#[test]
fn a_promise_without_a_sign_of_life_expires() {
    let daemon = Daemon::start("");
    let size = half();
    let (ttl, asked) = (3, Instant::now());
    let wants = json!({ "sizes": [size << 20], "detached": true, "ttlSeconds": ttl });
    let granted = Client::of(&daemon).call("Reserve", &wants);
    assert_eq!(granted["parameters"]["ttlSeconds"], json!(ttl), "{granted}");
    let reserved = reserved_mib(&daemon);
    // On a host that is slow enough its time is up before we look.
    let expired = asked.elapsed() >= Duration::from_secs(ttl);
    assert!(reserved == size || expired, "it outlives its connection: {reserved} MiB");
    let _next = exec(&daemon, "t-patient", size, 20, &WAITS);
    wait("whoever waits is granted it then", || current_mib("t-patient") >= 15);
}

#[test]
fn without_a_daemon_nothing_that_needs_room_is_started() {
    let daemon = Daemon::start("");
    let dir = daemon.crash();
    let output = Command::new(guest::plimsoll())
        .args(["exec", "--name", "t-alone", "--needs", "1MiB", "--config"])
        .arg(dir.path().join("plimsoll.yaml"))
        .args(["--", "/bin/true"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(!Path::new(MODELS).join("t-alone").exists(), "its cgroup is removed");
}
