//! What a node can't hold goes to another one: when, who, what of the others meanwhile, and what if somebody says no.

use std::cell::RefCell;

use plimsoll_model::machine::{Habit, Machine};
use plimsoll_policy::config::DryRun;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{Act, ActResult, Outcome};
use plimsoll_policy::sample::{Preference, Qos, Rung, Sample, WorkloadId};
use plimsoll_policy::units::Span;

/// The API server and the node agent: answers what is asked for, and ends what it agreed to.
struct Api {
    answer: ActResult,
    /// From the answer until the process has ended, if it is not frozen.
    ends_ms: u64,
    /// When whom, by the clock of the machine.
    asked: Vec<(u64, WorkloadId)>,
    /// Number of the last one.
    action: u64,
    leaving: Vec<(WorkloadId, u64)>,
}

impl Api {
    fn new(answer: ActResult, ends_ms: u64) -> Self {
        Self { answer, ends_ms, asked: vec![], action: 0, leaving: vec![] }
    }

    /// Runs the machine under it.
    fn run(&mut self, machine: &mut Machine, ms: u64, mut look: impl FnMut(&Sample, &Pass)) {
        let api = RefCell::new((self, None::<Outcome>));
        machine.run_with(
            ms,
            |machine, sample| {
                let (api, outcome) = &mut *api.borrow_mut();
                let now = machine.now_ms;
                sample.outcomes.extend(outcome.take());
                for (id, at) in api.leaving.iter().filter(|(_, at)| *at <= now) {
                    let process = machine.processes.get_mut(id).unwrap();
                    if !process.frozen && process.dies_at.is_none() {
                        process.dies_at = Some(*at);
                    }
                }
            },
            |sample, pass| {
                let (api, outcome) = &mut *api.borrow_mut();
                let now = sample.at.0 / 1_000_000 - 10_000;
                let wanted = pass.plan.workloads.iter().find(|(_, w)| w.evict).map(|(id, _)| id);
                let action = |id| pass.state.workloads[id].eviction.as_ref().map_or(0, |it| it.action);
                if let Some(id) = wanted.filter(|id| action(id) > api.action) {
                    api.action = action(id);
                    api.asked.push((now, id.clone()));
                    let (act, result) = (Act::Evict, api.answer.clone());
                    if result == ActResult::Done {
                        api.leaving.push((id.clone(), now + api.ends_ms));
                    }
                    let (begun, took) = (sample.at, Span::millis(40));
                    *outcome = Some(Outcome { workload: id.clone(), act, result, begun, took, freed: None });
                }
                assert_eq!(pass.findings, []);
                look(sample, pass);
            },
        );
    }
}

/// A service that needs most of the machine, and two jobs that don't fit beside it.
fn crowded() -> (Machine, WorkloadId, WorkloadId) {
    let mut machine = Machine::new(2000, 0);
    machine.config.kubernetes.enabled = true;
    machine.add("service", 1000, 900, 240, Habit::Idle);
    let job = |machine: &mut Machine, name, priority| {
        let grows = Habit::Grow { rate: 100, from_ms: 500, until: 900 };
        let id = machine.add(name, priority, 200, 0, grows);
        let spec = &mut machine.entry(&id).spec;
        (spec.evictable, spec.qos) = (Some(Span::secs(5)), Qos::BestEffort);
        id
    };
    let low = job(&mut machine, "ns/low/main", -5);
    let high = job(&mut machine, "ns/high/main", 0);
    (machine, low, high)
}

#[test]
fn the_lowest_of_those_that_the_node_can_not_hold_goes_after_half_a_minute() {
    let (mut machine, low, high) = crowded();
    let mut api = Api::new(ActResult::Done, 3000);
    let (mut frozen_since, mut thawed) = (None, None);
    api.run(&mut machine, 60_000, |sample, pass| {
        let now = sample.at.0 / 1_000_000 - 10_000;
        let wanted = &pass.plan.workloads[&low];
        frozen_since = frozen_since.or((wanted.rung >= Rung::Throttle).then_some(now));
        if wanted.evict && wanted.rung < Rung::Freeze {
            thawed = thawed.or(Some((now, wanted.high, sample.workloads[&low].current)));
        }
    });
    assert_eq!(api.asked.len(), 1, "{:?}", api.asked);
    let (at, who) = &api.asked[0];
    assert_eq!(who, &low);
    let braked = at - frozen_since.unwrap();
    assert!((30_000..33_000).contains(&braked), "{braked}");
    let (thawed, high_limit, current) = thawed.unwrap();
    assert!(thawed - at < 500 && high_limit >= current, "it runs on what it has, to end in order");
    assert!(machine.processes[&low].dead && !machine.processes[&high].dead);
    assert_eq!((machine.killed, machine.oom), (vec![], Vec::<String>::new()));
}

#[test]
fn while_it_leaves_nobody_yields_in_its_place_and_it_gets_no_more() {
    let (mut machine, low, high) = crowded();
    let mut api = Api::new(ActResult::Done, 4500);
    let (mut most, mut least, mut rungs) = (0, u64::MAX, vec![]);
    api.run(&mut machine, 60_000, |sample, pass| {
        let leaves = pass.state.workloads[&low].eviction.as_ref().is_some_and(|it| it.leaves.is_some());
        if leaves && sample.workloads[&low].populated == Some(true) {
            let current = sample.workloads[&low].current.unwrap().0 >> 20;
            (most, least) = (most.max(current), least.min(current));
            rungs.push(pass.plan.workloads[&low].rung);
            assert!(!pass.plan.gate.targets.contains(&low));
        }
    });
    assert!(most <= least + 32, "from {least} to {most} MiB");
    assert!(!rungs.is_empty() && rungs.iter().skip(1).all(|rung| *rung <= Rung::Throttle), "{rungs:?}");
    assert!(machine.processes[&low].dead && !machine.processes[&high].dead);
}

#[test]
fn a_budget_that_says_no_is_asked_again_later_each_time_and_another_one_meanwhile() {
    let (mut machine, low, high) = crowded();
    let mut api = Api::new(ActResult::Blocked("the budget allows none".into()), 0);
    let mut rungs = vec![];
    api.run(&mut machine, 400_000, |_, pass| {
        rungs.extend((api_paused(pass, &low)).then(|| pass.plan.workloads[&low].rung));
    });
    let of = |id: &WorkloadId| {
        api.asked.iter().filter(|(_, who)| who == id).map(|(at, _)| *at / 1000).collect::<Vec<_>>()
    };
    let low = of(&low);
    assert!(low.len() >= 4, "{low:?}");
    let apart: Vec<_> = low.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        (30..35).contains(&apart[0]) && (60..70).contains(&apart[1]) && (120..135).contains(&apart[2]),
        "{apart:?}"
    );
    let high = of(&high);
    assert!(high.first().is_some_and(|at| (low[0]..low[1]).contains(at)), "the next one meanwhile: {high:?}");
    assert!(rungs.iter().any(|rung| *rung >= Rung::Throttle), "it stays braked");
    assert_eq!((machine.killed, machine.oom), (vec![], Vec::<String>::new()));
}

fn api_paused(pass: &Pass, id: &WorkloadId) -> bool {
    pass.state.workloads[id].eviction.as_ref().is_some_and(|it| it.pause.times > 0)
}

#[test]
fn who_does_not_go_is_a_victim_like_the_others_again() {
    let (mut machine, low, _) = crowded();
    let mut api = Api::new(ActResult::Done, 1_000_000);
    let (mut left, mut after) = (None, None);
    api.run(&mut machine, 80_000, |sample, pass| {
        let now = sample.at.0 / 1_000_000 - 10_000;
        let wanted = &pass.plan.workloads[&low];
        left = left.or(wanted.evict.then_some(now));
        after = after.or((left.is_some() && !wanted.evict).then_some(now));
    });
    let waited = after.unwrap() - left.unwrap();
    assert!((15_000..16_000).contains(&waited), "grace and margin: {waited}");
}

#[test]
fn nobody_is_evicted_who_may_not_be_or_where_nobody_wants_it() {
    let never = |change: fn(&mut Machine, &WorkloadId)| {
        let (mut machine, low, high) = crowded();
        machine.entry(&high).spec.evictable = None;
        change(&mut machine, &low);
        let mut api = Api::new(ActResult::Done, 0);
        api.run(&mut machine, 60_000, |_, pass| {
            assert!(pass.plan.workloads.values().all(|w| !w.evict));
        });
    };
    never(|machine, _| machine.config.kubernetes.enabled = false);
    never(|machine, _| machine.config.kubernetes.evict = false);
    never(|machine, id| machine.entry(id).spec.evictable = None);
    never(|machine, id| machine.entry(id).spec.preference = Preference::Omit);
    never(|machine, id| machine.entry(id).spec.rungs.retain(|rung| *rung != Rung::Kill));
    never(|machine, _| machine.config.kubernetes.evict_after = Span::secs(3600));
    never(|machine, _| machine.config.ladder.dry_run = DryRun::Rungs(vec![Rung::Kill]));
}

#[test]
fn a_dry_kill_is_a_dry_eviction() {
    let (mut machine, low, _) = crowded();
    machine.config.ladder.dry_run = DryRun::Rungs(vec![Rung::Kill]);
    let mut told = std::collections::BTreeSet::new();
    Api::new(ActResult::Done, 0).run(&mut machine, 60_000, |_, pass| {
        let would = pass.plan.workloads[&low].would.as_ref().filter(|would| would.evict);
        told.extend(would.map(|would| would.action));
    });
    assert_eq!(told.len(), 1, "it is said once");
}
