//! `memory.high` as a lease: the livelock of a limit that only torments, withdrawn; a limit that helps, renewed and put back.

use std::time::Duration;

use plimsoll_tests::guest::skip;
use serde_json::Value;

use crate::world::{Daemon, Group, available_mib, has_swap, total_mib, wait};

/// What was wanted of a workload in one pass.
struct Wanted {
    at_ms: u64,
    rung: String,
    until: u64,
    leash: bool,
    evidence: String,
}

fn wanted(daemon: &Daemon, path: &str) -> Vec<Wanted> {
    let one = |line: &Value| {
        let all = line["plan"]["workloads"].as_object()?;
        let (_, wanted) = all.iter().find(|(id, _)| id.starts_with(path))?;
        Some(Wanted {
            at_ms: line["sample"]["at"].as_u64()? / 1_000_000,
            rung: wanted["rung"].as_str()?.to_owned(),
            until: wanted["until"].as_u64().unwrap_or(0),
            leash: wanted["leash"] == true,
            evidence: wanted["evidence"].to_string(),
        })
    };
    daemon.journal().iter().filter_map(one).collect()
}

/// The counters that tell a limit that helps from one that torments.
#[derive(Debug)]
struct Counters {
    high: u64,
    scan: u64,
    steal: u64,
    stall_us: u64,
    size_mib: u64,
}

fn counters(group: &Group) -> Counters {
    let stall = group.read("memory.pressure");
    let some = stall.lines().find_map(|line| line.strip_prefix("some")?.rsplit_once("total="));
    Counters {
        high: group.event("memory.events", "high"),
        scan: group.event("memory.stat", "pgscan"),
        steal: group.event("memory.stat", "pgsteal"),
        stall_us: some.and_then(|(_, total)| total.parse().ok()).unwrap_or(0),
        size_mib: group.number("memory.current") >> 20,
    }
}

/// The longest time between two passes while memory is short and the host is not busy.
const PASS_MS: u64 = 150;

const HOG: [&str; 7] = ["batch-job", "--from-mib", "40", "--to-mib", "400", "--rate-mib", "100"];

/// The trap: nobody withdraws the limit. The workload waits all the time, its reclaim finds nothing, and no memory comes of it.
#[test]
fn a_limit_that_is_left_standing_without_swap_is_a_livelock() {
    if has_swap() {
        return skip("lease::a_limit_that_is_left_standing_without_swap_is_a_livelock", "there is swap");
    }
    let group = Group::new("t-control");
    group.write("memory.high", "83886080");
    let mut hog = group.workload(&HOG);
    wait("it runs into its limit", || group.event("memory.events", "high") > 0);
    std::thread::sleep(Duration::from_secs(1));
    let before = counters(&group);
    std::thread::sleep(Duration::from_secs(4));
    let after = counters(&group);
    eprintln!("a limit left standing for 4 s: {before:?} -> {after:?}");
    assert!(after.high > before.high, "it pushes: {before:?} {after:?}");
    let (scanned, stolen) = (after.scan - before.scan, after.steal - before.steal);
    assert!(stolen * 4 <= scanned, "reclaim finds nothing: {before:?} {after:?}");
    assert!(after.stall_us - before.stall_us > 1_000_000, "it waits: {before:?} {after:?}");
    assert!(after.size_mib >= before.size_mib, "nothing is gained: {before:?} {after:?}");
    assert!(after.size_mib < 300, "at its own pace it would have been there: {before:?} {after:?}");
    assert!(hog.try_wait().unwrap().is_none());
    group.write("memory.high", "max");
    wait("it goes on as soon as the limit is gone", || group.number("memory.current") >= 395 << 20);
}

/// The same workload, that may be throttled and nothing else, with somebody who looks whether it helps.
#[test]
fn a_limit_that_only_torments_is_withdrawn_within_a_second() {
    if has_swap() {
        return skip("lease::a_limit_that_only_torments_is_withdrawn_within_a_second", "there is swap");
    }
    let batch = Group::new("t-batch");
    let daemon = Daemon::start(
        "
host:
  elevated: { used: 11%, leave: 10% }
  constrained: { used: 13%, leave: 12% }
workloads:
  - { name: batch, cgroup: t-batch, priority: 0, rungs: [throttle] }
",
    );
    let _hog = batch.workload(&HOG);
    let throttled = || wanted(&daemon, "t-batch").iter().any(|w| w.rung == "throttle");
    wait("it is throttled", throttled);
    wait("it is let go again", || wanted(&daemon, "t-batch").last().is_some_and(|w| w.rung == "free"));
    let plans = wanted(&daemon, "t-batch");
    let begun = plans.iter().position(|w| w.rung == "throttle").expect("throttled");
    let ended = begun + plans[begun..].iter().position(|w| w.rung != "throttle").expect("let go");
    // Judged by the last pass that still held it: when the next one comes is the emulator's matter. So is a host that lets the
    // guest stand still: a pass that comes late counts for what it takes where the host is quiet.
    let held: u64 =
        plans[begun..ended].windows(2).map(|pair| (pair[1].at_ms - pair[0].at_ms).min(PASS_MS)).sum();
    eprintln!("throttled for {held} ms of guest time, ended since {}", plans[ended].evidence);
    assert!(held < 1000, "still held after {held} ms");
    assert!(plans[ended].evidence.contains("futile"), "{}", plans[ended].evidence);
    wait("the limit is gone", || batch.read("memory.high") == "max");
    assert!(batch.event("memory.events", "high") > 0, "it had pushed against it");
    wait("it gets what it wanted", || batch.number("memory.current") >= 395 << 20);
    assert_eq!(daemon.finish().0, Some(0));
}

/// With swap there is something to take: the limit helps, so it is renewed for as long as it is needed; then the
/// limit that was there before is there again.
#[test]
fn a_limit_that_helps_is_renewed_and_the_one_before_is_put_back() {
    if !has_swap() {
        return skip(
            "lease::a_limit_that_helps_is_renewed_and_the_one_before_is_put_back",
            "there is no swap",
        );
    }
    let (batch, other) = (Group::new("t-batch"), Group::new("t-other"));
    let found = 734_003_200;
    batch.write("memory.high", &found.to_string());
    let _idle = batch.idle_on(200);
    let used = 100 - available_mib() * 100 / total_mib();
    let daemon = Daemon::start(&format!(
        "
host:
  elevated: {{ used: {}%, leave: {}% }}
  constrained: {{ used: {}%, leave: {}% }}
workloads:
  - {{ name: batch, cgroup: t-batch, priority: 0, rungs: [throttle] }}
",
        used + 8,
        used + 7,
        used + 12,
        used + 10,
    ));
    let outsider_mib = (total_mib() / 4).to_string();
    let mut outsider = other.workload(&["batch-job", "--idle", "--to-mib", &outsider_mib]);
    wait("it is throttled", || batch.number("memory.high") < found);
    let leases = || {
        let plans = wanted(&daemon, "t-batch");
        let mut ends: Vec<u64> =
            plans.iter().filter(|w| w.rung == "throttle" && !w.leash).map(|w| w.until).collect();
        ends.dedup();
        ends.len()
    };
    wait("its lease is renewed", || leases() >= 4);
    let squeezed = counters(&batch);
    eprintln!("with a lease that helps: {squeezed:?}");
    assert!(squeezed.size_mib < 190 && squeezed.steal > 0, "{squeezed:?}");
    outsider.kill().unwrap();
    outsider.wait().unwrap();
    wait("what was found is put back", || batch.number("memory.high") == found);
    assert_eq!(daemon.finish().0, Some(0));
    assert_eq!(batch.number("memory.high"), found);
}
