//! The planner on real memory: bytes that an action would really free count, not bytes that are held; and what is learned stays.

use std::fs;

use serde_json::Value;

use crate::world::{Daemon, Group, Workload, available_mib, has_swap, wait};

const RULES: &str = "
workloads:
  - { name: chat, cgroup: t-chat, priority: 1000 }
  - { name: kept, cgroup: t-kept, priority: 0 }
  - { name: plain, cgroup: t-plain, priority: 0 }
";

/// Short of memory at once, whoever grows.
const STRICT: &str = "
host:
  elevated: { used: 11%, leave: 10% }
  constrained: { used: 16%, leave: 15% }
  critical: { used: 21%, leave: 20% }
";

const SHARED: &str = "/run/planner-shared";

/// A workload that holds more than the other one and would give nothing: with swap it is locked, and without swap, where
/// only a kill gives anything, it stays behind in a tmpfs.
fn keep(group: &Group, mib: u64) -> Workload {
    let (mib, rest) = (mib.to_string(), "30");
    if has_swap() {
        let child = group.workload(&["batch-job", "--idle", "--lock", "--from-mib", &mib, "--to-mib", &mib]);
        wait("it is locked", || group.event("memory.stat", "unevictable") > 100 << 20);
        return child;
    }
    let mut writer = group.workload(&["weights", SHARED, "--mib", &mib]);
    wait("the shared file is there", || writer.try_wait().unwrap().is_some());
    assert!(group.event("memory.stat", "shmem") > 100 << 20);
    group.workload(&["batch-job", "--idle", "--from-mib", rest, "--to-mib", rest])
}

/// What the state file has learned of a workload by any of these actions.
fn seen(dir: &std::path::Path, path: &str, actions: &[&str]) -> u64 {
    let text = fs::read_to_string(dir.join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    let learned = &state["memory"]["workloads"][path];
    actions.iter().filter_map(|action| learned[action]["seen"].as_u64()).sum()
}

fn last_action(daemon: &Daemon) -> u64 {
    let workloads =
        daemon.journal().into_iter().filter_map(|line| line["plan"]["workloads"].as_object().cloned());
    workloads
        .flat_map(|all| all.values().filter_map(|w| w["action"].as_u64()).collect::<Vec<_>>())
        .max()
        .unwrap_or(0)
}

/// Every rung that a workload was ever on, free left out.
fn rungs(daemon: &Daemon, path: &str) -> Vec<String> {
    let lines = daemon.journal();
    let workloads = lines.iter().filter_map(|line| line["plan"]["workloads"].as_object());
    let wanted = workloads.flat_map(|all| all.iter().filter(|(id, _)| id.starts_with(path)));
    wanted.filter_map(|(_, w)| Some(w["rung"].as_str()?.to_owned())).filter(|rung| rung != "free").collect()
}

#[test]
fn the_one_that_would_really_give_is_taken_and_the_outcome_is_remembered() {
    let (chat, kept, plain) = (Group::new("t-chat"), Group::new("t-kept"), Group::new("t-plain"));
    let room = available_mib();
    let mut holds = keep(&kept, room / 4 + 30);
    let mut gives = plain.idle_on(room / 4);
    let daemon = Daemon::start(RULES);
    let to = (room / 2 + room / 16).to_string();
    let mut protected = chat.workload(&["batch-job", "--idle", "--to-mib", &to, "--rate-mib", "100"]);
    wait("the protected one has what it needs", || {
        chat.number("memory.current") >= (room / 2 + room / 16 - 2) << 20 || !chat.is_populated()
    });
    assert!(protected.try_wait().unwrap().is_none(), "the protected one died\n{}", daemon.log());
    let actions: &[&str] = if has_swap() {
        wait("the plain one gave", || daemon.saw("reclaim", "done") || daemon.saw("reclaim", "partial"));
        &["trim", "hibernate"]
    } else {
        wait("the plain one was killed", || gives.try_wait().unwrap().is_some());
        wait("and it is on the record", || daemon.saw("kill", "done"));
        &["kill"]
    };
    assert!(holds.try_wait().unwrap().is_none(), "the wrong one was killed\n{}", daemon.log());
    assert_eq!(rungs(&daemon, "t-kept"), [""; 0], "nothing was to be had of it\n{}", daemon.log());
    let before = last_action(&daemon);
    let dir = daemon.leave();
    assert!(
        before > 0 && seen(dir.path(), "t-plain", actions) > 0,
        "{:?}",
        fs::read_to_string(dir.path().join("state.json"))
    );

    let _ = (gives.kill(), gives.wait(), protected.kill(), protected.wait());
    let daemon = Daemon::start_in(dir, &(STRICT.to_owned() + RULES));
    let _hog = plain.workload(&["batch-job", "--to-mib", "400", "--rate-mib", "60"]);
    wait("it is held", || plain.is_frozen() || plain.read("memory.high") != "max");
    wait("it is on the record", || last_action(&daemon) > before);
    assert!(daemon.log().contains("remembers"), "{}", daemon.log());
    let dir = daemon.leave();
    assert!(seen(dir.path(), "t-plain", actions) > 0, "what was learned before the restart is still there");
    let _ = fs::remove_file(SHARED);
}
