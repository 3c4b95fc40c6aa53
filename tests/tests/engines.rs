//! Real engines from PyPI, asked as the daemon asks them: they give memory back, come back and answer again.
//! `cargo xtask test --all` brings them and runs this.
#![expect(clippy::unwrap_used, reason = "what can't go on in a test shall say where, and no more")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use plimsoll::ask::way::{Asking, Way, WayError};
use plimsoll::engines;
use plimsoll_policy::concession::{Level, Offer};
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::engine::{EngineAt, EngineKind};

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Where they were installed.
fn installed() -> PathBuf {
    std::env::var_os("PLIMSOLL_ENGINES").expect("`cargo xtask test --all` sets it").into()
}

/// An engine, ended with its variable, and the way to it.
struct Running {
    child: Child,
    port: u16,
    way: Arc<dyn Way>,
    number: u64,
}

impl Running {
    /// Starts it with the port that it is to listen at, and waits until it does.
    fn start(kind: EngineKind, command: impl FnOnce(u16) -> Command) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = command(port).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let at = EngineAt { kind, url: format!("http://127.0.0.1:{port}"), ..EngineAt::default() };
        let way = engines::way(&at, &Ask::default()).unwrap();
        let mut this = Self { child, port, way, number: 0 };
        until("it listens", || {
            assert!(this.child.try_wait().unwrap().is_none(), "it ended");
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        this
    }

    /// What its processes have, those of its children included, in MiB.
    fn resident(&self) -> u64 {
        resident_of(self.child.id()) / MIB
    }

    async fn offer(&self) -> Offer {
        self.way.offer().await.unwrap()
    }

    /// Whether it can be asked for this. Where nothing is left to offer, that is an error which says what to change.
    async fn offers(&self, level: Level) -> bool {
        self.way.offer().await.is_ok_and(|offer| offer.levels.contains_key(&level))
    }

    async fn ask(&mut self, level: Level) -> Result<(), WayError> {
        self.number += 1;
        let asking = Asking {
            number: self.number,
            level,
            gpus: Vec::new(),
            wanted: 0,
            deadline: PATIENCE,
            reason: "a test".into(),
        };
        self.way.ask(&asking).await.map(drop)
    }

    /// Gives its model back and takes it again; nothing that was there before is missing after.
    async fn gives_and_takes(&mut self, least: u64) {
        assert!(self.offers(Level::Unload).await);
        let full = self.resident();
        self.ask(Level::Unload).await.unwrap();
        until("its memory has come back", || self.resident() + least < full);
        let empty = self.resident();
        assert_eq!(self.offer().await.level, Some(Level::Unload));
        self.ask(Level::Unload).await.unwrap();
        self.ask(Level::Nothing).await.unwrap();
        let again = self.resident();
        assert!(again + 20 > full, "{full} MiB before, {empty} without its model, {again} after");
        assert_ne!(self.offer().await.level, Some(Level::Unload));
        println!("{full} MiB loaded, {empty} MiB unloaded, {again} MiB restored");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends its children where it is asked to end, and may have ended itself.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let end = Instant::now() + Duration::from_secs(5);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn resident_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let own = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10;
    // A child is listed with the thread that started it.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = children.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    own + pids.filter_map(|pid| pid.parse().ok()).map(resident_of).sum::<u64>()
}

/// One call as a user would make it; the answer as it came.
fn post(port: u16, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let more = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + &more + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn llama(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(installed().join("llama/llama-server"));
    // Read into memory of its own: what is mapped lies in the page cache, which is everybody's.
    command.args([
        "--host",
        "127.0.0.1",
        "--n-gpu-layers",
        "0",
        "--load-mode",
        "dio",
        "--port",
        &port.to_string(),
    ]);
    command.args(arguments).current_dir(installed().join("models"));
    command
}

fn triton(port: u16, control: &str) -> Command {
    let server = installed().join("packages/pytriton/tritonserver");
    let mut command = Command::new(server.join("bin/tritonserver"));
    command.arg("--model-repository").arg(installed().join("repository"));
    command.arg("--backend-directory").arg(server.join("backends"));
    command.args(["--allow-grpc=false", "--allow-metrics=false", "--http-address=127.0.0.1"]);
    command.arg(format!("--http-port={port}")).arg(format!("--model-control-mode={control}"));
    if control == "explicit" {
        command.arg("--load-model=hold");
    }
    command
}

/// Until Triton's model is there: it listens earlier.
async fn serves(engine: &Running) {
    let end = Instant::now() + PATIENCE;
    while engine.way.offer().await.is_err() && Instant::now() < end {
        sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
#[ignore = "needs the engines: `cargo xtask test --all`"]
async fn a_router_of_llama_cpp_ends_its_model_and_loads_it_again() {
    let mut router = Running::start(EngineKind::LlamacppRouter, |port| llama(port, &["--models-dir", "."]));
    serves(&router).await;
    let answer = post(router.port, "/v1/completions", r#"{"model":"tiny","prompt":"OK","max_tokens":1}"#);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    router.gives_and_takes(150).await;
    let answer = post(router.port, "/v1/completions", r#"{"model":"tiny","prompt":"OK","max_tokens":1}"#);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
#[ignore = "needs the engines: `cargo xtask test --all`"]
async fn llama_cpp_with_one_model_forgets_its_prompts_where_it_may() {
    let erases = installed().join("models");
    for (arguments, may) in [(vec!["--slot-save-path", erases.to_str().unwrap()], true), (vec![], false)] {
        let single = ["--model", "tiny.gguf"].iter().chain(&arguments).copied().collect::<Vec<_>>();
        let mut server = Running::start(EngineKind::Llamacpp, |port| llama(port, &single));
        let complete = || post(server.port, "/completion", r#"{"prompt":"OK","n_predict":1}"#);
        until("it has loaded", || complete().starts_with("HTTP/1.1 200"));
        let offer = server.offer().await;
        assert_eq!(offer.levels.into_keys().collect::<Vec<_>>(), [Level::Aggressive]);
        assert_eq!(server.ask(Level::Aggressive).await.is_ok(), may);
        // It does not tell before it is asked.
        assert_eq!(server.offers(Level::Aggressive).await, may);
        assert!(server.ask(Level::Unload).await.is_err());
        server.ask(Level::Nothing).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs the engines: `cargo xtask test --all`"]
async fn triton_unloads_its_model_and_loads_it_again() {
    let mut triton = Running::start(EngineKind::Triton, |port| triton(port, "explicit"));
    serves(&triton).await;
    triton.gives_and_takes(150).await;
}

#[tokio::test]
#[ignore = "needs the engines: `cargo xtask test --all`"]
async fn a_triton_that_may_not_unload_says_so_and_is_believed() {
    let mut triton = Running::start(EngineKind::Triton, |port| triton(port, "none"));
    serves(&triton).await;
    let refused = triton.ask(Level::Unload).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(!triton.offers(Level::Unload).await);
}

/// Whoever gives no kind is found out.
#[tokio::test]
#[ignore = "needs the engines: `cargo xtask test --all`"]
async fn engines_are_recognised_by_how_they_behave() {
    let router = Running::start(EngineKind::Auto, |port| llama(port, &["--models-dir", "."]));
    serves(&router).await;
    post(router.port, "/models/load", r#"{"model":"tiny"}"#);
    until_offered(&router, Level::Unload).await;
    drop(router);
    let triton = Running::start(EngineKind::Auto, |port| triton(port, "explicit"));
    until_offered(&triton, Level::Unload).await;
}

async fn until_offered(engine: &Running, level: Level) {
    let end = Instant::now() + PATIENCE;
    while !engine.offers(level).await {
        assert!(Instant::now() < end, "{level} is never offered");
        sleep(Duration::from_millis(100));
    }
}
