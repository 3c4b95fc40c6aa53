//! The ways against real sockets and processes: a client of the pressure protocol in Python, signal handlers, a web server, a hook.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use plimsoll_policy::config::Daemon;
use plimsoll_policy::config::signals::{Recipients, Signal, Signals};
use plimsoll_policy::config::ways::{Hook, Webhook};
use tokio::sync::watch as latest;

use super::super::hook::Hooked;
use super::super::signal::Signalled;
use super::super::way::{Answered, Asking, Way, WayError};
use super::super::webhook::Posted;
use super::super::*;
use crate::sense::discover::cgroup_of;

fn asking(level: Level) -> Asking {
    Asking {
        number: 7,
        level,
        gpus: Vec::new(),
        wanted: 1 << 20,
        deadline: Duration::from_secs(5),
        reason: "host memory is short".into(),
    }
}

/// A Python program, ended with its variable; its output line by line.
struct Python(Child, BufReader<ChildStdout>);

impl Python {
    fn start(program: &str, variables: &[(&str, &Path)]) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-c", program])
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory in which the cgroup of this process looks as if it were a workload with these processes.
fn own(dir: &Path, pids: &[u32]) -> Arc<Cgroup> {
    let path = cgroup_of(std::process::id().cast_signed()).expect("Linux with cgroup v2, if only beside v1");
    let group = dir.join(&path);
    fs::create_dir_all(&group).unwrap();
    fs::write(group.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    let pids: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
    fs::write(group.join("cgroup.procs"), pids).unwrap();
    Arc::new(Cgroup::open(dir, &path).unwrap())
}

/// Does what PRESSURE.md asks of a client: connect, write, poll for input, read and forget it.
const LISTENER: &str = r#"
import base64, os, select, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(os.environ["MEMORY_PRESSURE_WATCH"])
s.sendall(base64.b64decode("c29tZSAyMDAwMDAgMjAwMDAwMAA="))
p = select.poll()
p.register(s, select.POLLIN)
print("listening")
while p.poll()[0][1] & select.POLLIN and s.recv(64):
    print("poked")
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_of_the_pressure_protocol_is_poked() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cgroup");
    fs::create_dir(&root).unwrap();
    let cgroup = own(&root, &[]);
    let daemon = Daemon {
        run_dir: dir.path().to_str().unwrap().into(),
        cgroup_root: root.to_str().unwrap().into(),
        ..Daemon::default()
    };
    let ways = Ways::default();
    let listening = watch::listen(&daemon, ways.clone()).unwrap();
    let mut clients: Vec<Python> =
        (0..2).map(|_| Python::start(LISTENER, &[(watch::VARIABLE, &watch::path(&daemon))])).collect();
    for client in &mut clients {
        assert_eq!(client.line(), "listening");
    }
    while ways.all().len() < 2 {
        ways.changed().await;
    }
    for (whose, (_, _, way)) in ways.all() {
        assert_eq!((whose, way.name()), (cgroup.id.clone(), "watch"));
        assert_eq!(way.ask(&asking(Level::Gc)).await, Ok(Answered::default()));
        assert_eq!(way.ask(&asking(Level::Unload)).await, Err(WayError::NotOffered(Level::Unload)));
    }
    for client in &mut clients {
        assert_eq!(client.line(), "poked");
    }
    clients.clear();
    while !ways.all().is_empty() {
        ways.changed().await;
    }
    drop(listening);
    assert!(!watch::path(&daemon).exists());
}

/// A listener that reads nothing is told enough by what lies there already, and holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_that_never_reads_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    own(dir.path(), &[]);
    let path = dir.path().to_str().unwrap();
    let daemon = Daemon { run_dir: path.into(), cgroup_root: path.into(), ..Daemon::default() };
    let ways = Ways::default();
    let _listening = watch::listen(&daemon, ways.clone()).unwrap();
    let deaf = std::os::unix::net::UnixStream::connect(watch::path(&daemon)).unwrap();
    while ways.all().is_empty() {
        ways.changed().await;
    }
    let (_, (_, _, way)) = ways.all().pop().unwrap();
    for _ in 0..200_000 {
        assert_eq!(way.ask(&asking(Level::Gc)).await, Ok(Answered::default()));
    }
    drop(deaf);
    while !ways.all().is_empty() {
        ways.changed().await;
    }
    assert!(matches!(way.ask(&asking(Level::Gc)).await, Err(WayError::Unreachable(_))));
}

const HANDLER: &str = r#"
import signal
signal.signal(signal.SIGUSR1, lambda *_: print("asked"))
print("ready")
while True:
    signal.pause()
"#;

#[tokio::test]
async fn a_signal_reaches_those_who_handle_it_and_harms_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut handles = Python::start(HANDLER, &[]);
    let mut does_not = Python::start("print('ready')\nimport time\ntime.sleep(1000)", &[]);
    assert_eq!((handles.line(), does_not.line()), ("ready".into(), "ready".into()));
    let cgroup = own(dir.path(), &[does_not.0.id(), handles.0.id()]);
    let ask = |to, level| {
        let signals = Signals { gc: Some(Signal::Usr1), to, ..Signals::default() };
        let way = Signalled::new(signals, Arc::clone(&cgroup), dir.path());
        async move { way.ask(&asking(level)).await }
    };
    assert_eq!(ask(Recipients::All, Level::Gc).await, Ok(Answered::default()));
    assert_eq!(handles.line(), "asked");
    assert_eq!(ask(Recipients::Main, Level::Gc).await, Ok(Answered::default()), "the one that came first");
    assert_eq!(handles.line(), "asked");
    assert_eq!(ask(Recipients::All, Level::Unload).await, Err(WayError::NotOffered(Level::Unload)));
    assert_eq!(
        ask(Recipients::All, Level::Nothing).await,
        Ok(Answered::default()),
        "it comes back by itself"
    );
    fs::write(dir.path().join(&*cgroup.id.path).join("cgroup.procs"), does_not.0.id().to_string()).unwrap();
    assert!(matches!(ask(Recipients::All, Level::Gc).await, Err(WayError::Refused(_))));
    assert!(does_not.0.try_wait().unwrap().is_none(), "SIGUSR1 would have ended it");
}

/// A server that gives these answers, one to each connection, and returns the requests.
fn server(answers: &'static [&'static str]) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        answers
            .iter()
            .map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    let mut buffer = [0; 4096];
                    let len = stream.read(&mut buffer).unwrap();
                    request.extend_from_slice(&buffer[..len]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request).unwrap()
            })
            .collect()
    };
    (port, std::thread::spawn(serve))
}

#[tokio::test]
async fn a_webhook_is_posted_what_is_wanted_and_may_say_what_it_freed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "hush\n").unwrap();
    let (port, served) = server(&[
        "HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"freed_bytes\": 4096}",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy",
    ]);
    let webhook = Webhook {
        url: format!("http://127.0.0.1:{port}/memory"),
        levels: vec![Level::Gc],
        secret_file: secret.to_str().map(Into::into),
        gated: false,
    };
    let id = WorkloadId { path: "models/chat".into(), inode: 3 };
    let way = Posted::new(&webhook, &Ask::default(), &id).unwrap();
    let ask = async |level| way.ask(&asking(level)).await;
    assert_eq!(ask(Level::Gc).await.unwrap().claimed.unwrap().host, 4096);
    assert_eq!(ask(Level::Nothing).await, Ok(Answered::default()));
    assert!(
        ask(Level::Gc).await.is_err_and(|error| error.to_string().contains("redirects are not followed"))
    );
    assert!(ask(Level::Gc).await.is_err_and(|error| error.to_string().contains("busy")));
    let requests = served.join().unwrap();
    assert!(requests[0].starts_with("POST /memory HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].to_lowercase().contains("authorization: bearer hush\r\n"), "{}", requests[0]);
    let body: serde_json::Value =
        serde_json::from_str(requests[0].rsplit("\r\n\r\n").next().unwrap()).unwrap();
    let expected = serde_json::json!({
        "request": 7, "workload": "models/chat", "level": "gc", "gpus": [], "wanted_bytes": 1_048_576,
        "deadline_ms": 5000, "reason": "host memory is short",
    });
    assert_eq!(body, expected);
    assert!(requests[1].contains("\"restore\""), "{}", requests[1]);
}

#[tokio::test]
async fn a_webhook_elsewhere_is_not_called() {
    let id = WorkloadId { path: "w".into(), inode: 3 };
    let webhook =
        Webhook { url: "http://192.0.2.1:9/".into(), levels: vec![Level::Gc], ..Webhook::default() };
    let way = Posted::new(&webhook, &Ask::default(), &id).unwrap();
    assert!(matches!(way.ask(&asking(Level::Gc)).await, Err(WayError::Misconfigured(_))));
}

/// Answers every line, refuses to restore, and ends when it is to unload.
const HOOK: &str = r#"while read -r line; do case "$line" in
    *'"unload"'*) exit 3 ;;
    *'"restore"'*) echo '{"error": "no room"}' ;;
    *'"offload"'*) sleep 100 ;;
    *) echo '{"freed_bytes": 5, "freed_gpu_bytes": {"GPU-1": 6}}' ;;
esac; done"#;

#[tokio::test]
async fn a_hook_is_kept_warm_and_not_started_while_memory_is_short() {
    let id = WorkloadId { path: "w".into(), inode: 3 };
    let hook = Hook {
        command: ["/bin/sh", "-c", HOOK].map(Into::into).into(),
        levels: Level::ALL.into(),
        gated: false,
    };
    let short = latest::Sender::new(false);
    let way = Hooked::start(&hook, &id, short.subscribe());
    let running = async |wanted: bool| {
        while way.offer().await.unwrap().levels.is_empty() == wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ask = async |level| way.ask(&asking(level)).await;
    running(true).await;
    let claimed = ask(Level::Gc).await.unwrap().claimed.unwrap();
    assert_eq!((claimed.host, claimed.gpus[&"GPU-1".into()].0), (5, 6));
    assert_eq!(ask(Level::Nothing).await, Err(WayError::Refused("no room".into())));
    assert!(ask(Level::Gc).await.is_ok(), "it is the same one");
    short.send_replace(true);
    assert!(matches!(ask(Level::Unload).await, Err(WayError::Unreachable(_))));
    running(false).await;
    assert!(matches!(ask(Level::Gc).await, Err(WayError::Unreachable(_))));
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert!(way.offer().await.unwrap().levels.is_empty(), "a fork under pressure");
    short.send_replace(false);
    running(true).await;
    let late = tokio::time::timeout(Duration::from_millis(200), ask(Level::Offload)).await;
    assert!(late.is_err(), "it hangs");
    running(false).await;
    running(true).await;
    assert!(ask(Level::Gc).await.is_ok(), "a late answer is no answer to the next question");
}

/// Has a child from the beginning, whose number it tells, and one more while it hangs.
const PARENT: &str = r#"sleep 1000 & while read -r line; do case "$line" in
    *'"unload"'*) exit 3 ;;
    *'"offload"'*) sleep 1000 ;;
    *) echo "{\"freed_bytes\": $!}" ;;
esac; done"#;

#[tokio::test]
async fn a_hook_takes_its_children_with_it() {
    let id = WorkloadId { path: "w".into(), inode: 3 };
    let hook = Hook {
        command: ["/bin/sh", "-c", PARENT].map(Into::into).into(),
        levels: Level::ALL.into(),
        gated: false,
    };
    for end in [Some(Level::Unload), Some(Level::Offload), None] {
        let way = Hooked::start(&hook, &id, latest::Sender::new(false).subscribe());
        while way.offer().await.unwrap().levels.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let child = way.ask(&asking(Level::Gc)).await.unwrap().claimed.unwrap().host;
        assert!(lives(child), "{end:?}");
        let still = if let Some(level) = end {
            let asking = asking(level);
            let said = tokio::time::timeout(Duration::from_millis(200), way.ask(&asking)).await;
            assert!(!matches!(said, Ok(Ok(_))), "{end:?}: {said:?}");
            Some(way)
        } else {
            drop(way);
            None
        };
        while lives(child) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(still);
    }
}

/// A child whose parent is gone may wait for a while to be reaped.
fn lives(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
