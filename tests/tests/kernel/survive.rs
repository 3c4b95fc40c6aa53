//! Whatever becomes of the daemon, nothing stays stopped, frozen or limited.

use std::fs;
use std::time::Duration;

use plimsoll_tests::guest;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Daemon, Group, Workload, available_mib, wait, within};

const RULES: &str = "
workloads:
  - { name: chat, cgroup: t-chat, priority: 1000 }
  - { name: batch, cgroup: t-batch, priority: -10 }
";

/// Two workloads, of which the daemon holds one.
struct Held {
    loads: [Workload; 2],
    chat: Group,
    batch: Group,
    daemon: Daemon,
}

fn held() -> Held {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let protected = chat.idle_on(100);
    let daemon = Daemon::start(RULES);
    let mib = (available_mib() + 200).to_string();
    let hog = batch.workload(&["batch-job", "--to-mib", &mib, "--rate-mib", "200"]);
    wait("the hog is frozen", || batch.is_frozen());
    Held { loads: [protected, hog], chat, batch, daemon }
}

/// Frozen, stopped, or with a limit of ours.
fn is_touched(held: (&Group, &Group)) -> bool {
    let limits = |group: &Group| group.read("memory.high") != "max" || group.read("memory.low") != "0";
    let stopped =
        |group: &Group| group.is_frozen() || group.read("cgroup.freeze") != "0" || group.has_stopped();
    [held.0, held.1].iter().any(|group| limits(group) || stopped(group))
}

#[test]
fn sigterm_releases_everything() {
    let Held { loads: _loads, chat, batch, daemon } = held();
    let (code, log) = daemon.finish();
    assert_eq!(code, Some(0), "{log}");
    assert!(!is_touched((&chat, &batch)), "{log}");
}

/// The guardian alone: nobody restarts the daemon. Two seconds are the promise itself, not a measurement of speed.
#[test]
fn sigkill_releases_everything_within_two_seconds() {
    let Held { loads: _loads, chat, batch, daemon } = held();
    let _dir = daemon.crash();
    within(Duration::from_secs(2), "released after the daemon's death", || !is_touched((&chat, &batch)));
    assert!(batch.is_populated(), "released means alive");
}

/// The guardian dies too, and so the next daemon has to repair.
#[test]
fn a_successor_repairs_what_both_left() {
    let Held { loads: _loads, chat, batch, daemon } = held();
    let guardians = processes("plimsoll-guardian");
    assert_eq!(guardians.len(), 1, "one guardian");
    // Stopped first, so that neither can react to the other's death.
    daemon.signal(Signal::STOP);
    for guardian in guardians {
        kill_process(guardian, Signal::KILL).unwrap();
    }
    let dir = daemon.crash();
    std::thread::sleep(Duration::from_millis(500));
    assert!(batch.is_frozen(), "nobody was left to thaw it");
    // Only the protected one is a workload of the successor: what it finds set on the other is the predecessor's.
    let next = Daemon::start_in(dir, "workloads: [ { name: chat, cgroup: t-chat, priority: 1000 } ]\n");
    assert!(!batch.is_frozen() && batch.read("memory.high") == "max", "{}", next.log());
    assert!(next.log().contains("repaired"), "{}", next.log());
    drop((chat, next));
}

/// `plimsoll release` does by hand what the guardian does.
#[test]
fn release_undoes_by_hand() {
    let Held { loads: _loads, chat, batch, daemon } = held();
    daemon.signal(Signal::STOP);
    for guardian in processes("plimsoll-guardian") {
        kill_process(guardian, Signal::KILL).unwrap();
    }
    let config = daemon.dir.path().join("plimsoll.yaml");
    let dir = daemon.crash();
    let kept = tempfile::tempdir_in("/run").unwrap();
    let output = std::process::Command::new(guest::plimsoll())
        .args(["release", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("thawed"), "{output:?}");
    assert!(!is_touched((&chat, &batch)));
    drop((dir, kept));
}

/// A guardian that is killed is replaced.
#[test]
fn a_dead_guardian_is_replaced() {
    let chat = Group::new("t-chat");
    let _protected = chat.idle_on(30);
    let daemon = Daemon::start(RULES);
    let first = processes("plimsoll-guardian");
    for guardian in &first {
        kill_process(*guardian, Signal::KILL).unwrap();
    }
    wait("another guardian", || {
        let now = processes("plimsoll-guardian");
        now.len() == 1 && now != first
    });
    assert_eq!(daemon.finish().0, Some(0));
    wait("no guardian is left", || processes("plimsoll-guardian").is_empty());
}

/// Living processes whose first argument is this.
pub(crate) fn processes(name: &str) -> Vec<Pid> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        cmdline.split(|&byte| byte == 0).next() == Some(name.as_bytes())
    })
    .filter_map(Pid::from_raw)
    .collect()
}
