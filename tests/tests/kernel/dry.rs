//! Dry runs on real memory: decided, written down, reported, and not done.

use plimsoll_tests::guest::skip;
use serde_json::Value;

use crate::world::{Daemon, Group, available_mib, get, has_swap, total_mib, wait};

/// Every tier comes early, so that there is memory left when the last one is reached.
pub(crate) fn strict(dry_run: &str) -> String {
    let used = 100 - available_mib() * 100 / total_mib();
    let tier =
        |name: &str, n: u64| format!("  {name}: {{ used: {}%, leave: {}% }}\n", used + n, used + n - 2);
    let tiers: String = [("elevated", 6), ("constrained", 10), ("critical", 14), ("emergency", 18)]
        .map(|(name, n)| tier(name, n))
        .concat();
    format!(
        "host:\n{tiers}ladder: {{ dry_run: {dry_run} }}
workloads:
  - {{ name: chat, cgroup: t-chat, priority: 1000 }}
  - {{ name: batch, cgroup: t-batch, priority: -10 }}
"
    )
}

/// The actions that were talked about, in their order: number and rung.
fn would(daemon: &Daemon, path: &str) -> Vec<(u64, String)> {
    let one = |line: &Value| {
        let all = line["plan"]["workloads"].as_object()?;
        let (_, wanted) = all.iter().find(|(id, _)| id.starts_with(path))?;
        Some((wanted["would"]["action"].as_u64()?, wanted["would"]["rung"].as_str()?.to_owned()))
    };
    let mut told: Vec<_> = daemon.journal().iter().filter_map(one).collect();
    told.dedup();
    told
}

#[test]
fn a_dry_kill_is_told_and_not_done() {
    if has_swap() {
        return skip("dry::a_dry_kill_is_told_and_not_done", "with swap nobody has to be killed");
    }
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let mut idle = batch.idle_on(150);
    let daemon = Daemon::start(&strict("[kill]"));
    let grown = total_mib() / 3;
    let mut protected =
        chat.workload(&["batch-job", "--idle", "--to-mib", &grown.to_string(), "--rate-mib", "50"]);
    wait("a kill is talked about", || would(&daemon, "t-batch").iter().any(|(_, rung)| rung == "kill"));
    wait("the protected one has what it needs", || chat.number("memory.current") >= (grown - 2) << 20);
    assert!(
        idle.try_wait().unwrap().is_none() && protected.try_wait().unwrap().is_none(),
        "{}",
        daemon.log()
    );
    let kills = would(&daemon, "t-batch").into_iter().filter(|(_, rung)| rung == "kill").count();
    assert_eq!(kills, 1, "told once: {:?}", would(&daemon, "t-batch"));
    assert!(daemon.log().contains("dry run: would change the rung"), "{}", daemon.log());
    assert!(!daemon.rungs().contains("kill") && !daemon.saw("kill", "done"));
    let metrics = get("/metrics").unwrap();
    assert!(metrics.contains("plimsoll_dry_run{rung=\"kill\"} 1"), "{metrics}");
    assert!(metrics.contains("plimsoll_dry_actions_total{rung=\"kill\"} 1"), "{metrics}");
    assert_eq!(daemon.finish().0, Some(0));
}

#[test]
fn a_global_dry_run_sets_nothing() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let _protected = chat.idle_on(60);
    let daemon = Daemon::start(&strict("true"));
    let grown = total_mib() / 3;
    let mut hog =
        batch.workload(&["batch-job", "--idle", "--to-mib", &grown.to_string(), "--rate-mib", "100"]);
    let untouched = |group: &Group| {
        let files = ["memory.high", "memory.low", "cgroup.freeze"].map(|file| group.read(file));
        assert_eq!(files, ["max", "0", "0"], "{}", daemon.log());
        assert!(!group.has_stopped(), "{}", daemon.log());
    };
    wait("the hog has what it wants", || {
        untouched(&chat);
        untouched(&batch);
        batch.number("memory.current") >= (grown - 2) << 20
    });
    wait("it is on the record", || !would(&daemon, "t-batch").is_empty());
    untouched(&chat);
    untouched(&batch);
    assert!(hog.try_wait().unwrap().is_none());
    assert!(
        daemon.tiers().iter().any(|tier| tier == "critical" || tier == "emergency"),
        "{:?}",
        daemon.tiers()
    );
    assert_eq!(daemon.rungs().into_iter().collect::<Vec<_>>(), ["free"]);
    assert!(daemon.outcomes().is_empty() && !daemon.log().contains("gate armed"), "{}", daemon.log());
    assert_eq!(daemon.finish().0, Some(0));
}
