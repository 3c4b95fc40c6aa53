//! Single actions on real processes: freeze with hand-over, the bulk charge that can't be frozen, kill, PSI triggers.

use std::path::Path;
use std::sync::Arc;

use plimsoll::act::mail::{End, Ended, Inbox, Message, mail};
use plimsoll::act::react::{Look, Order, Reaction};
use plimsoll::act::worker::{Job, Workers};
use plimsoll::ledger::{Flags, Ledger, SlotId};
use plimsoll::sense::cgroup::Cgroup;
use plimsoll::sense::psi::Trigger as PsiTrigger;
use plimsoll_policy::plan::Act;
use plimsoll_policy::sample::Trigger;
use plimsoll_policy::units::{Bytes, Limit, Span};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Group, has_swap, wait};

/// The acting threads with one workload.
struct Bench {
    reaction: Reaction,
    workers: Workers,
    inbox: Inbox,
    ledger: Arc<Ledger>,
    cgroup: Arc<Cgroup>,
    slot: SlotId,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(group: &Group) -> Self {
        let dir = tempfile::tempdir_in("/run").unwrap();
        let ledger = Arc::new(Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap());
        let name = group.path.file_name().unwrap().to_str().unwrap();
        let cgroup = Arc::new(Cgroup::open(Path::new("/sys/fs/cgroup"), name).unwrap());
        let slot = ledger.claim(&cgroup.id).unwrap();
        let (mail, inbox) = mail().unwrap();
        let workers = Workers::start(&mail, &ledger).unwrap();
        let reaction = Reaction::start(mail, workers.jobs(), Arc::clone(&ledger), None).unwrap();
        let psi = PsiTrigger::LADDER.iter().find_map(|trigger| cgroup.psi_trigger(trigger).ok());
        assert!(psi.is_some(), "no PSI trigger");
        reaction.order(Order::Watch { cgroup: Arc::clone(&cgroup), slot, psi });
        Self { reaction, workers, inbox, ledger, cgroup, slot, _dir: dir }
    }

    fn inode(&self) -> u64 {
        self.cgroup.id.inode
    }

    fn end_of(&self, act: &str) -> Ended {
        let mut found = None;
        wait("the end of the action", || {
            for message in self.inbox.drain() {
                if let Message::Ended(ended) = message
                    && ended.act.name() == act
                {
                    found = Some(ended);
                }
            }
            found.is_some()
        });
        found.unwrap()
    }

    fn stop(self) {
        self.reaction.stop();
        self.workers.stop();
    }
}

fn look(millis: u64) -> Look {
    Look { enough: None, deadline: Span::millis(millis) }
}

#[test]
fn freeze_takes_effect_and_reclaim_works_while_frozen() {
    let group = Group::new("t-freeze");
    let _child = group.workload(&["batch-job", "--to-mib", "80", "--threads", "4"]);
    wait("it has grown", || group.number("memory.current") > 80 << 20);
    let bench = Bench::new(&group);
    assert!(bench.reaction.real_time.is_ok(), "{:?}", bench.reaction.real_time);
    bench.reaction.order(Order::Freeze(bench.inode(), look(60_000)));
    assert_eq!(bench.end_of("freeze").end, End::Done);
    assert!(group.is_frozen());
    assert_eq!(bench.ledger.entry(bench.slot).unwrap().flags, Flags::FROZEN);
    let job = Job::Reclaim { cgroup: Arc::clone(&bench.cgroup), budget: Bytes::mib(48) };
    assert!(bench.workers.submit(job));
    let ended = bench.end_of("reclaim");
    if has_swap() {
        assert_eq!(ended.end, End::Done);
        assert!(ended.freed.unwrap() > Bytes::mib(32), "{ended:?}");
    } else {
        assert_eq!(ended.end, End::Partial, "anonymous memory can't be reclaimed without swap");
    }
    bench.reaction.order(Order::Thaw(bench.inode()));
    assert_eq!(bench.end_of("thaw").end, End::Done);
    wait("it is thawed", || !group.is_frozen());
    assert_eq!(bench.ledger.entries().count(), 0);
    bench.stop();
}

/// What the gate does to a process, SIGSTOP, is handed over to the freezer and leaves no trace after the thaw.
#[test]
fn a_stopped_process_is_handed_over_to_the_freezer() {
    let group = Group::new("t-handover");
    let child = group.workload(&["batch-job", "--to-mib", "20"]);
    wait("it has grown", || group.number("memory.current") > 20 << 20);
    let bench = Bench::new(&group);
    bench.ledger.raise(bench.slot, Flags::STOPPED);
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    wait("it is stopped", || group.has_stopped());
    bench.reaction.order(Order::Freeze(bench.inode(), look(60_000)));
    assert_eq!(bench.end_of("freeze").end, End::Done);
    wait("it is frozen, and no longer stopped", || group.is_frozen() && !group.has_stopped());
    bench.reaction.order(Order::Thaw(bench.inode()));
    assert_eq!(bench.end_of("thaw").end, End::Done);
    wait("it runs", || !group.is_frozen() && !group.has_stopped());
    bench.stop();
}

/// A bulk charge under memory.high can't be frozen (kernel: the loop leaves only for fatal signals): freeze must end
/// at its deadline, and kill must work.
#[test]
fn a_bulk_charge_is_not_waited_for_and_can_be_killed() {
    let group = Group::new("t-bulk");
    group.write("memory.high", &(32_u64 << 20).to_string());
    group.write("memory.swap.max", "0");
    let mut child = group.workload(&["populate", "--mib", "256"]);
    wait("it is throttled", || group.event("memory.events", "high") > 20);
    let bench = Bench::new(&group);
    bench.reaction.order(Order::Freeze(bench.inode(), look(300)));
    assert_eq!(bench.end_of("freeze").end, End::Partial);
    bench.reaction.order(Order::Kill(bench.inode(), look(60_000)));
    let ended = bench.end_of("kill");
    assert_eq!(ended.end, End::Done);
    assert!(ended.freed.unwrap() > Bytes::mib(16), "{ended:?}");
    child.wait().unwrap();
    bench.stop();
}

#[test]
fn a_psi_trigger_wakes_the_pass() {
    let group = Group::new("t-psi");
    let bench = Bench::new(&group);
    group.write("memory.high", &(16_u64 << 20).to_string());
    let _child = group.workload(&["batch-job", "--to-mib", "64"]);
    wait("a PSI wake-up", || bench.inbox.drain().contains(&Message::Woke(Trigger::Psi)));
    bench.stop();
}

/// memory.high through the worker: written down first, page-aligned, never blocking the caller.
#[test]
fn a_throttle_is_set_by_a_worker_and_written_down() {
    let group = Group::new("t-high");
    let _child = group.idle_on(64);
    let bench = Bench::new(&group);
    let job = Job::High { cgroup: Arc::clone(&bench.cgroup), limit: Bytes::mib(40), slot: bench.slot };
    assert!(bench.workers.submit(job));
    let ended = bench.end_of(Act::High(Limit::Max).name());
    let entry = bench.ledger.entry(bench.slot).unwrap();
    assert_eq!(group.number("memory.high"), entry.high.set, "the ledger knows what stands in the file");
    assert_eq!(entry.high.found, u64::MAX, "and what stood there before");
    if has_swap() {
        assert_eq!(ended.end, End::Done);
        assert!(group.number("memory.current") <= 41 << 20);
    } else {
        assert_eq!(ended.end, End::Partial);
        assert!(group.number("memory.high") >= 60 << 20, "never below what can't be reclaimed");
    }
    bench.stop();
}

/// A limit that was overrun and can't be lowered stays where it is. Set anew at the present use, pass by pass, it would
/// follow the workload up and brake nothing.
#[test]
fn a_limit_does_not_follow_a_workload_that_overran_it() {
    let group = Group::new("t-overrun");
    group.write("memory.swap.max", "0");
    let _child = group.idle_on(64);
    let bench = Bench::new(&group);
    let set = |mib| {
        let (cgroup, limit) = (Arc::clone(&bench.cgroup), Bytes::mib(mib));
        assert!(bench.workers.submit(Job::High { cgroup, limit, slot: bench.slot }));
        (bench.end_of(Act::High(Limit::Max).name()).end, group.number("memory.high") >> 20)
    };
    assert_eq!(set(80), (End::Done, 80));
    let _more = group.workload(&["batch-job", "--to-mib", "64", "--rate-mib", "100"]);
    wait("it has overrun its limit", || group.number("memory.current") > 82 << 20);
    assert_eq!(set(70).1, 80, "it stands");
    assert_eq!(set(75).1, 80, "and stands again");
    assert_eq!(set(200), (End::Done, 200), "raising it is done at once");
    bench.stop();
}
