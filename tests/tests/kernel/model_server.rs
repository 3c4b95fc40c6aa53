//! A real model server, onnxruntime and our Python client, that yields by itself under pressure and comes back.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use plimsoll_tests::guest;
use serde_json::{Value, json};

use crate::world::{Daemon, Group, PATIENCE, available_mib, wait};

/// What the daemon does in its own time: it waits for a calm that lasts before it gives anything back.
const LONG: Duration = Duration::from_secs(300);
const PORT: u16 = 8090;
/// What is asked before and after: the same model gives the same answer.
const PROBE: &str = "a kitten rests on a rug";
/// The model server matters least; what bursts is protected, and nobody else is there to yield. A server that is slowed down
/// or frozen serves nobody and keeps its model: it is asked, or ended.
const RULES: &str = "
workloads:
  - { name: chat, cgroup: t-chat, priority: 1000 }
  - { name: embeddings, cgroup: t-embeddings, priority: 0, rungs: [trim, offload, kill] }
";

fn wait_long(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        // To read the whole journal takes memory of its own.
        sleep(Duration::from_secs(1));
    }
}

/// One request, as a client saw it.
#[derive(Clone, Debug)]
struct Asked {
    begun: Duration,
    took: Duration,
    /// 0 where nobody answered.
    status: u16,
    embedding: Vec<f64>,
}

fn ask(text: &str, start: Instant) -> Asked {
    let begun = start.elapsed();
    let (status, body) = post(&json!({ "input": text }).to_string()).unwrap_or_default();
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    let numbers = answer["data"][0]["embedding"].as_array().cloned().unwrap_or_default();
    let embedding = numbers.iter().filter_map(Value::as_f64).collect();
    Asked { begun, took: start.elapsed() - begun, status, embedding }
}

fn post(body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    write!(stream, "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Somebody who asks for one embedding after the other, each of another text, until it is dropped.
struct Client {
    seen: Arc<Mutex<Vec<Asked>>>,
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    fn start(start: Instant) -> Self {
        let (seen, enough) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (writes, ends) = (Arc::clone(&seen), Arc::clone(&enough));
        let thread = spawn(move || {
            for number in 0_u32.. {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let asked = ask(&format!("sentence number {number}"), start);
                writes.lock().unwrap().push(asked);
                sleep(Duration::from_millis(200));
            }
        });
        Self { seen, enough, thread: Some(thread) }
    }

    fn seen(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }

    fn saw(&self, status: u16) -> usize {
        self.seen().iter().filter(|asked| asked.status == status).count()
    }

    /// The latency log. It is kept for people too.
    fn end(mut self) -> Vec<Asked> {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let log = self.seen();
        let lines = log.iter().map(|Asked { begun, took, status, .. }| {
            let (at, took) = (begun.as_secs_f64(), took.as_secs_f64());
            json!({ "at": at, "seconds": took, "status": status }).to_string() + "\n"
        });
        let _ = fs::create_dir_all("/out");
        fs::write("/out/model-server.jsonl", lines.collect::<String>()).unwrap();
        log
    }
}

/// The example of the Python client in a cgroup.
struct Server(Child);

impl Server {
    fn start(python: &Path, group: &Group, daemon: &Daemon) -> Self {
        let port = PORT.to_string();
        let arguments = [
            "/data/examples/embedding_server.py",
            "--model=/data/python/model/model.onnx",
            "--tokenizer=/data/python/model/tokenizer.json",
            "--port",
            &port,
            // Room for the model is reserved before it is loaded.
            "--needs-mib=256",
            "--wait=30",
            "--patience=1",
            "--log=/out/server.jsonl",
        ];
        let mut launch = Command::new(guest::workload());
        launch.arg("launch").arg("--cgroup").arg(&group.path).arg("--").arg(python).args(arguments);
        launch.env("PLIMSOLL_CONTROL", daemon.dir.path().join("run/control.sock")).stdout(Stdio::null());
        let _ = fs::create_dir_all("/out");
        Self(launch.spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Leaves the journal where the results of the guest are taken from, whatever becomes of the test.
struct Kept<'a>(&'a Daemon);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        // Without it there is less to look at.
        let _ = fs::copy(self.0.journal_path(), "/out/model-server-journal.jsonl");
    }
}

/// What workloads that were asked gave, from the journal: level, result, bytes by the meters.
fn conceded(daemon: &Daemon) -> Vec<(String, String, i64)> {
    let passes = daemon.journal();
    let all =
        passes.iter().flat_map(|pass| pass["sample"]["conceded"].as_array().cloned().unwrap_or_default());
    all.map(|one| {
        let word = |key: &str| match &one[key] {
            Value::Object(map) => map.keys().next().cloned().unwrap_or_default(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        (word("level"), word("result"), one["freed"]["host"].as_i64().unwrap_or(0))
    })
    .collect()
}

#[test]
fn a_model_server_yields_by_itself_and_comes_back() {
    let Some(python) = guest::python() else {
        return guest::skip(
            "model_server::a_model_server_yields_by_itself_and_comes_back",
            "there is no Python in this guest",
        );
    };
    let start = Instant::now();
    let (chat, group) = (Group::new("t-chat"), Group::new("t-embeddings"));
    let daemon = Daemon::start(RULES);
    let _kept = Kept(&daemon);
    let mut server = Server::start(&python, &group, &daemon);
    wait("it answers", || ask(PROBE, start).status == 200);
    let before = ask(PROBE, start).embedding;
    assert_eq!(before.len(), 384);
    let loaded = group.number("memory.current");

    let client = Client::start(start);
    wait("it serves", || client.saw(200) >= 5);
    // Somebody more important takes nearly all that is left.
    let size = (available_mib() - 10).to_string();
    let burst_begun = start.elapsed();
    let mut burst =
        chat.workload(&["batch-job", "--idle", "--from-mib", "50", "--to-mib", &size, "--rate-mib", "15"]);
    // By the meters. By its own estimate it is part of the model: the trim before it has had the rest.
    let gone = || conceded(&daemon).iter().any(|(level, _, freed)| level == "unload" && *freed > 60 << 20);
    wait_long("it unloads its model", gone);
    let small = group.number("memory.current");
    wait("whoever asks is told to come back", || client.saw(503) >= 2);
    assert!(burst.try_wait().unwrap().is_none() && server.lives());
    let back = client.saw(200);
    burst.kill().unwrap();
    burst.wait().unwrap();
    let burst_ended = start.elapsed();
    wait_long("it is restored", || {
        conceded(&daemon).iter().any(|(level, result, _)| level == "nothing" && result == "done")
    });
    wait("it serves again", || client.saw(200) >= back + 5);
    let after = ask(PROBE, start).embedding;
    let log = client.end();

    let same = before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(same && after.len() == before.len(), "another model answers");
    assert!(server.lives(), "nobody was killed");
    assert_eq!(group.event("memory.events", "oom_kill") + chat.event("memory.events", "oom_kill"), 0);
    assert!(small + (60 << 20) < loaded, "{loaded} bytes before, {small} when the model was gone");
    nothing_was_done_to_it_before_it_was_asked(&daemon);
    the_log_tells_of_it(&log, burst_begun, burst_ended);
    eprintln!("{:?}", conceded(&daemon));
}

/// Gentle things are tried first, and nothing that is not gentle was needed.
fn nothing_was_done_to_it_before_it_was_asked(daemon: &Daemon) {
    let levels: Vec<_> = conceded(daemon).into_iter().map(|(level, ..)| level).collect();
    let first = |level: &str| levels.iter().position(|found| found == level);
    assert!(first("gc").or(first("aggressive")) < first("unload"), "{levels:?}");
    let forced = ["freeze", "kill", "throttle"];
    assert!(!daemon.rungs().iter().any(|rung| forced.contains(&rung.as_str())), "{:?}", daemon.rungs());
}

/// Answers before the burst, none while the model was away and a reason for it, answers after it.
fn the_log_tells_of_it(log: &[Asked], burst_begun: Duration, burst_ended: Duration) {
    let (before, rest): (Vec<_>, Vec<_>) = log.iter().partition(|asked| asked.begun < burst_begun);
    assert!(before.iter().all(|asked| asked.status == 200), "{before:?}");
    assert!(
        rest.iter().all(|asked| [200, 503].contains(&asked.status)),
        "somebody got no answer at all: {rest:?}"
    );
    let last_refused = rest.iter().rposition(|asked| asked.status == 503).unwrap();
    let again = &rest[last_refused + 1..];
    assert!(again.iter().all(|asked| asked.status == 200) && !again.is_empty());
    let told = |asked: &&&Asked| asked.status == 503 && asked.begun < burst_ended;
    assert!(rest.iter().filter(told).count() >= 2);
}
