//! Single behaviours, each on a machine made for it.

use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::{Act, ActResult, Outcome, Tier};
use plimsoll_policy::sample::{Preference, Qos, Rung, Sample, Trigger, WorkloadId};
use plimsoll_policy::units::{Share, Span};

use plimsoll_model::machine::{Habit, Machine};

/// What a look at a pass is to be told of: when each rung of one workload began, in milliseconds.
fn rungs(machine: &mut Machine, id: &WorkloadId, ms: u64) -> Vec<(u64, Rung)> {
    let mut seen = vec![];
    let mut last = Rung::Free;
    machine.run(ms, |sample, pass| {
        let rung = pass.plan.workloads[id].rung;
        if rung != last {
            seen.push((sample.at.0 / 1_000_000 - 10_000, rung));
            last = rung;
        }
    });
    seen
}

fn sample_and_pass(machine: &mut Machine) -> (Sample, Pass) {
    let mut last = None;
    machine.run(200, |sample, pass| last = Some((sample.clone(), pass.clone())));
    last.unwrap()
}

/// A machine on which the batch job is frozen, and its id.
fn frozen() -> (Machine, WorkloadId) {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 80, 240, Habit::Idle);
    let id = machine.add("batch", 0, 20, 0, Habit::Grow { rate: 400, from_ms: 500, until: 900 });
    let seen = rungs(&mut machine, &id, 3000);
    assert_eq!(seen.last().map(|(_, r)| *r), Some(Rung::Freeze));
    (machine, id)
}

#[test]
fn the_model_of_a_protected_service_is_not_available() {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 300, 500, Habit::Idle);
    let (sample, pass) = sample_and_pass(&mut machine);
    let available = sample.host.meminfo.unwrap().available;
    assert!(available > plimsoll_policy::units::Bytes::mib(600), "the kernel calls most of it available");
    assert!(pass.assessment.used > Some(Share::percent(88)));
}

#[test]
fn those_who_matter_more_are_thawed_first_and_one_at_a_time() {
    let mut machine = Machine::new(2000, 0);
    let burst = Habit::Burst { rate: 400, from_ms: 500, until: 900, drop_ms: 4000 };
    machine.add("service", 1000, 400, 240, burst);
    let low = machine.add("low", 0, 100, 0, Habit::Grow { rate: 200, from_ms: 500, until: 260 });
    let high = machine.add("high", 50, 100, 0, Habit::Grow { rate: 200, from_ms: 500, until: 260 });
    let mut freed = vec![];
    machine.run(90_000, |sample, pass| {
        for id in [&low, &high] {
            let rung = pass.plan.workloads[id].rung;
            let held = freed.iter().any(|(other, _)| other == id);
            match (rung, held) {
                (Rung::Throttle | Rung::Freeze, false) => freed.push((id.clone(), None)),
                (Rung::Free, true) => {
                    let entry = freed.iter_mut().find(|(other, at)| other == id && at.is_none());
                    entry.into_iter().for_each(|(_, at)| *at = Some(sample.at));
                }
                _ => {}
            }
        }
    });
    let when = |id: &WorkloadId| freed.iter().find(|(other, _)| other == id).and_then(|(_, at)| *at);
    let (low, high) =
        (when(&low).expect("low was held and freed"), when(&high).expect("high was held and freed"));
    assert!(high < low && low.since(high) >= Span::secs(2), "high {high:?}, low {low:?}");
}

#[test]
fn a_victim_that_does_not_die_does_not_stop_the_next_kill() {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 80, 200, Habit::Grow { rate: 10, from_ms: 500, until: 900 });
    machine.config.ladder.kill_deadline = Span::millis(500);
    let stuck = machine.add("stuck", 0, 200, 0, Habit::Idle);
    let next = machine.add("next", 5, 200, 0, Habit::Idle);
    machine.processes.get_mut(&stuck).unwrap().immortal = true;
    let mut kills = vec![];
    machine.run(30_000, |sample, pass| {
        for (id, _) in pass.plan.workloads.iter().filter(|(_, w)| w.kill) {
            if !kills.iter().any(|(other, _)| other == id) {
                kills.push((id.clone(), sample.at));
            }
        }
    });
    let [(first, at), (second, later)] = &kills[..] else { panic!("two kills, not {kills:?}") };
    assert_eq!((first, second), (&stuck, &next));
    assert!(later.since(*at) >= Span::millis(500));
    assert_eq!(machine.oom, [""; 0]);
}

#[test]
fn what_the_gate_stopped_is_taken_over() {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 80, 240, Habit::Idle);
    let id = machine.add("batch", 0, 20, 0, Habit::Grow { rate: 300, from_ms: 0, until: 900 });
    let mut armed = None;
    machine.run(600, |sample, pass| {
        if pass.plan.gate.targets.contains(&id) && pass.plan.workloads[&id].rung == Rung::Free {
            armed.get_or_insert((sample.clone(), pass.state.clone()));
        }
    });
    let (mut sample, state) = armed.expect("the gate was armed first");
    sample.at = sample.at + Span::millis(5);
    sample.workloads.get_mut(&id).unwrap().frozen = Some(true);
    let pass = step(&machine.config, state, &sample);
    assert_eq!((pass.plan.workloads[&id].rung, pass.findings), (Rung::Freeze, vec![]));
}

#[test]
fn shutdown_and_a_changed_configuration_let_go_at_once() {
    let (mut machine, id) = frozen();
    let (mut sample, pass) = sample_and_pass(&mut machine);
    sample.at = sample.at + Span::millis(50);
    sample.trigger = Trigger::Shutdown;
    let last = step(&machine.config, pass.state.clone(), &sample);
    assert!(last.plan.workloads.values().all(|w| w.rung == Rung::Free && w.low.is_none()));
    assert!(!last.plan.gate.armed());
    sample.trigger = Trigger::Reload;
    sample.workloads.get_mut(&id).unwrap().spec.preference = Preference::Omit;
    assert_eq!(step(&machine.config, pass.state, &sample).plan.workloads[&id].rung, Rung::Free);
}

#[test]
fn a_withdrawn_kill_is_forgotten_and_a_withdrawn_freeze_stands_while_it_is_needed() {
    let (mut machine, id) = frozen();
    let (mut sample, pass) = sample_and_pass(&mut machine);
    assert!(pass.assessment.tier >= Tier::Constrained);
    sample.at = sample.at + Span::millis(50);
    let withdrawn = |act| Outcome {
        workload: id.clone(),
        act,
        result: ActResult::Withdrawn,
        begun: sample.at,
        took: Span::millis(1),
        freed: None,
    };
    let (freeze, kill) = (withdrawn(Act::Freeze), withdrawn(Act::Kill));
    sample.outcomes = vec![freeze];
    let stands = step(&machine.config, pass.state.clone(), &sample);
    assert_eq!(stands.plan.workloads[&id].rung, Rung::Freeze);
    let mut state = pass.state;
    state.workloads.get_mut(&id).unwrap().held.rung = Rung::Kill;
    sample.outcomes = vec![kill];
    let back = step(&machine.config, state, &sample);
    assert_eq!(back.plan.workloads[&id].rung, Rung::Freeze, "it was frozen before");
}

#[test]
fn the_protected_get_their_working_set_while_it_lasts() {
    let (mut machine, _) = frozen();
    let service = machine.processes.keys().find(|id| id.path.ends_with("service")).cloned().unwrap();
    let (sample, pass) = sample_and_pass(&mut machine);
    assert!(pass.plan.workloads[&service].low >= sample.workloads[&service].current);
}

#[test]
fn a_freeze_ends_after_its_maximum_where_the_host_is_no_longer_critical() {
    let (mut machine, id) = frozen();
    machine.config.ladder.freeze_max = Span::secs(15);
    machine.total = 760 << 20;
    let seen = rungs(&mut machine, &id, 60_000);
    let thawed = seen.iter().find(|(_, r)| *r < Rung::Freeze).expect("thawed");
    assert!(thawed.0 < 3000 + 20_000, "{seen:?}");
}

/// When one whose probes bear 20 s of it was frozen and thawed, in milliseconds, on a machine that stays short.
fn probed(rungs: &[Rung]) -> (Machine, Vec<(u64, bool)>) {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 80, 240, Habit::Grow { rate: 40, from_ms: 3500, until: 170 });
    let id = machine.add("batch", 0, 20, 0, Habit::Grow { rate: 400, from_ms: 500, until: 900 });
    let spec = &mut machine.entry(&id).spec;
    (spec.freeze_max, spec.rungs) = (Some(Span::secs(20)), rungs.to_vec());
    let (mut seen, mut last) = (vec![], false);
    machine.run(120_000, |sample, pass| {
        let frozen = pass.plan.workloads[&id].frozen;
        if frozen != last {
            seen.push((sample.at.0 / 1_000_000 - 10_000, frozen));
            last = frozen;
        }
        assert_eq!(pass.findings, []);
    });
    (machine, seen)
}

#[test]
fn a_freeze_ends_before_a_probe_fails_and_the_next_one_waits_until_one_has_succeeded() {
    let (machine, seen) = probed(&Rung::ALL);
    let (begun, mut thawed) = (seen[0].0, vec![]);
    // Two freezes that follow each other closely are one to a probe.
    let spell = seen.iter().take_while(|(at, _)| *at <= begun + 20_050);
    thawed.extend(spell.filter(|(_, frozen)| !frozen).map(|(at, _)| *at));
    assert_eq!(thawed.last(), Some(&(begun + 20_000)), "{seen:?}");
    let later: Vec<_> = seen.iter().skip(thawed.len() * 2 - 1).map(|(at, _)| *at).collect();
    assert!(later.len() >= 5 && later.windows(2).all(|pair| pair[1] - pair[0] == 20_000), "{seen:?}");
    assert_eq!((machine.killed, machine.oom), (vec![], Vec::<String>::new()));
}

#[test]
fn where_nothing_else_holds_it_the_end_of_a_freeze_is_a_kill_as_ever() {
    let (machine, seen) = probed(&[Rung::Freeze, Rung::Kill]);
    assert!(seen.iter().all(|(at, frozen)| *frozen || *at <= seen[0].0 + 20_050), "{seen:?}");
    assert_eq!(machine.killed, ["batch"]);
}

#[test]
fn one_that_may_not_be_frozen_is_none_the_worse_for_its_probes() {
    let (machine, seen) = probed(&[Rung::Trim, Rung::Throttle]);
    assert_eq!((seen, machine.killed), (vec![], Vec::<String>::new()));
}

#[test]
fn of_equal_priority_the_lower_quality_of_service_yields_first() {
    for (low, high) in [(Qos::BestEffort, Qos::Burstable), (Qos::Burstable, Qos::Guaranteed)] {
        let mut machine = Machine::new(1000, 0);
        let grow = |rate| Habit::Grow { rate, from_ms: 500, until: 900 };
        // The one that would give most has the higher quality.
        let above = machine.add("above", 0, 200, 0, grow(60));
        let below = machine.add("below", 0, 100, 0, grow(40));
        machine.entry(&above).spec.qos = high;
        machine.entry(&below).spec.qos = low;
        let (mut first, mut stopped) = (None, vec![]);
        machine.run(20_000, |_, pass| {
            let braked =
                [&above, &below].into_iter().find(|id| pass.plan.workloads[id].rung >= Rung::Throttle);
            first = first.take().or(braked.cloned());
            stopped.extend(pass.plan.gate.targets.clone());
            assert_eq!(pass.findings, []);
        });
        assert_eq!(first, Some(below.clone()));
        assert!(!stopped.contains(&above), "the gate stops the lowest only");
    }
}
