//! Asking: who is asked for what and when, what is made of the answers, and how it is undone.

use plimsoll_model::machine::{Giver, Habit, MIB, Machine, Manner};
use plimsoll_policy::concession::Level;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};

/// A model server that can be asked, beside somebody who matters more and bursts.
fn machine(giver: Giver) -> (Machine, WorkloadId) {
    let mut machine = Machine::new(2000, 0);
    let burst = Habit::Burst { rate: 60, from_ms: 1000, until: 1000, drop_ms: 30_000 };
    machine.add("service", 1000, 80, 100, burst);
    let id = machine.add("embed", 0, 700, 0, Habit::Idle);
    machine.entry(&id).giver = Some(giver);
    (machine, id)
}

fn server() -> Giver {
    Giver::new(&[(Level::Gc, 20), (Level::Aggressive, 60), (Level::Unload, 600)], 1000)
}

fn behaving(manner: Manner) -> Giver {
    let mut giver = server();
    giver.manner = manner;
    giver
}

/// Levels in the order in which they were asked for.
fn asked(machine: &Machine, id: &WorkloadId) -> Vec<Level> {
    let giver = machine.processes[id].giver.as_ref().unwrap();
    giver.asked.iter().map(|(_, level)| *level).collect()
}

/// Runs; gives every rung that a workload was on, with the second that it began in.
fn rungs(machine: &mut Machine, id: &WorkloadId, ms: u64) -> Vec<(u64, Rung)> {
    let mut seen = Vec::new();
    machine.run(ms, |sample: &Sample, pass: &Pass| {
        assert_eq!(pass.findings, []);
        let rung = pass.plan.workloads[id].rung;
        if seen.last().is_none_or(|(_, last)| *last != rung) {
            seen.push((sample.at.0 / 1_000_000_000 - 10, rung));
        }
    });
    seen
}

#[test]
fn it_is_trimmed_unloaded_and_restored() {
    let (mut machine, id) = machine(server());
    let seen = rungs(&mut machine, &id, 60_000);
    let order: Vec<Rung> = seen.iter().map(|(_, rung)| *rung).collect();
    use Rung::{Free, Offload, Trim};
    let asked = asked(&machine, &id);
    assert_eq!(order, [Free, Trim, Free, Offload, Free], "{asked:?} {seen:?}");
    assert_eq!(asked, [Level::Aggressive, Level::Unload, Level::Nothing], "{seen:?}");
    assert_eq!((machine.killed.len(), machine.oom.len()), (0, 0));
    assert!(machine.processes[&id].anon > 600 * MIB, "it has its model again");
}

#[test]
fn where_asking_fails_the_brakes_come() {
    for manner in [Manner::Fails, Manner::Lies, Manner::Silent] {
        let (mut machine, id) = machine(behaving(manner));
        rungs(&mut machine, &id, 28_000);
        assert!(asked(&machine, &id).contains(&Level::Unload), "{manner:?}");
        assert_eq!(
            (machine.killed.as_slice(), machine.oom.len()),
            (&["embed".to_owned()][..], 0),
            "{manner:?}"
        );
    }
}

/// It grows itself, and a freeze would stop that: but frozen it could not be asked any more.
#[test]
fn who_can_still_be_asked_is_not_frozen_first() {
    let mut machine = Machine::new(2000, 0);
    machine.add("service", 1000, 80, 100, Habit::Idle);
    let burst = Habit::Burst { rate: 40, from_ms: 1000, until: 1800, drop_ms: 60_000 };
    let id = machine.add("embed", 0, 900, 0, burst);
    let process = machine.entry(&id);
    process.giver = Some(server());
    process.spec.rungs = vec![Rung::Trim, Rung::Offload, Rung::Freeze, Rung::Kill];
    let seen = rungs(&mut machine, &id, 40_000);
    let first = |rung| seen.iter().position(|(_, seen)| *seen == rung);
    let (unloaded, frozen) = (first(Rung::Offload), first(Rung::Freeze));
    assert!(unloaded.is_some() && frozen.is_none_or(|at| Some(at) > unloaded), "{seen:?}");
}

/// No freeze threatens it, so there is no reason to be earlier than anybody else.
#[test]
fn one_that_no_brake_may_stop_is_asked_at_critical() {
    let mut machine = Machine::new(2000, 0);
    machine.add("service", 1000, 80, 100, Habit::Idle);
    let burst = Habit::Burst { rate: 40, from_ms: 1000, until: 1800, drop_ms: 60_000 };
    let id = machine.add("embed", 0, 900, 0, burst);
    let process = machine.entry(&id);
    process.giver = Some(server());
    process.spec.rungs = vec![Rung::Trim, Rung::Offload, Rung::Kill];
    let mut at = None;
    machine.run(40_000, |_, pass| {
        let unload = pass.plan.workloads[&id].rung == Rung::Offload;
        at = at.or(unload.then_some(pass.assessment.tier));
    });
    assert!(at.is_some_and(|tier| tier >= Tier::Critical), "{at:?}");
}
