//! The daemon at its work: the ladder on a real hog, and calm where there is nothing to do.

use std::io::Read;
use std::time::Duration;

use crate::world::{Daemon, Group, Workload, available_mib, get, has_swap, wait};

const RULES: &str = "
workloads:
  - { name: chat, cgroup: t-chat, priority: 1000 }
  - { name: batch, cgroup: t-batch, priority: -10 }
";

fn hog(group: &Group, mib: u64) -> Workload {
    group.workload(&["batch-job", "--to-mib", &mib.to_string(), "--rate-mib", "200"])
}

/// Growth into the last of the memory: a hog is braked before the kernel's OOM killer comes, and nothing is killed
/// while freezing it is enough.
#[test]
fn a_hog_is_held_and_nobody_is_killed() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let mut protected = chat.idle_on(100);
    let daemon = Daemon::start(RULES);
    let before = available_mib();
    let mut child = hog(&batch, before + 200);
    wait("the hog is throttled or frozen", || batch.is_frozen() || batch.read("memory.high") != "max");
    std::thread::sleep(Duration::from_secs(8));
    assert!(child.try_wait().unwrap().is_none(), "the hog was killed, though holding it was enough");
    assert!(protected.try_wait().unwrap().is_none());
    assert_eq!(batch.event("memory.events", "oom_kill"), 0);
    assert!(available_mib() > 10, "the host ran dry");
    let (code, log) = daemon.finish();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(batch.read("memory.high"), "max");
    assert!(!batch.is_frozen() && !batch.has_stopped());
}

/// Calm again: what was taken is given back without being asked.
#[test]
fn a_held_workload_is_let_go_when_there_is_room() {
    let (chat, batch, other) = (Group::new("t-chat"), Group::new("t-batch"), Group::new("t-other"));
    let _protected = chat.idle_on(60);
    let _small = batch.workload(&["batch-job", "--from-mib", "60", "--to-mib", "900", "--rate-mib", "10"]);
    wait("the batch job is there", || batch.number("memory.current") > 60 << 20);
    let daemon = Daemon::start(RULES);
    // Somebody who is no workload takes the memory, and goes again.
    let room = available_mib();
    let mut outsider = other.workload(&["batch-job", "--idle", "--to-mib", &(room - 40).to_string()]);
    wait("the batch job is held", || batch.is_frozen() || batch.read("memory.high") != "max");
    outsider.kill().unwrap();
    outsider.wait().unwrap();
    wait("it is let go", || !batch.is_frozen() && batch.read("memory.high") == "max");
    wait("its protection is taken back", || chat.read("memory.low") == "0");
    drop(daemon);
}

/// No swap, the low one idle on memory that can't be reclaimed, the protected one growing: nothing gentler can help.
#[test]
fn the_idle_low_one_is_killed_when_nothing_gentler_can_free_its_memory() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let held = (available_mib() - 100) / 2;
    let mut low = batch.idle_on(held);
    let daemon = Daemon::start(RULES);
    // Grows into memory that the other one holds.
    let to = (held + 160).to_string();
    let mut high = chat.workload(&["batch-job", "--idle", "--to-mib", &to, "--rate-mib", "100"]);
    wait("the protected one is there", || chat.is_populated());
    wait("the protected one has what it needs", || {
        chat.number("memory.current") >= (held + 158) << 20 || !chat.is_populated()
    });
    assert!(high.try_wait().unwrap().is_none(), "the protected one died\n{}", daemon.log());
    if has_swap() {
        assert!(low.try_wait().unwrap().is_none(), "killed, though there was swap\n{}", daemon.log());
        assert!(
            daemon.saw("freeze", "done") || daemon.saw("reclaim", "done") || daemon.saw("reclaim", "partial")
        );
    } else {
        wait("the low one was killed", || low.try_wait().unwrap().is_some());
        wait("and it is on the record", || daemon.saw("kill", "done"));
    }
    assert_eq!(chat.event("memory.events", "oom_kill") + batch.event("memory.events", "oom_kill"), 0);
}

/// A file that is larger than what is free is read over and over: reclaim without end, and nobody is short of anything.
#[test]
fn page_cache_pressure_leads_to_trimming_at_most() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let file = "/data/scanned";
    let mut out = std::fs::File::create(file).unwrap();
    std::io::copy(&mut std::io::repeat(7).take((available_mib() + 100) << 20), &mut out).unwrap();
    out.sync_all().unwrap();
    let mut protected = chat.idle_on(200);
    let daemon = Daemon::start(RULES);
    let mut scanner = batch.workload(&["scanner", file]);
    let scanned =
        || batch.event("memory.stat", "pgsteal_kswapd") + batch.event("memory.stat", "pgsteal_direct");
    wait("its page cache is reclaimed", || scanned() > 50_000);
    assert!(scanner.try_wait().unwrap().is_none() && protected.try_wait().unwrap().is_none());
    let gentle = daemon.rungs().iter().all(|rung| rung == "free" || rung == "trim");
    assert!(gentle, "{:?} {:?}", daemon.rungs(), daemon.tiers());
    std::fs::remove_file(file).unwrap();
}

/// Metrics, status and journal are there, and tell what was done.
#[test]
fn it_says_what_it_does() {
    let chat = Group::new("t-chat");
    let _protected = chat.idle_on(30);
    let daemon = Daemon::start(RULES);
    let metrics = get("/metrics").unwrap();
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("plimsoll_tier") && metrics.trim_end().ends_with("# EOF"), "{metrics}");
    assert!(get("/status").unwrap().contains("chat"));
    assert!(get("/healthz").unwrap().starts_with("HTTP/1.1 200"));
    wait("the journal has a pass", || daemon.journal().iter().any(|line| line["v"] == 2));
    assert!(!daemon.log().contains("eBPF"), "every hook is attached\n{}", daemon.log());
    assert_eq!(daemon.finish().0, Some(0));
}
