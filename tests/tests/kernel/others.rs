//! Acting where others write too: what they overwrite is set again with patience, what they lower is never raised, and what
//! stands there at the end is their newest wish.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::act::Actor;
use plimsoll::act::mail::{Inbox, Message, mail};
use plimsoll::act::others::{File, Foreign, How};
use plimsoll::act::react::Reaction;
use plimsoll::act::worker::Workers;
use plimsoll::ledger::Ledger;
use plimsoll::ledger::release::release;
use plimsoll::sense::{Counted, News, Senses, discover};
use plimsoll_policy::config::{Config, Ladder};
use plimsoll_policy::plan::{ActResult, Plan, Wanted};
use plimsoll_policy::sample::{Sample, Trigger, WorkloadId};
use plimsoll_policy::units::Bytes;

use crate::world::{Daemon, Group, available_mib, get, has_swap, wait};

/// The executor with one workload, and a plan that the test writes.
struct Bench {
    actor: Actor,
    senses: Senses,
    inbox: Inbox,
    ledger: Arc<Ledger>,
    id: WorkloadId,
    wanted: Wanted,
    /// Outcomes that say that somebody else was first.
    refused: usize,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(group: &Group) -> Self {
        let dir = tempfile::tempdir_in("/run").unwrap();
        let ledger = Arc::new(Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap());
        let (mail, inbox) = mail().unwrap();
        let workers = Workers::start(&mail, &ledger).unwrap();
        let reaction = Reaction::start(mail, workers.jobs(), Arc::clone(&ledger), None).unwrap();
        let mut actor = Actor::new(Arc::clone(&ledger), reaction, workers);
        let mut senses = Senses::open(&Config::default()).unwrap();
        let path = group.path.strip_prefix("/sys/fs/cgroup").unwrap().to_str().unwrap().to_owned();
        let found = discover::Workload { ids: vec![group.inode()], ..discover::Workload::default() };
        for (cgroup, _) in senses.update(&BTreeMap::from([(path, found)])).came {
            actor.watch(&cgroup, None).unwrap();
        }
        let id = senses.tracked().keys().next().unwrap().clone();
        let wanted = Wanted::default();
        Self { actor, senses, inbox, ledger, id, wanted, refused: 0, _dir: dir }
    }

    /// One pass of the daemon, with the plan at hand.
    fn pass(&mut self) -> Sample {
        for message in self.inbox.drain() {
            if let Message::Ended(ended) = message {
                let outcome = self.actor.ended(&ended);
                self.refused += usize::from(outcome.is_some_and(|it| it.result == ActResult::Foreign));
            }
        }
        let sample = self.senses.sample(Trigger::Timer, News::default(), &Counted::default());
        let workloads = [(self.id.clone(), self.wanted.clone())].into_iter().collect();
        let plan = Plan { workloads, ..Plan::default() };
        let outcomes = self.actor.apply(&plan, &sample, Bytes::ZERO, &Ladder::default());
        self.refused += outcomes.iter().filter(|it| it.result == ActResult::Foreign).count();
        sample
    }

    fn pass_until(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        wait(what, || {
            self.pass();
            std::thread::sleep(Duration::from_millis(15));
            done()
        });
    }

    /// Passes for a while; `each` is seen after each of them.
    fn pass_for(&mut self, time: Duration, mut each: impl FnMut()) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.pass();
            std::thread::sleep(Duration::from_millis(15));
            each();
        }
    }

    fn writes(&self, file: File, how: How) -> u64 {
        self.actor.others().writes.get(&(file, how)).copied().unwrap_or_default()
    }

    fn foreign(&self) -> Foreign {
        self.actor.others().set.get(&self.id).copied().unwrap_or_default()
    }

    /// The end of the daemon.
    fn stop(self) {
        self.actor.stop();
        let _ = release(&self.ledger);
        assert_eq!(self.ledger.entries().count(), 0);
    }
}

const MIB: u64 = 1 << 20;

/// What `systemctl daemon-reload`, and kubelet's resize in place, do to a scope once.
#[test]
fn what_a_reload_resets_is_set_again() {
    let group = Group::new("t-reload");
    let _child = group.idle_on(30);
    let mut bench = Bench::new(&group);
    bench.wanted = Wanted { high: Some(Bytes::mib(64)), low: Some(Bytes::mib(16)), ..Wanted::default() };
    let ours = || (group.number("memory.high"), group.number("memory.low")) == (64 * MIB, 16 * MIB);
    bench.pass_until("ours stands", ours);
    group.write("memory.high", "max");
    group.write("memory.low", "0");
    let reset = Instant::now();
    bench.pass_until("ours stands again", ours);
    assert!(reset.elapsed() >= Duration::from_secs(1), "it is theirs for a moment");
    assert_eq!((bench.writes(File::High, How::Reset), bench.writes(File::Low, How::Reset)), (1, 1));
    assert_eq!(bench.refused, 2, "the policy hears of it");
    bench.wanted = Wanted::default();
    bench.pass_until("what was found is there", || {
        (&*group.read("memory.high"), &*group.read("memory.low")) == ("max", "0")
    });
    bench.stop();
}

/// Theirs is the ceiling from then on, and stays.
#[test]
fn what_somebody_lowered_is_never_raised() {
    let group = Group::new("t-lowered");
    let mut bench = Bench::new(&group);
    bench.wanted.high = Some(Bytes::mib(64));
    bench.pass_until("ours stands", || group.number("memory.high") == 64 * MIB);
    group.write("memory.high", &(48 * MIB).to_string());
    bench.pass_for(Duration::from_secs(3), || assert_eq!(group.number("memory.high"), 48 * MIB));
    assert_eq!(bench.writes(File::High, How::Lowered), 1);
    assert!(bench.foreign().contains(Foreign::HIGH), "and it is said whose it is");
    bench.wanted.high = Some(Bytes::mib(32));
    bench.pass_until("below theirs ours may go", || group.number("memory.high") == 32 * MIB);
    bench.wanted.high = None;
    bench.pass_until("theirs is put back", || group.number("memory.high") == 48 * MIB);
    bench.stop();
    assert_eq!(group.number("memory.high"), 48 * MIB);
}

/// Somebody else's newest wish is what is put back, also by who comes after a crash.
#[test]
fn the_newest_value_of_others_is_put_back() {
    let group = Group::new("t-newest");
    let mut bench = Bench::new(&group);
    bench.wanted = Wanted { high: Some(Bytes::mib(64)), low: Some(Bytes::mib(32)), ..Wanted::default() };
    let ours = || (group.number("memory.high"), group.number("memory.low")) == (64 * MIB, 32 * MIB);
    bench.pass_until("ours stands", ours);
    group.write("memory.high", &(96 * MIB).to_string());
    group.write("memory.low", &(8 * MIB).to_string());
    bench.pass_until("ours stands again", ours);
    assert_eq!((bench.writes(File::High, How::Raised), bench.writes(File::Low, How::Lowered)), (1, 1));
    // No orderly end: what the guardian does.
    let released = release(&bench.ledger);
    assert_eq!(released.limits.len(), 2, "{released:?}");
    assert_eq!(group.number("memory.high"), 96 * MIB);
    assert_eq!(group.number("memory.low"), 8 * MIB);
    bench.stop();
}

/// Whoever writes ten times a second is given in to, ever longer; what else the plan has in hand works all the same.
#[test]
fn there_is_no_fight() {
    let group = Group::new("t-fight");
    let _child = group.idle_on(30);
    let mut bench = Bench::new(&group);
    bench.wanted = Wanted { high: Some(Bytes::mib(64)), frozen: true, ..Wanted::default() };
    let (mut last, mut changes) = (Instant::now(), 0);
    let mut ours = false;
    bench.pass_for(Duration::from_secs(20), || {
        let stands = group.number("memory.high") == 64 * MIB;
        changes += u32::from(stands && !ours);
        ours = stands;
        if last.elapsed() >= Duration::from_millis(100) {
            group.write("memory.high", "max");
            (last, ours) = (Instant::now(), false);
        }
    });
    assert!((2..=6).contains(&changes), "ours was written {changes} times in 20 s");
    assert!(group.is_frozen(), "the next rung works");
    bench.wanted = Wanted::default();
    bench.pass_until("thawed", || !group.is_frozen());
    bench.stop();
}

/// `runc resume` while we hold it.
#[test]
fn what_somebody_thaws_runs_for_a_while() {
    let group = Group::new("t-thawed");
    let _child = group.idle_on(20);
    let mut bench = Bench::new(&group);
    bench.wanted.frozen = true;
    bench.pass_until("frozen", || group.is_frozen());
    group.write("cgroup.freeze", "0");
    let thawed = Instant::now();
    bench.pass_until("frozen again", || group.is_frozen());
    assert!(thawed.elapsed() >= Duration::from_secs(1));
    assert_eq!((bench.writes(File::Freeze, How::Thawed), bench.refused), (1, 1));
    bench.wanted.frozen = false;
    bench.pass_until("thawed", || !group.is_frozen());
    bench.stop();
}

/// `docker pause`, and then our freeze, our thaw and our end.
#[test]
fn what_was_paused_before_us_stays_paused() {
    let group = Group::new("t-paused");
    let _child = group.idle_on(20);
    group.write("cgroup.freeze", "1");
    wait("it is paused", || group.is_frozen());
    let mut bench = Bench::new(&group);
    bench.pass();
    assert_eq!(bench.foreign(), Foreign::FROZEN);
    bench.wanted.frozen = true;
    bench.pass_for(Duration::from_millis(500), || ());
    bench.wanted.frozen = false;
    bench.pass_for(Duration::from_millis(500), || assert!(group.is_frozen(), "not ours to thaw"));
    assert_eq!(bench.ledger.entries().count(), 0);
    bench.stop();
    assert!(group.is_frozen());
}

/// What kubelet sets since 1.28, and with MemoryQoS.
#[test]
fn what_kubelet_sets_is_declared_and_stays() {
    let group = Group::new("t-kubelet");
    group.write("memory.oom.group", "1");
    group.write("memory.min", "4194304");
    group.write("memory.high", &(256 * MIB).to_string());
    let mut expected = Foreign::OOM_GROUP | Foreign::MIN | Foreign::HIGH;
    if group.path.join("memory.swap.max").exists() {
        group.write("memory.swap.max", "0");
        expected |= Foreign::NO_SWAP;
    }
    let mut bench = Bench::new(&group);
    bench.pass();
    assert_eq!(bench.foreign(), expected);
    bench.wanted = Wanted { high: Some(Bytes::mib(64)), low: Some(Bytes::mib(16)), ..Wanted::default() };
    bench.pass_until("ours stands", || group.number("memory.high") == 64 * MIB);
    bench.pass();
    assert_eq!(bench.foreign(), expected, "what is below ours is still theirs, and ours is not");
    bench.stop();
    let files = ["memory.oom.group", "memory.min", "memory.high", "memory.low"];
    assert_eq!(files.map(|file| group.number(file)), [1, 4 * MIB, 256 * MIB, 0]);
}

/// A pod slice to which kubelet grants something: ours comes on top, and goes again.
#[test]
fn an_ancestor_keeps_what_it_was_granted() {
    let pod = Group::new("t-pod");
    pod.write("cgroup.subtree_control", "+memory");
    pod.write("memory.low", &(8 * MIB).to_string());
    let group = Group::new("t-pod/container");
    let mut bench = Bench::new(&group);
    bench.wanted.low = Some(Bytes::mib(32));
    bench.pass_until("ours is on top", || pod.number("memory.low") == 40 * MIB);
    pod.write("memory.low", "0");
    bench.pass_until("again", || pod.number("memory.low") == 32 * MIB);
    bench.wanted.low = None;
    bench.pass_until("the newest of theirs is back", || pod.read("memory.low") == "0");
    bench.stop();
}

/// kubelet's NoSwap, with swap on the node: what can't be taken is not asked for over and over, and the throttle keeps to the floor.
#[test]
fn without_swap_for_it_alone_nothing_is_tried_in_vain() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    if has_swap() {
        batch.write("memory.swap.max", "0");
    }
    batch.write("memory.oom.group", "1");
    let mut low = batch.idle_on((available_mib() - 100) / 2);
    let held = batch.number("memory.current");
    let daemon = Daemon::start(
        "
workloads:
  - { name: chat, cgroup: t-chat, priority: 1000 }
  - { name: batch, cgroup: t-batch, priority: -10, rungs: [trim, throttle, freeze, kill] }
",
    );
    let to = ((available_mib() + 60).to_string(), "100");
    let _high = chat.workload(&["batch-job", "--idle", "--to-mib", &to.0, "--rate-mib", to.1]);
    wait("the low one is taken: nothing gentler frees its memory", || low.try_wait().unwrap().is_some());
    wait("and it is on the record", || daemon.saw("kill", "done"));
    for line in daemon.journal() {
        let Some(plans) = line["plan"]["workloads"].as_object() else { continue };
        let limits =
            plans.iter().filter(|(id, _)| id.starts_with("t-batch")).map(|(_, it)| it["high"].as_u64());
        limits
            .flatten()
            .for_each(|high| assert!(high >= held * 9 / 10, "{high} is below what can't be reclaimed"));
    }
    let vain = daemon.outcomes().iter().filter(|(act, result)| act == "reclaim" && result != "done").count();
    assert!(vain <= 4, "{vain} reclaims in vain");
    assert_eq!(chat.event("memory.events", "oom_kill"), 0);
    assert_eq!(batch.read("memory.oom.group"), "1");
    let metrics = get("/metrics").unwrap();
    assert!(
        metrics.contains("plimsoll_workload_foreign{workload=\"batch\",what=\"oom_group\"} 1"),
        "{metrics}"
    );
    assert_eq!(daemon.finish().0, Some(0));
    assert_eq!(batch.read("memory.oom.group"), "1");
    assert!(Path::new("/sys/fs/cgroup/t-batch").exists());
}
