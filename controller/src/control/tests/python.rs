//! The Python client against the real socket: what a model server registers, is asked, reserves and reports.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use plimsoll_policy::concession::{Gains, Level};

use super::programs::{ask, asking, offer, until};
use super::*;

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/python/tests/real.py");

/// A model server in Python, in a process of its own.
struct Server {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Server {
    fn start(desk: &Desk16) -> Self {
        let mut command = Command::new("python3");
        command.arg(SERVER).env("PLIMSOLL_CONTROL", desk.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let (input, output) = (process.stdin.take(), process.stdout.take().unwrap());
        Self { process, input, output: BufReader::new(output) }
    }

    /// Has it do something.
    fn does(&mut self, what: &str) {
        self.input.as_mut().unwrap().write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    /// The next thing of this name that it tells.
    fn tells(&mut self, what: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended before it told of {what}");
            let told: Value = serde_json::from_str(&line).unwrap();
            if told["what"] == what {
                return told;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_python_server_is_asked_and_gives() {
    let desk = Desk16::start();
    let mut server = Server::start(&desk);
    assert_eq!(server.tells("tier")["new"], json!("normal"));
    until("it listens and says that it is idle", || offer(&desk).inflight == Some(0));
    let offered = offer(&desk);
    let gains = Gains { host: 1000, gpus: [("GPU-a".into(), Bytes(7))].into() };
    assert_eq!(offered.levels[&Level::Unload].gains, Some(gains.clone()));
    assert_eq!(
        (offered.levels[&Level::Gc].takes, offered.gated, offered.level),
        (Some(Span::millis(500)), true, Some(Level::Nothing))
    );
    let answered = desk.wait(ask(&desk, asking(1, Level::Gc))).unwrap();
    assert_eq!(answered.claimed, Some(Gains { host: 42, ..Gains::default() }));
    let told = server.tells("trim");
    assert_eq!(
        (&told["level"], &told["bytes"], &told["reason"], &told["host"]),
        (&json!("gc"), &json!(5 << 20), &json!("host memory is short"), &json!(true))
    );
    server.does("serve");
    server.tells("serving");
    until("it says that it serves", || offer(&desk).inflight == Some(1));
    let unloading = ask(&desk, asking(2, Level::Unload));
    until("it is told", || offer(&desk).busy == Some(2));
    server.does("done");
    // It may be told before it is said that the request has ended.
    assert_eq!(server.tells("unload")["inside"], json!(0), "not in the middle of a request");
    let claimed = desk.wait(unloading).unwrap().claimed.unwrap();
    assert_eq!(claimed, Gains { host: 1042, ..gains }, "and what the trim after it freed");
    assert_eq!(offer(&desk).level, Some(Level::Unload));
    desk.wait(ask(&desk, asking(3, Level::Nothing))).unwrap();
    server.tells("restore");
    assert_eq!(offer(&desk).level, Some(Level::Nothing));
    drop(server.input.take());
    server.tells("closed");
    until("it is gone", || offer(&desk).levels.is_empty());
}

#[test]
fn a_python_server_reserves_and_reports() {
    let desk = Desk16::start();
    let mut server = Server::start(&desk);
    server.does("room");
    let granted = server.tells("granted");
    assert_eq!(
        (&granted["value"], &granted["controlled"], &granted["reserved"]),
        (&json!("small"), &json!(true), &json!(8 * GIB))
    );
    let refused = server.tells("refused");
    assert_eq!((&refused["reason"], &refused["retry"].is_number()), (&json!("no_room"), &true));
    let admissible = refused["admissible"].as_u64().unwrap();
    assert!((6 * GIB..9 * GIB).contains(&admissible), "{refused}");
    assert_eq!(server.tells("committed")["lost"], json!(false));
    server.does("cuda");
    let inferred = server.tells("inferred");
    assert_eq!((&inferred["result"], &inferred["calls"]), (&json!("ok"), &json!(2)));
    server.does("status");
    let status = server.tells("status");
    assert_eq!((&status["workload"], &status["rung"]), (&json!("chat"), &json!("free")));
    desk.herald.stop();
    server.tells("shutdown");
}
