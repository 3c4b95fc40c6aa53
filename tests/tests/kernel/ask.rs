//! Asking before anything is done to somebody: what `plimsoll exec` starts is poked to trim, unloads at a signal, is seen to have
//! done so, and comes back when there is room.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use plimsoll_tests::guest;
use serde_json::Value;

use crate::world::{Daemon, Group, Workload, available_mib, total_mib, wait};

const MODEL_MIB: u64 = 160;
const CACHE_MIB: u64 = 40;

/// What came of wishes so far, from the journal.
fn conceded(daemon: &Daemon) -> Vec<Value> {
    let lines = daemon.journal().into_iter();
    lines.flat_map(|line| line["sample"]["conceded"].as_array().cloned().unwrap_or_default()).collect()
}

fn level<'a>(all: &'a [Value], level: &str) -> Option<&'a Value> {
    all.iter().find(|conceded| conceded["level"] == level)
}

fn freed_mib(conceded: &Value) -> i64 {
    conceded["freed"]["host"].as_i64().unwrap_or(0) >> 20
}

/// Freezes and kills so far.
fn ends(daemon: &Daemon) -> usize {
    daemon.outcomes().iter().filter(|(act, _)| act == "freeze" || act == "kill").count()
}

/// Starts it as a user would, with the configuration of the daemon.
fn giver(daemon: &Daemon) -> Workload {
    let child = Command::new(guest::plimsoll())
        .args([
            "exec",
            "--name",
            "t-giver",
            "--signal",
            "unload=SIGRTMIN+1",
            "--signal",
            "restore=SIGRTMIN+2",
        ])
        .arg("--config")
        .arg(daemon.dir.path().join("plimsoll.yaml"))
        .arg("--")
        .arg(guest::workload())
        .args(["giver", "--model-mib", &MODEL_MIB.to_string(), "--cache-mib", &CACHE_MIB.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Workload::from(child)
}

#[test]
fn who_is_asked_gives_and_comes_back() {
    let hog = Group::new("t-hog");
    let used = 100 - available_mib() * 100 / total_mib();
    let model = (MODEL_MIB + CACHE_MIB) * 100 / total_mib();
    let at = |more: u64| used + model + more;
    let mut daemon = Daemon::start(&format!(
        "
host:
  elevated: {{ used: {}%, leave: {}% }}
  constrained: {{ used: {}%, leave: {}% }}
  critical: {{ used: {}%, leave: {}% }}
  dwell_down: 1s
ask: {{ poll: 1s }}
",
        at(6),
        at(5),
        at(12),
        at(8),
        at(18),
        at(14)
    ));
    let group = PathBuf::from("/sys/fs/cgroup/plimsoll.slice/models/t-giver");
    let current_mib = || {
        let text = fs::read_to_string(group.join("memory.current")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0) >> 20
    };
    let giver = giver(&daemon);
    // What can be swapped out is trimmed instead, which is gentler; here somebody has to give something up.
    wait("it may not swap", || fs::write(group.join("memory.swap.max"), "0").is_ok());
    wait("it has its memory", || current_mib() >= MODEL_MIB + CACHE_MIB);
    let offers = |line: &Value| {
        let all = line["sample"]["workloads"].as_object();
        all.is_some_and(|all| all.values().any(|w| w["offer"]["levels"]["gc"].is_object()))
    };
    let calm = |line: &Value| {
        line["assessment"]["tier"] == "normal" && !line.to_string().contains("\"rung\":\"freeze\"")
    };
    let is_ready = |line: &Value| offers(line) && calm(line);
    wait("it is known to listen", || daemon.journal().last().is_some_and(is_ready));

    let before = ends(&daemon);
    let grow = (total_mib() * 30 / 100).to_string();
    let eater = hog.workload(&["batch-job", "--idle", "--to-mib", &grow, "--rate-mib", "60"]);
    wait("it was asked to unload", || level(&conceded(&daemon), "unload").is_some());
    let all = conceded(&daemon);
    let unload = level(&all, "unload").unwrap();
    eprintln!("conceded: {all:?}");
    assert_eq!((&unload["result"], unload["by"].as_str()), (&Value::from("done"), Some("signal")));
    // The meters are read until three quarters of what was expected are gone, and that may be somewhat less than the model.
    assert!(freed_mib(unload) >= (MODEL_MIB as i64) * 60 / 100, "by the meters: {unload}");
    assert!(current_mib() < CACHE_MIB + 40, "{} MiB left", current_mib());
    let trim = level(&all, "gc").expect("it was asked to trim before");
    assert_eq!(trim["by"].as_str(), Some("watch"), "{trim}");
    assert_eq!(ends(&daemon), before, "{:?}", daemon.outcomes());

    drop(eater);
    wait("it is restored", || level(&conceded(&daemon), "nothing").is_some());
    assert_eq!(level(&conceded(&daemon), "nothing").unwrap()["result"], "done");
    wait("it has its model again", || current_mib() >= MODEL_MIB);
    assert_eq!(daemon.stop(), Some(0));
    drop(giver);
    wait("its cgroup is empty", || fs::remove_dir(&group).is_ok());
    for path in ["/sys/fs/cgroup/plimsoll.slice/models", "/sys/fs/cgroup/plimsoll.slice"] {
        fs::remove_dir(path).unwrap();
    }
}
