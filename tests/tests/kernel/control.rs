//! The control socket of a real daemon: a program that is asked by a pass, strangers, and operators at the command line.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

use plimsoll_tests::guest;
use serde_json::Value;

use crate::dry::strict;
use crate::world::{Daemon, Group, PATIENCE, get, total_mib, wait};

/// What a program can give.
const HELD_MIB: u64 = 120;

fn socket(daemon: &Daemon) -> String {
    daemon.dir.path().join("run/control.sock").display().to_string()
}

/// The answers to what was asked, as the journal has them.
fn conceded(daemon: &Daemon) -> Vec<Value> {
    let all = daemon.journal().into_iter();
    all.flat_map(|mut line| match line["sample"]["conceded"].take() {
        Value::Array(conceded) => conceded,
        _ => Vec::new(),
    })
    .collect()
}

fn plimsoll(daemon: &Daemon, arguments: &[&str]) -> Output {
    let config = daemon.dir.path().join("plimsoll.yaml");
    Command::new(guest::plimsoll()).args(arguments).arg("--config").arg(config).output().unwrap()
}

/// Standard output of a sub-command that did what it was to do.
fn said(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = plimsoll(daemon, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}\n{}", daemon.log());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_program_is_asked_by_a_pass_and_gives_its_memory_back() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    // It has its memory before the daemon sees it grow, and waits for the socket.
    let dir = tempfile::tempdir_in("/run").unwrap();
    let socket = dir.path().join("run/control.sock").display().to_string();
    let _program = batch.workload(&["program", "--socket", &socket, "--mib", &HELD_MIB.to_string()]);
    wait("it has its memory", || batch.number("memory.current") >= HELD_MIB << 20);
    // What can be swapped out is trimmed instead of being asked for.
    batch.write("memory.swap.max", "0");
    let daemon = Daemon::start_in(dir, &strict("false"));
    wait("it is registered", || get("/metrics").is_some_and(|m| m.contains("plimsoll_control_sessions 1\n")));
    let grown = (total_mib() / 10).to_string();
    let _protected = chat.workload(&["batch-job", "--idle", "--to-mib", &grown, "--rate-mib", "20"]);
    wait("it was asked and has answered", || {
        conceded(&daemon).iter().any(|one| one["by"] == "client" && one["result"] == "done")
    });
    wait("its memory is back", || batch.number("memory.current") < (HELD_MIB - 40) << 20);
    assert!(!daemon.rungs().contains("kill"), "{}", daemon.log());
    assert_eq!(daemon.finish().0, Some(0));
}

#[test]
fn who_is_in_no_workload_is_told_how_to_become_one() {
    let daemon = Daemon::start("");
    let mut stream = UnixStream::connect(socket(&daemon)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let call = "{\"method\":\"dev.plimsoll.Control.Register\",\"parameters\":{\"offers\":[]}}\0";
    stream.write_all(call.as_bytes()).unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.contains("NotAWorkload") && answer.contains("plimsoll exec"), "{answer}");
}

#[test]
fn a_pause_lets_go_is_shown_and_replays() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let daemon = Daemon::start(&strict("[kill]"));
    let _protected = chat.idle_on(40);
    let grown = (total_mib() / 4).to_string();
    let _hog = batch.workload(&["batch-job", "--idle", "--to-mib", &grown, "--rate-mib", "50"]);
    wait("it is braked", || batch.read("memory.high") != "max" || batch.is_frozen());
    let paused = said(&daemon, &["pause", "--for", "5m"]);
    assert!(paused.contains("t-batch: let go") && paused.contains("paused for 300 s"), "{paused}");
    wait("everything is let go", || batch.read("memory.high") == "max" && !batch.is_frozen());
    // Where there is swap, what was reclaimed while it was frozen comes back when it is used.
    let has = || batch.number("memory.current") + batch.number("memory.swap.current");
    wait("it has what it wants", || has() >= (total_mib() / 4 - 2) << 20);
    let status: Value = serde_json::from_str(&said(&daemon, &["status", "--json"])).unwrap();
    assert!(status["paused_seconds"].as_f64().is_some_and(|left| left > 200.0), "{status}");
    assert!(said(&daemon, &["status"]).contains("paused for another"));
    assert_eq!(said(&daemon, &["resume"]), "the pause is over\n");
    let status: Value = serde_json::from_str(&said(&daemon, &["status", "--json"])).unwrap();
    assert!(status["paused_seconds"].is_null(), "{status}");
    said(&daemon, &["release", "batch"]);
    let explained = said(&daemon, &["explain", "1"]);
    assert!(explained.contains("batch"), "{explained}");
    assert_eq!(plimsoll(&daemon, &["explain", "999999"]).status.code(), Some(1));
    let journal = daemon.journal_path();
    let dir = daemon.leave();
    let replay = Command::new(guest::plimsoll()).args(["replay", &journal]).output().unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stdout));
    drop(dir);
}
