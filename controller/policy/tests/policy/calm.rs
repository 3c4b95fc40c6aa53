//! The way down: without pulses, in order, bounded in number, and never for ever.

use plimsoll_model::machine::{Habit, Machine};
use plimsoll_policy::config::Config;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{Evidence, Tier, Wanted};
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};
use plimsoll_policy::units::{Limit, Monotonic, Span};

/// What was really done to one workload.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) former: Wanted,
    /// When it was braked, and at which tier.
    pub(crate) brakes: Vec<(Monotonic, Tier)>,
    frozen_since: Option<Monotonic>,
    pub(crate) longest_freeze: Span,
    pub(crate) held_off: Vec<(Monotonic, Vec<Evidence>)>,
}

impl Record {
    pub(crate) fn look(&mut self, id: &WorkloadId, sample: &Sample, pass: &Pass) {
        let Some(wanted) = pass.plan.workloads.get(id) else { return };
        let braked = |w: &Wanted| matches!(w.rung, Rung::Throttle | Rung::Freeze) && !w.leash;
        if braked(wanted) && !braked(&self.former) {
            self.brakes.push((sample.at, pass.assessment.tier));
        }
        // Where the host is as short as before, there is nothing better than a freeze that goes on.
        let may_end = pass.assessment.tier < Tier::Critical;
        self.frozen_since = (wanted.frozen && may_end).then(|| self.frozen_since.unwrap_or(sample.at));
        let frozen = self.frozen_since.map_or(Span::ZERO, |since| sample.at.since(since));
        self.longest_freeze = self.longest_freeze.max(frozen);
        let last = self.held_off.last().map(|(until, _)| *until);
        if let Some(until) = wanted.held_off.filter(|until| last != Some(*until)) {
            self.held_off.push((until, wanted.evidence.clone()));
        }
        self.former = wanted.clone();
    }

    /// The most brakes within any span of this length.
    pub(crate) fn most_within(&self, span: Span) -> usize {
        let within = |from: Monotonic| {
            self.brakes.iter().filter(|(at, _)| *at >= from && at.since(from) < span).count()
        };
        self.brakes.iter().map(|(at, _)| within(*at)).max().unwrap_or(0)
    }
}

fn record(machine: &mut Machine, id: &WorkloadId, ms: u64) -> Record {
    let mut record = Record::default();
    machine.run(ms, |sample, pass| {
        assert_eq!(pass.findings, []);
        record.look(id, sample, pass);
    });
    record
}

/// A job that fills the machine again and again.
fn saw(rungs: &[Rung]) -> (Machine, WorkloadId) {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 80, 240, Habit::Idle);
    let id = machine.add("job", 0, 20, 0, Habit::Saw { rate: 300, until: 700, every_ms: 4000 });
    machine.processes.get_mut(&id).unwrap().spec.rungs = rungs.to_vec();
    (machine, id)
}

const ALL: [Rung; 4] = [Rung::Trim, Rung::Throttle, Rung::Freeze, Rung::Kill];

/// The protected takes most of the memory for a while, and a job that grows fast has to wait for it.
fn passing_shortage() -> (Machine, WorkloadId) {
    let mut machine = Machine::new(4000, 0);
    let burst = Habit::Burst { rate: 400, from_ms: 500, until: 2700, drop_ms: 10_000 };
    machine.add("service", 1000, 100, 200, burst);
    let id = machine.add("job", 0, 100, 0, Habit::Grow { rate: 500, from_ms: 7500, until: 1500 });
    (machine, id)
}

#[test]
fn a_job_that_grows_fast_comes_up_without_pulses() {
    let (mut machine, id) = passing_shortage();
    let mut frozen = record(&mut machine, &id, 10_000);
    assert!(!frozen.brakes.is_empty() && frozen.former.rung >= Rung::Throttle, "it had to wait");
    let (before, mut worst, mut there) = (frozen.brakes.len(), Tier::Normal, None);
    machine.run(60_000, |sample, pass| {
        frozen.look(&id, sample, pass);
        if frozen.former.leash {
            worst = worst.max(pass.assessment.tier);
        }
        let size = sample.workloads[&id].current.map_or(0, |current| current.0 >> 20);
        if size >= 1500 && there.is_none() {
            there = Some(sample.at.0 / 1_000_000_000 - 20);
        }
    });
    assert_eq!(frozen.brakes.len(), before, "braked again: {:?}", frozen.brakes);
    assert!(there.is_some_and(|seconds| seconds < 15), "it has what it wants after {there:?} s");
    assert_eq!((frozen.former.rung, machine.killed), (Rung::Free, vec![]));
}

#[test]
fn it_is_let_go_after_one_calm_dwell_whatever_the_tier_was() {
    let (mut machine, id) = passing_shortage();
    let mut released = None;
    machine.run(30_000, |sample, pass| {
        let let_go = sample.at.0 > 20_000_000_000 && pass.plan.workloads[&id].rung < Rung::Freeze;
        if let_go && released.is_none() {
            released = Some(sample.at.0 / 1_000_000 - 20_000);
        }
    });
    assert!(
        released.is_some_and(|ms| (3000..6000).contains(&ms)),
        "{released:?} ms after the shortage ended"
    );
}

#[test]
fn the_leash_is_taken_off_and_the_old_limit_is_back() {
    let (mut machine, id) = passing_shortage();
    let mut last = None;
    machine.run(60_000, |sample, pass| {
        last = Some((sample.workloads[&id].high, pass.plan.workloads[&id].clone()));
    });
    let (high, wanted) = last.unwrap();
    assert_eq!((high, wanted.high, wanted.rung), (Some(Limit::Max), None, Rung::Free));
}

#[test]
fn one_that_fills_the_machine_again_and_again_is_held_off() {
    let (mut machine, id) = saw(&[Rung::Freeze]);
    let record = record(&mut machine, &id, 900_000);
    let (_, evidence) = record.held_off.first().expect("it was held off");
    assert!(evidence.iter().any(|e| matches!(e, Evidence::Oscillation { cycles: 3, .. })), "{evidence:?}");
    assert!(record.most_within(Span::secs(600)) <= 8, "{:?}", record.brakes);
    assert!(
        record.longest_freeze <= machine.config.ladder.freeze_max.saturating_add(Span::secs(1)),
        "and no freeze lasts longer"
    );
    assert_eq!((machine.killed, machine.oom), (vec![], vec![]));
}

#[test]
fn where_it_may_be_throttled_it_runs_while_it_is_held_off() {
    let (mut machine, id) = saw(&ALL);
    machine.total = 1400 << 20;
    let mut runs = 0;
    let mut record = Record::default();
    machine.run(600_000, |sample, pass| {
        record.look(&id, sample, pass);
        runs += u64::from(sample.workloads[&id].frozen == Some(false)) * pass.plan.next.0 / 1_000_000;
    });
    assert!(record.most_within(Span::secs(600)) <= 5, "{:?}", record.brakes);
    assert!(runs > 400_000, "it ran for {runs} ms of 600 s");
}

#[test]
fn a_spent_hour_leaves_survival_alone() {
    let (mut machine, id) = saw(&[Rung::Freeze]);
    machine.config.ladder.actions_per_hour = 2;
    machine.config.ladder.freeze_max = Span::secs(20);
    let record = record(&mut machine, &id, 600_000);
    let voluntary = record.brakes.iter().filter(|(_, tier)| *tier < Tier::Emergency).count();
    assert!(voluntary <= 2, "{:?}", record.brakes);
    assert!(record.brakes.len() > 2, "frozen in an emergency all the same");
    assert_eq!(machine.oom, [""; 0]);
}

#[test]
fn nobody_is_braked_in_place_of_one_whose_hour_is_spent() {
    let (mut machine, id) = saw(&[Rung::Freeze]);
    machine.config.ladder.actions_per_hour = 1;
    machine.config.ladder.freeze_max = Span::secs(20);
    let above = machine.add("above", 50, 60, 0, Habit::Idle);
    let mut braked = false;
    machine.run(300_000, |_, pass| braked |= pass.plan.workloads[&above].rung >= Rung::Throttle);
    assert!(!braked && machine.processes.contains_key(&id));
}

#[test]
fn the_defaults_are_those_of_the_guard() {
    let ladder = Config::default().ladder;
    assert_eq!((ladder.actions_per_hour, ladder.hold_off), (12, Span::secs(300)));
}
