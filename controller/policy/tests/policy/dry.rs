//! Dry runs: what is talked about, and that nothing rests on it.

use std::collections::BTreeSet;

use plimsoll_model::machine::{Habit, Machine};
use plimsoll_policy::config::DryRun;
use plimsoll_policy::plan::Would;
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::{Limit, Span};

/// A protected service, and a batch job without swap to go to.
fn machine(service: Habit, batch: (u64, Habit), dry: DryRun) -> (Machine, WorkloadId) {
    let mut machine = Machine::new(1000, 0);
    machine.config.ladder.dry_run = dry;
    machine.add("service", 1000, 80, 240, service);
    let id = machine.add("batch", 0, batch.0, 0, batch.1);
    (machine, id)
}

/// Runs, and gives what the workload was really on and every action that was talked about.
fn told(machine: &mut Machine, id: &WorkloadId, ms: u64) -> (BTreeSet<Rung>, Vec<Would>) {
    let (mut rungs, mut would) = (BTreeSet::new(), Vec::<Would>::new());
    machine.run(ms, |_, pass| {
        assert_eq!(pass.findings, []);
        let wanted = &pass.plan.workloads[id];
        rungs.insert(wanted.rung);
        if let Some(new) = wanted.would.clone().filter(|new| Some(new) != would.last()) {
            would.push(new);
        }
    });
    (rungs, would)
}

const GROWS: Habit = Habit::Grow { rate: 100, from_ms: 1000, until: 380 };
const HOG: Habit = Habit::Grow { rate: 200, from_ms: 1000, until: 900 };

#[test]
fn a_global_dry_run_touches_nothing_and_tells_of_each_action_once() {
    let (mut machine, id) = machine(Habit::Idle, (20, HOG), DryRun::Whole(true));
    let mut touched = 0;
    let mut actions = BTreeSet::new();
    machine.run(20_000, |sample, pass| {
        let free = |w: &plimsoll_policy::plan::Wanted| {
            (w.rung, w.high, w.low, w.frozen, w.kill, w.reclaim)
                == (Rung::Free, None, None, false, false, None)
        };
        touched += pass.plan.workloads.values().filter(|w| !free(w)).count();
        touched += usize::from(pass.plan.gate.armed());
        touched += sample.workloads.values().filter(|w| w.high != Some(Limit::Max)).count();
        actions.extend(pass.plan.workloads[&id].would.iter().map(|would| (would.action, would.rung)));
    });
    assert_eq!(touched, 0);
    let rungs: Vec<Rung> = actions.iter().map(|(_, rung)| *rung).collect();
    assert!(rungs.first() == Some(&Rung::Throttle) && rungs.is_sorted() && rungs.len() <= 3, "{actions:?}");
    assert_eq!((machine.killed, machine.oom), (vec![], vec!["batch".to_owned()]), "nobody stood in its way");
}

#[test]
fn a_dry_kill_leaves_its_victim_alive_and_the_rest_at_work() {
    let (mut machine, id) = machine(GROWS, (400, Habit::Idle), DryRun::Rungs(vec![Rung::Kill]));
    let (_, would) = told(&mut machine, &id, 10_000);
    assert_eq!(machine.killed, [""; 0]);
    let [kill] = &would[..] else { panic!("told once, not {would:?}") };
    assert!(kill.rung == Rung::Kill && !kill.evidence.is_empty());
}

#[test]
fn what_was_only_talked_about_is_not_believed_to_help() {
    let dry = DryRun::Rungs(vec![Rung::Freeze]);
    let (mut machine, low) = machine(Habit::Idle, (20, HOG), dry);
    let (rungs, would) = told(&mut machine, &low, 20_000);
    assert!(!rungs.contains(&Rung::Freeze), "{rungs:?}");
    assert!(would.iter().any(|would| would.rung == Rung::Freeze), "{would:?}");
    assert!(
        rungs.contains(&Rung::Throttle) && rungs.contains(&Rung::Kill),
        "the machine still fills: {rungs:?}"
    );
    assert_eq!((machine.killed, machine.oom), (vec!["batch".to_owned()], vec![]));
}

#[test]
fn nothing_harsher_is_done_where_a_dry_rung_would_do() {
    let (mut machine, id) = machine(Habit::Idle, (20, HOG), DryRun::Rungs(vec![Rung::Throttle]));
    let mut seen = vec![];
    machine.run(20_000, |_, pass| {
        let wanted = &pass.plan.workloads[&id];
        let standing = (wanted.rung, wanted.would.as_ref().map(|would| would.rung));
        if seen.last() != Some(&standing) {
            seen.push(standing);
        }
    });
    assert_eq!(seen[1], (Rung::Free, Some(Rung::Throttle)), "{seen:?}");
    assert!(seen.iter().any(|(rung, _)| *rung == Rung::Freeze), "until it would no longer do: {seen:?}");
}

#[test]
fn in_calm_the_talk_is_over() {
    let burst = Habit::Burst { rate: 200, from_ms: 500, until: 600, drop_ms: 6000 };
    let (mut machine, id) = machine(Habit::Idle, (20, burst), DryRun::Whole(true));
    let mut last = None;
    machine
        .run(40_000, |_, pass| last = Some((pass.assessment.tier, pass.plan.workloads[&id].would.clone())));
    assert_eq!(last, Some((plimsoll_policy::plan::Tier::Normal, None)));
    assert!(machine.config.ladder.hold < Span::secs(20));
}
