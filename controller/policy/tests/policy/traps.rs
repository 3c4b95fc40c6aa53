//! The traps that other controllers fell into, each in a world made for it and checked for what has to happen there.
//! `docs/traps.md` says where each of them is decided.

use plimsoll_model::{Habit, Machine};
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{Act, ActResult, Outcome, Tier};
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};
use plimsoll_policy::units::{Bytes, Span};

const HOG: Habit = Habit::Grow { rate: 200, from_ms: 1000, until: 900 };

/// A service that is protected, and nothing else.
fn served(swap: u64) -> Machine {
    let mut machine = Machine::new(1000, swap);
    machine.add("service", 1000, 80, 200, Habit::Idle);
    machine
}

/// Every pass of some time.
fn passes(machine: &mut Machine, ms: u64) -> Vec<(Sample, Pass)> {
    let mut seen = Vec::new();
    machine.run(ms, |sample, pass| seen.push((sample.clone(), pass.clone())));
    seen
}

/// When each rung of one workload began.
fn rungs(passes: &[(Sample, Pass)], id: &WorkloadId) -> Vec<(Span, Rung)> {
    let begun = passes[0].0.at;
    let mut rungs = vec![(Span::ZERO, Rung::Free)];
    for (sample, pass) in passes {
        let rung = pass.plan.workloads[id].rung;
        if rungs.last().is_some_and(|(_, last)| *last != rung) {
            rungs.push((sample.at.since(begun), rung));
        }
    }
    rungs
}

fn did_nothing(passes: &[(Sample, Pass)]) {
    for (sample, pass) in passes {
        let touched = pass.plan.workloads.iter().find(|(_, w)| w.rung >= Rung::Throttle);
        assert_eq!(touched, None, "at {}", sample.at.0);
    }
}

#[test]
fn t01_a_limit_that_only_torments_is_withdrawn_within_a_second() {
    let mut machine = served(0);
    let hog = machine.add("hog", 0, 20, 0, HOG);
    machine.entry(&hog).spec.rungs = vec![Rung::Throttle];
    let seen = rungs(&passes(&mut machine, 6000), &hog);
    let throttles = seen.windows(2).filter(|pair| pair[0].1 == Rung::Throttle);
    let lasted: Vec<_> = throttles.map(|pair| Span(pair[1].0.0 - pair[0].0.0)).collect();
    assert!(!lasted.is_empty() && lasted.iter().all(|span| *span <= Span::millis(1050)), "{seen:?}");
}

#[test]
fn t06_a_limit_is_a_share_of_what_the_workload_has() {
    let mut machine = served(900);
    let small = machine.add("small", 0, 60, 0, Habit::Grow { rate: 60, from_ms: 1000, until: 300 });
    let large = machine.add("large", 0, 300, 0, Habit::Grow { rate: 60, from_ms: 1000, until: 600 });
    for id in [&small, &large] {
        machine.entry(id).spec.rungs = vec![Rung::Throttle];
    }
    let mut limits = 0;
    for (sample, pass) in passes(&mut machine, 20_000) {
        for id in [&small, &large] {
            let (current, high) = (sample.workloads[id].current, pass.plan.workloads[id].high);
            if let (Some(current), Some(high)) = (current, high) {
                limits += 1;
                assert!(high.0 >= current.0 / 2, "{id}: {high} where it has {current}");
            }
        }
    }
    assert!(limits > 0, "nobody was throttled");
}

#[test]
fn t07_a_burst_is_answered_before_an_average_over_ten_seconds_would_move() {
    let mut machine = served(0);
    let hog = machine.add("hog", 0, 20, 0, Habit::Grow { rate: 700, from_ms: 1000, until: 900 });
    let seen = rungs(&passes(&mut machine, 3000), &hog);
    let first = seen.iter().find(|(_, rung)| *rung >= Rung::Throttle);
    assert!(first.is_some_and(|(at, _)| *at < Span::millis(2000)), "{seen:?}");
    assert!(machine.killed.is_empty() && machine.oom.is_empty());
}

#[test]
fn t10_the_first_stall_alone_stops_nobody() {
    let mut machine = served(0);
    let job = machine.add("job", 0, 100, 0, Habit::Idle);
    machine.run(2000, |_, _| {});
    // All that a trigger would have seen: a counter that jumps once.
    machine.psi_us += 900_000;
    machine.processes.values_mut().for_each(|p| p.psi_us += 900_000);
    let seen = passes(&mut machine, 3000);
    did_nothing(&seen);
    assert_eq!(rungs(&seen, &job).last().map(|(_, rung)| *rung), Some(Rung::Free));
}

#[test]
fn t11_without_pressure_files_the_rest_still_decides() {
    let mut machine = served(0);
    machine.add("hog", 0, 20, 0, HOG);
    let config = machine.config.clone();
    let mut state = plimsoll_policy::state::State::default();
    let mut worst = Tier::Normal;
    machine.run(10_000, |sample, _| {
        let mut blind = sample.clone();
        blind.host.psi = None;
        blind.workloads.values_mut().for_each(|w| w.psi = None);
        let pass = plimsoll_policy::pass::step(&config, std::mem::take(&mut state), &blind);
        worst = worst.max(pass.assessment.tier);
        assert_eq!(pass.assessment.stall, None, "what can't be read is not calm");
        state = pass.state;
    });
    assert!(worst >= Tier::Constrained, "{worst}");
}

#[test]
fn t12_full_swap_with_memory_to_spare_is_no_emergency() {
    let mut machine = served(300);
    let old = machine.add("old", 0, 40, 0, Habit::Idle);
    // Ninety per cent of the swap has been used since last week, and nobody asks for it.
    machine.entry(&old).swap = 270 << 20;
    did_nothing(&passes(&mut machine, 60_000));
}

#[test]
fn t14_who_reads_a_lot_is_not_who_holds_a_lot() {
    let mut machine = Machine::new(1000, 0);
    let grow = Habit::Burst { rate: 150, from_ms: 1000, until: 400, drop_ms: 9000 };
    machine.add("service", 1000, 80, 200, grow);
    machine.add("reader", 0, 30, 0, Habit::Scan { rate: 300 });
    machine.add("hoard", 0, 420, 0, Habit::Idle);
    machine.run(9000, |_, _| {});
    assert_eq!(machine.killed, ["hoard"]);
    assert!(machine.oom.is_empty());
}

#[test]
fn t15_many_small_ones_still_have_a_last_resort() {
    let mut machine = Machine::new(1000, 0);
    let grow = Habit::Grow { rate: 60, from_ms: 1000, until: 500 };
    machine.add("service", 1000, 80, 200, grow);
    for n in 0..30 {
        machine.add(&format!("leaf{n}"), 0, 16, 0, Habit::Idle);
    }
    machine.run(12_000, |_, _| {});
    assert!(!machine.killed.is_empty(), "nobody was small enough to be overlooked");
    assert!(machine.oom.is_empty(), "{:?}", machine.oom);
}

#[test]
fn t16_one_kill_is_enough_where_one_is_enough() {
    let mut machine = Machine::new(1000, 0);
    let burst = Habit::Burst { rate: 150, from_ms: 1000, until: 300, drop_ms: 60_000 };
    machine.add("service", 1000, 80, 200, burst);
    machine.add("first", 0, 300, 0, Habit::Idle);
    machine.add("second", 10, 200, 0, Habit::Idle);
    machine.run(12_000, |_, _| {});
    assert_eq!(machine.killed, ["first"]);
}

#[test]
fn t22_t24_no_freeze_is_forgotten() {
    let mut machine = served(0);
    machine.config.ladder.freeze_max = Span::secs(10);
    let hog = machine.add("hog", 0, 20, 0, HOG);
    let seen = rungs(&passes(&mut machine, 120_000), &hog);
    let freezes = seen.windows(2).filter(|pair| pair[0].1 == Rung::Freeze);
    let lasted: Vec<_> = freezes.map(|pair| Span(pair[1].0.0 - pair[0].0.0)).collect();
    assert!(lasted.iter().all(|span| *span <= Span::secs(22)), "{seen:?}");
    assert!(seen.iter().any(|(_, rung)| *rung == Rung::Freeze), "{seen:?}");
}

#[test]
fn t26_t27_a_value_of_somebody_else_s_starts_no_fight() {
    let mut machine = served(0);
    let hog = machine.add("hog", 0, 20, 0, HOG);
    machine.entry(&hog).spec.rungs = vec![Rung::Throttle];
    let config = machine.config.clone();
    let mut state = plimsoll_policy::state::State::default();
    let mut sets = 0;
    let mut last = None;
    machine.run(20_000, |sample, pass| {
        let mut sample = sample.clone();
        if let Some(high) = pass.plan.workloads[&hog].high {
            sample.outcomes.push(Outcome {
                workload: hog.clone(),
                act: Act::High(plimsoll_policy::units::Limit::Bytes(high)),
                result: ActResult::Foreign,
                begun: sample.at,
                took: Span::millis(1),
                freed: None,
            });
        }
        let decided = plimsoll_policy::pass::step(&config, std::mem::take(&mut state), &sample);
        let high = decided.plan.workloads[&hog].high;
        sets += usize::from(high != last && high.is_some());
        last = high;
        state = decided.state;
    });
    assert!((1..=20).contains(&sets), "{sets} values in 20 s");
}

#[test]
fn t31_readings_from_before_a_gap_kill_nobody() {
    let mut machine = served(0);
    machine.add("hog", 0, 20, 0, Habit::Grow { rate: 150, from_ms: 1000, until: 600 });
    machine.gap = 2000..60_000;
    let seen = passes(&mut machine, 20_000);
    let begun = seen[0].0.at;
    for (sample, pass) in seen.iter().filter(|(s, _)| s.at.since(begun) >= Span::millis(2000)) {
        let killed = pass.plan.workloads.values().any(|w| w.kill);
        assert!(!killed, "at {} nothing could be read", sample.at.0);
    }
}

#[test]
fn t33_swap_that_comes_and_goes_is_seen_in_the_next_pass() {
    let mut machine = served(600);
    let job = machine.add("job", 0, 300, 0, Habit::Idle);
    machine.run(1000, |_, _| {});
    machine.entry(&job).spec.rungs = vec![Rung::Throttle];
    machine.swap_total = 0;
    machine.entry(&job).habit = Habit::Grow { rate: 200, from_ms: 2000, until: 800 };
    let mut limits = 0;
    for (sample, pass) in passes(&mut machine, 8000) {
        let (Some(stat), Some(high)) = (sample.workloads[&job].stat, pass.plan.workloads[&job].high) else {
            continue;
        };
        assert_eq!(sample.host.meminfo.map(|m| m.swap_total), Some(Bytes::ZERO));
        limits += 1;
        assert!(high + Bytes::mib(1) >= stat.anon, "{high} set where {} has nowhere to go", stat.anon);
    }
    assert!(limits > 0, "it was never throttled");
}

#[test]
fn t34_without_probes_nothing_waits_for_them() {
    let mut machine = served(0);
    let hog = machine.add("hog", 0, 20, 0, HOG);
    let seen = passes(&mut machine, 6000);
    assert!(
        seen.iter().all(|(s, _)| s.host.probes.is_none() && s.workloads.values().all(|w| w.probes.is_none()))
    );
    assert!(rungs(&seen, &hog).iter().any(|(_, rung)| *rung >= Rung::Throttle));
    assert!(machine.oom.is_empty());
}
