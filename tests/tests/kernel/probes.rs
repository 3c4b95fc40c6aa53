//! The eBPF programs on a real kernel: every hook fires, and charges the right cgroup.

mod child;
mod group;

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll::sense::probes::{Event, Kind, Options, Probes, Ring};
use plimsoll_policy::sample::Probes as Counters;
use plimsoll_tests::guest::skip;
use rustix::process::{Pid, Signal, kill_process};

use self::child::Child;
use self::group::Group;
use crate::world::wait;

/// The programs see the whole machine, so that one test at a time may press it.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load() -> (Probes, Ring) {
    let mut probes = Probes::load(&Options::default()).expect("a kernel with eBPF");
    let ring = probes.take_ring().expect("taken once");
    (probes, ring)
}

fn counters(probes: &mut Probes, group: &Group) -> Counters {
    probes.read().expect("readable").get(&group.id).copied().unwrap_or_default()
}

/// Waits for an event of this kind about this cgroup.
fn event(ring: &mut Ring, kind: Kind, cgroup: u64) -> Event {
    let mut found = None;
    wait(&format!("{kind:?} of cgroup {cgroup}"), || {
        found = ring.by_ref().find(|event| event.kind == kind as u32 && event.cgroup == cgroup);
        found.is_some()
    });
    found.expect("just found")
}

#[test]
fn every_hook_attaches() {
    let _alone = alone();
    let (probes, _ring) = load();
    for hook in probes.hooks() {
        assert_eq!(hook.attached, Ok(()), "{}", hook.name);
    }
    assert_eq!(probes.hooks().len(), 10);
}

#[test]
fn without_privileges_it_says_what_is_needed() {
    let said = child::load_as_nobody();
    assert!(said.contains("not permitted to load eBPF programs: CAP_BPF and CAP_PERFMON"), "{said}");
}

#[test]
fn reclaim_over_memory_high_is_charged_to_its_cgroup() {
    let _alone = alone();
    let (mut probes, mut ring) = load();
    let (hog, bystander) = (Group::new("hog"), Group::new("bystander"));
    hog.set("memory.high", "24M");
    hog.set("memory.swap.max", "0");
    let _sleeper = Child::start(&bystander, "eat 4");
    let _eater = Child::start(&hog, "eat 64");

    let seen = event(&mut ring, Kind::MemcgReclaim, hog.id);
    assert_eq!(seen.value, hog.id, "its own task reclaims");
    wait("sleep over memory.high", || counters(&mut probes, &hog).over_high_ns > 0);
    let counted = counters(&mut probes, &hog);
    assert!(counted.memcg_reclaims > 0 && counted.memcg_reclaim_ns > 0, "{counted:?}");
    let untouched = counters(&mut probes, &bystander);
    assert_eq!((untouched.memcg_reclaims, untouched.memcg_reclaim_ns, untouched.over_high_ns), (0, 0, 0));

    let stalls = probes.histograms().expect("readable")[&hog.id];
    assert!(stalls.buckets.iter().sum::<u64>() > 0 && stalls.sum_ns > 0, "{stalls:?}");
}

#[test]
fn an_ancestors_limit_is_told_apart_from_the_task_that_waits() {
    let _alone = alone();
    let (mut probes, mut ring) = load();
    let parent = Group::new("parent");
    let below = parent.child("below");
    parent.set("memory.high", "24M");
    parent.set("memory.swap.max", "0");
    let _eater = Child::start(&below, "eat 64");

    let seen = event(&mut ring, Kind::MemcgReclaim, parent.id);
    assert_eq!(seen.value, below.id, "the task below does the work");
    wait("time charged to the task that waits", || counters(&mut probes, &below).memcg_reclaim_ns > 0);
    let (above, below) = (counters(&mut probes, &parent), counters(&mut probes, &below));
    assert!(above.memcg_reclaims > 0 && above.memcg_reclaim_ns == 0, "{above:?}");
    assert!(below.memcg_reclaims == 0, "{below:?}");
}

#[test]
fn our_own_reclaim_is_not_counted() {
    let _alone = alone();
    let (mut probes, mut ring) = load();
    let (held, writer) = (Group::new("held"), Group::new("writer"));
    let sleeper = Child::start(&held, "eat 32");
    wait("32 MiB held", || sleeper.stat().1 > 32 * 256);
    let file = held.file("memory.reclaim");
    let write = format!("write {} 4M", file.display());

    // By this very process, and by a thread of another that we have named.
    let _ = fs::write(&file, "4M");
    let mut helper = Child::start(&writer, &write);
    probes.ignore(&threads(&helper)).expect("room");
    helper.go();
    wait("the helper has written", || helper.stat().0 == 'S' && is_done(&helper));
    assert_eq!(counters(&mut probes, &held).memcg_reclaims, 0);
    assert_eq!(counters(&mut probes, &writer).memcg_reclaim_ns, 0);

    // By a stranger.
    let mut stranger = Child::start(&writer, &write);
    stranger.go();
    let seen = event(&mut ring, Kind::MemcgReclaim, held.id);
    assert_eq!(seen.value, writer.id);
    wait("time charged to the writer", || counters(&mut probes, &writer).memcg_reclaim_ns > 0);
    assert_eq!(counters(&mut probes, &writer).memcg_reclaims, 0);
    assert_eq!(counters(&mut probes, &held).memcg_reclaim_ns, 0);
}

#[test]
fn an_oom_kill_is_attributed_to_the_victim() {
    let _alone = alone();
    let (mut probes, mut ring) = load();
    let before = probes.host().expect("readable").oom_victims;
    let limited = Group::new("limited");
    let (large, small) = (limited.child("large"), limited.child("small"));
    limited.set("memory.max", "48M");
    limited.set("memory.swap.max", "0");
    let mut victim = Child::start(&large, "eat 32");
    wait("the victim is large", || victim.stat().1 > 32 * 256);
    fs::write(format!("/proc/{}/oom_score_adj", victim.pid()), "1000").expect("root may");
    // Its growth meets the limit; the other one pays.
    let grower = Child::start(&small, "eat 24");

    let seen = event(&mut ring, Kind::OomVictim, large.id);
    assert_eq!(seen.tgid, victim.pid());
    assert_ne!(grower.pid(), victim.pid());
    wait("the victim is gone", || victim.is_gone());
    // There may be more: the kernel also marks who is on its way out anyhow, and who meets the limit while the
    // victim's memory is not yet back.
    assert!(probes.host().expect("readable").oom_victims > before);
}

#[test]
fn a_shortage_of_the_host_is_charged_to_those_who_wait() {
    let _alone = alone();
    let (mut probes, mut ring) = load();
    let runs = kswapd_runs();
    let hog = Group::new("global");
    let mut eater = Child::start(&hog, "eat 1000000");
    fs::write(format!("/proc/{}/oom_score_adj", eater.pid()), "1000").expect("root may");

    event(&mut ring, Kind::DirectReclaim, hog.id);
    wait("a stay in direct reclaim", || {
        let counted = counters(&mut probes, &hog);
        counted.direct_reclaims > 0 && counted.direct_reclaim_ns > 0
    });
    eater.kill();
    let host = probes.host().expect("readable");
    // Without swap kswapd may have given up in an earlier shortage, and is not woken then.
    let rests = kswapd_runs() == runs;
    assert!(host.direct_reclaims > 0 && (host.kswapd_wakes > 0 || rests), "{host:?}");
}

/// How often kswapd has set out to reclaim.
fn kswapd_runs() -> u64 {
    let vmstat = fs::read_to_string("/proc/vmstat").expect("every kernel has it");
    let runs = vmstat.lines().find_map(|line| line.strip_prefix("pageoutrun ")?.parse().ok());
    runs.expect("kswapd is counted")
}

#[test]
fn a_major_fault_is_charged_to_its_cgroup() {
    if fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count() < 2 {
        return skip(
            "probes::a_major_fault_is_charged_to_its_cgroup",
            "no swap, and the guest runs from memory: no fault can be major",
        );
    }
    let _alone = alone();
    let (mut probes, _ring) = load();
    let group = Group::new("swapped");
    let mut toucher = Child::start(&group, "touch 16");
    // Not by its faults: with transparent huge pages there are few.
    wait("16 MiB held", || {
        let current = fs::read_to_string(group.file("memory.current")).unwrap_or_default();
        current.trim().parse::<u64>().is_ok_and(|bytes| bytes >= 16 << 20)
    });
    let _ = fs::write(group.file("memory.reclaim"), "12M");
    toucher.go();
    wait("major faults", || counters(&mut probes, &group).major_faults > 100);
}

#[test]
fn the_gate_stops_its_targets_and_nobody_else() {
    let _alone = alone();
    let (mut probes, mut ring) = load();
    let [target, bystander, protected] = ["target", "bystander", "protected"].map(Group::new);
    protected.set("memory.high", "24M");
    protected.set("memory.swap.max", "0");
    let (stopped, free) = (Child::start(&target, "churn"), Child::start(&bystander, "churn"));
    wait("both run", || stopped.stat().1 > 20_000 && free.stat().1 > 20_000);

    // Unarmed: reclaim stops nobody, and faults are not counted.
    let mut eater = Child::start(&protected, "eat 40");
    event(&mut ring, Kind::MemcgReclaim, protected.id);
    assert_eq!(counters(&mut probes, &target).minor_faults, 0);
    eater.kill();

    // Armed: counted, and still nobody is stopped before there is reclaim.
    probes.arm(&[target.id], &[protected.id]).expect("can be armed");
    wait("faults are counted", || counters(&mut probes, &target).minor_faults > 1000);
    assert_eq!(counters(&mut probes, &target).gate_stops, 0);
    let mut eater = Child::start(&protected, "eat 40");
    let seen = event(&mut ring, Kind::GateStop, target.id);
    assert_eq!(seen.tgid, stopped.pid());
    wait("the target is stopped", || stopped.stat().0 == 'T');
    assert!(counters(&mut probes, &target).gate_stops > 0);
    let (_, faults) = free.stat();
    wait("the bystander runs", || free.stat().1 > faults + 10_000);
    eater.kill();

    // Lowered: it runs again, and a new reclaim stops it again.
    probes.reset_gate().expect("writable");
    continues(&stopped);
    let _eater = Child::start(&protected, "eat 40");
    wait("the target is stopped again", || stopped.stat().0 == 'T');

    // Disarmed, with reclaim going on.
    probes.disarm().expect("writable");
    continues(&stopped);
    let counted = counters(&mut probes, &target).minor_faults;
    continues(&stopped);
    assert_eq!(counters(&mut probes, &target).minor_faults, counted, "the page fault is left alone");
}

#[test]
fn the_gate_goes_with_its_owner() {
    let _alone = alone();
    let [target, protected] = ["target", "protected"].map(Group::new);
    protected.set("memory.high", "24M");
    protected.set("memory.swap.max", "0");
    let churn = Child::start(&target, "churn");
    {
        let (mut probes, _ring) = load();
        probes.arm(&[target.id], &[protected.id]).expect("can be armed");
    }
    let _eater = Child::start(&protected, "eat 40");
    wait("reclaim", || {
        fs::read_to_string(protected.file("memory.events")).is_ok_and(|events| !events.contains("high 0"))
    });
    continues(&churn);
}

#[test]
fn a_removed_cgroup_is_forgotten() {
    let _alone = alone();
    let (mut probes, mut ring) = load();
    let hog = Group::new("removed");
    hog.set("memory.high", "8M");
    let eater = Child::start(&hog, "eat 16");
    event(&mut ring, Kind::MemcgReclaim, hog.id);
    let id = hog.id;
    drop((eater, hog));
    wait("its counters are dropped", || !probes.read().expect("readable").contains_key(&id));
    // Room can be made ahead of the first event.
    probes.watch(id).expect("room");
    assert_eq!(probes.read().expect("readable")[&id], Counters::default());
    probes.forget(id);
    assert!(!probes.read().expect("readable").contains_key(&id));
}

/// Sends SIGCONT and sees the child fault on.
fn continues(child: &Child) {
    let pid = Pid::from_raw(child.pid().cast_signed()).expect("a pid");
    kill_process(pid, Signal::CONT).expect("it lives");
    let (_, faults) = child.stat();
    wait("the child goes on", || child.stat().1 > faults + 5_000);
}

fn threads(child: &Child) -> Vec<u32> {
    // libtest runs a test on a thread of its own, which comes a little after the process.
    let mut tids = Vec::new();
    wait("the child's threads", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.pid())).expect("it lives");
        tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
        tids.len() > 1
    });
    tids
}

/// Whether the kernel has let the child out of the write: it sleeps in its last loop.
fn is_done(child: &Child) -> bool {
    threads(child).iter().any(|tid| {
        fs::read_to_string(format!("/proc/{}/task/{tid}/wchan", child.pid()))
            .is_ok_and(|at| at.contains("nanosleep"))
    })
}
