//! If the race is lost, the kernel kills whom we would have killed, and nothing of that is left behind.

use std::fs;

use rustix::process::Signal;

use crate::world::{Daemon, Group, available_mib, wait};

const RULES: &str = "
workloads:
  - { name: large, cgroup: t-large, priority: 10 }
  - { name: small, cgroup: t-small, priority: -10 }
  - { name: chat, cgroup: t-chat, priority: 1000 }
";

const SWAP_MAX: &str = "memory.swap.max";

fn scores(group: &Group) -> Vec<String> {
    let read = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
    group.read("cgroup.procs").lines().map(|pid| read(pid).trim().to_owned()).collect()
}

#[test]
fn every_process_is_told_and_everything_is_put_back() {
    let (large, small, chat) = (Group::new("t-large"), Group::new("t-small"), Group::new("t-chat"));
    let _loads = [large.idle_on(8), small.idle_on(8), chat.idle_on(8)];
    let daemon = Daemon::start(RULES);
    wait("the order is told", || scores(&small).iter().all(|score| score == "900"));
    assert!(scores(&large).iter().all(|score| score == "100"), "{:?}", scores(&large));
    assert!(scores(&chat).iter().all(|score| score == "0"), "{:?}", scores(&chat));
    assert_eq!((small.read("memory.oom.group"), chat.read("memory.oom.group")), ("1".into(), "0".into()));
    let _late = small.workload(&["batch-job", "--idle", "--from-mib", "4", "--to-mib", "4"]);
    wait("one that came later is told", || {
        let scores = scores(&small);
        scores.len() > 1 && scores.iter().all(|score| score == "900")
    });
    // The guardian puts it back where the daemon can't.
    let _dir = daemon.crash();
    wait("all is put back", || {
        let plain = |group: &Group| scores(group).iter().all(|score| score == "0");
        plain(&large) && plain(&small) && small.read("memory.oom.group") == "0"
    });
}

/// By size alone the kernel would take the large one.
#[test]
fn the_kernel_takes_the_one_that_matters_less() {
    let (large, small) = (Group::new("t-large"), Group::new("t-small"));
    let room = available_mib();
    let _small = small.idle_on(room / 8);
    let _large = large.idle_on(room / 2);
    let daemon = Daemon::start(RULES);
    wait("the order is told", || scores(&small).iter().all(|score| score == "900"));
    // The race is lost: the daemon does not get to run while somebody whom nobody manages fills memory and swap.
    daemon.signal(Signal::STOP);
    let filler = Group::new("t-filler");
    // Whom the kernel takes does not depend on swap, but filling that would take minutes.
    for group in [&large, &small, &filler].into_iter().filter(|group| group.path.join(SWAP_MAX).exists()) {
        group.write(SWAP_MAX, "0");
    }
    let _filler =
        filler.workload(&["batch-job", "--from-mib", "0", "--to-mib", "9000", "--rate-mib", "4000"]);
    wait("the kernel has killed", || !small.is_populated() || !large.is_populated());
    assert!(!small.is_populated(), "{}", daemon.log());
    assert_eq!(large.event("memory.events", "oom_kill"), 0, "{}", daemon.log());
    drop(filler);
    daemon.signal(Signal::CONT);
    let (code, log) = daemon.finish();
    assert_eq!(code, Some(0), "{log}");
}
