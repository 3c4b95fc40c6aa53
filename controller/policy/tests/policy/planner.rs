//! Whom the planner takes, with what, and what it goes by.

use plimsoll_model::machine::{Habit, MIB, Machine};
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{Act, ActResult, Outcome, Refusal, Refused, Tier, Wanted};
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Share, Span};

/// Every action that is taken within a time: the tier, who, and the plan for him.
fn actions(machine: &mut Machine, ms: u64) -> Vec<(Tier, String, Wanted)> {
    let mut taken = Vec::new();
    machine.run(ms, |sample: &Sample, pass: &Pass| {
        assert_eq!(pass.findings, []);
        for (id, wanted) in pass.plan.workloads.iter().filter(|(_, w)| w.expected.is_some()) {
            let name = sample.workloads[id].spec.name.clone();
            taken.push((pass.assessment.tier, name, wanted.clone()));
        }
    });
    taken
}

fn names(actions: &[(Tier, String, Wanted)]) -> Vec<(&str, Rung)> {
    actions.iter().map(|(_, name, wanted)| (name.as_str(), wanted.rung)).collect()
}

/// As if so many reclaims of 64 MiB had freed this much in as much time.
fn learned(machine: &mut Machine, id: &WorkloadId, times: usize, mib: u64, took: Span) {
    let (act, freed) = (Act::Reclaim(Bytes::mib(64)), Some(Bytes::mib(mib)));
    let result = ActResult::Partial;
    let outcome = Outcome { workload: id.clone(), act, result, begun: machine.at(), took, freed };
    machine.outcomes.extend(vec![outcome; times]);
}

/// A protected service that takes what is there, slowly, beside what others hold.
fn short(swap: u64) -> Machine {
    let mut machine = Machine::new(1000, swap);
    machine.add("service", 1000, 80, 100, Habit::Grow { rate: 40, from_ms: 500, until: 330 });
    machine
}

#[test]
fn anon_without_swap_is_not_trimmed_and_cache_above_it_is() {
    let mut machine = short(0);
    machine.add("idle", 0, 330, 0, Habit::Idle);
    machine.add("scanner", 5, 10, 0, Habit::Scan { rate: 300 });
    let taken = actions(&mut machine, 5000);
    assert_eq!(names(&taken), [("scanner", Rung::Trim)]);
    let idle = &taken[0].2.refused;
    assert!(idle.iter().any(|r| r.workload.path.ends_with("idle") && r.why == Refusal::Nothing), "{idle:?}");
}

#[test]
fn of_equals_the_one_that_would_really_give_more_is_taken() {
    let mut machine = short(1000);
    let locked = machine.add("locked", 0, 260, 0, Habit::Idle);
    machine.entry(&locked).locked = 250 * MIB;
    machine.add("plain", 0, 120, 0, Habit::Idle);
    assert_eq!(names(&actions(&mut machine, 4000)).first(), Some(&("plain", Rung::Trim)));
}

/// Two that look the same; of the first, reclaim has brought nothing.
fn fruitless(before: impl FnOnce(&mut Machine, &WorkloadId)) -> Vec<(Tier, String, Wanted)> {
    let mut machine = short(1000);
    let dead_end = machine.add("dead end", 0, 200, 0, Habit::Idle);
    machine.add("other", 0, 190, 0, Habit::Idle);
    machine.run(100, |_, _| ());
    learned(&mut machine, &dead_end, 5, 0, Span::secs(1));
    machine.run(100, |_, _| ());
    before(&mut machine, &dead_end);
    actions(&mut machine, 4000)
}

#[test]
fn one_of_whom_reclaim_brought_nothing_is_passed_over() {
    assert_eq!(names(&fruitless(|_, _| ()))[0], ("other", Rung::Trim));
}

/// The daemon and the workload are started anew, after so long.
fn restart(machine: &mut Machine, id: &WorkloadId, away: Span) {
    let memory = machine.state.remember(machine.at());
    machine.state = State::recall(&memory, away, machine.at());
    let process = machine.processes.remove(id).unwrap();
    machine.processes.insert(WorkloadId { inode: 900, ..id.clone() }, process);
}

#[test]
fn what_was_learned_outlives_the_daemon_and_the_workload_and_fades() {
    let soon = fruitless(|machine, id| restart(machine, id, Span::secs(60)));
    assert_eq!(names(&soon)[0], ("other", Rung::Trim));
    let next_day = fruitless(|machine, id| restart(machine, id, Span::secs(24 * 3600)));
    assert_eq!(
        names(&next_day)[0],
        ("dead end", Rung::Trim),
        "the larger one: nothing speaks against it any more"
    );
}

#[test]
fn numbers_of_actions_go_on() {
    let mut machine = short(1000);
    machine.add("batch", 0, 390, 0, Habit::Idle);
    let first = actions(&mut machine, 3000)[0].2.action;
    let memory = machine.state.remember(machine.at());
    machine.state = State::recall(&memory, Span::ZERO, machine.at());
    let later: Vec<_> = actions(&mut machine, 3000).iter().map(|(_, _, wanted)| wanted.action).collect();
    assert!(!later.is_empty() && later.iter().all(|action| *action > first), "{first} {later:?}");
}

/// A hog that swap could take in time is trimmed; one for which swap has shown to be too slow is frozen, although the tier
/// by itself calls for no more than a throttle.
#[test]
fn where_reclaim_is_too_slow_it_is_frozen_before_the_tier_says_so() {
    let hog = |speed: u64| {
        let mut machine = Machine::new(1000, 1000);
        machine.swap_speed = speed * MIB;
        machine.add("service", 1000, 330, 100, Habit::Idle);
        let hog = machine.add("hog", 0, 300, 0, Habit::Grow { rate: 20, from_ms: 500, until: 900 });
        machine.run(100, |_, _| ());
        learned(&mut machine, &hog, 6, (2 * speed).min(64), Span::secs(2));
        actions(&mut machine, 6000)
    };
    let slow = hog(2);
    let frozen = slow.iter().find(|(_, _, wanted)| wanted.rung == Rung::Freeze).expect("it is frozen");
    assert_eq!(frozen.0, Tier::Constrained);
    let why = |rung| frozen.2.refused.iter().find(|r: &&Refused| r.rung == rung).map(|r| &r.why);
    assert!(matches!(why(Rung::Trim), Some(Refusal::TooSlow { .. })), "{:?}", frozen.2.refused);
    assert!(matches!(why(Rung::Throttle), Some(Refusal::Spills { .. })), "{:?}", frozen.2.refused);
    let quick = hog(300);
    assert!(quick.iter().all(|(tier, _, w)| w.rung != Rung::Freeze || *tier > Tier::Constrained));
}

#[test]
fn memory_that_is_on_its_way_spares_the_next_one() {
    let mut machine = Machine::new(1000, 0);
    machine.add(
        "service",
        1000,
        80,
        200,
        Habit::Burst { rate: 150, from_ms: 500, until: 280, drop_ms: 9000 },
    );
    machine.add("first", 0, 230, 0, Habit::Idle);
    machine.add("second", 0, 220, 0, Habit::Idle);
    let taken = actions(&mut machine, 8000);
    assert_eq!(names(&taken), [("first", Rung::Kill)]);
    let expected = taken[0].2.expected.unwrap();
    assert_eq!((expected.bytes, expected.observations), (Bytes::mib(230), 0));
    assert!(taken[0].2.refused.iter().all(|r| r.why == Refusal::Nothing), "{:?}", taken[0].2.refused);
    assert_eq!(taken[0].2.refused.len(), 3);
}

/// A victim that does not die in time: that is remembered of its successor, who yields after his equals then.
#[test]
fn who_did_not_die_promises_little_the_next_time() {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 80, 200, Habit::Grow { rate: 100, from_ms: 500, until: 300 });
    let stuck = machine.add("stuck", 0, 400, 0, Habit::Idle);
    machine.entry(&stuck).immortal = true;
    assert_eq!(names(&actions(&mut machine, 3000)), [("stuck", Rung::Kill)]);
    let begun = machine.at();
    let (act, result, took) = (Act::Kill, ActResult::Partial, Span::secs(5));
    let outcome = Outcome { workload: stuck.clone(), act, result, begun, took, freed: Some(Bytes::ZERO) };
    machine.outcomes.push(outcome);
    machine.run(200, |_, _| ());
    let heir = WorkloadId { inode: 900, ..stuck.clone() };
    let process = machine.processes.remove(&stuck).unwrap();
    machine.processes.insert(heir.clone(), process);
    machine.run(200, |_, _| ());
    let kill = machine.state.workloads[&heir].learned.kill;
    assert_eq!((kill.mean.ratio, kill.mean.lag, kill.seen), (Share::ZERO, Span::secs(5), 1));
    assert!(kill.at > Monotonic(0));
}
