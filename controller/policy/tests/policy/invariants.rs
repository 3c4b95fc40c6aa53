//! One property for each invariant that the policy can decide, over lives full of trouble, each checked from the outside: from
//! samples, plans, and the tier and the growth that a pass reports. `docs/invariants.md` says what else shows them.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_policy::concession::{Level, Wish};
use plimsoll_policy::config::Config;
use plimsoll_policy::oom::{Score, scores};
use plimsoll_policy::pass::step;
use plimsoll_policy::plan::{Act, ActResult, Tier, Wanted};
use plimsoll_policy::sample::{Preference, Qos, Rung, Sample, Spec, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Span};

use crate::corpus::holds;
use crate::lives::{Law, Sight};
use crate::properties::through_json;

/// Growth above which a workload that is let run is a better victim than one that matters more.
const FAST: i64 = 16 << 20;
fn former(plan: &BTreeMap<WorkloadId, Wanted>, id: &WorkloadId) -> Rung {
    plan.get(id).map_or(Rung::Free, |w| w.rung)
}

fn untouchable(config: &Config, workload: &Workload) -> bool {
    workload.spec.preference == Preference::Omit || workload.spec.priority >= config.protect_priority
}

fn rank(workload: &Workload) -> (bool, i32, Qos) {
    let spec = &workload.spec;
    (spec.preference == Preference::Avoid, spec.priority, spec.qos)
}

/// Whether a rung may really be used on a workload.
fn may(config: &Config, workload: &Workload, rung: Rung) -> bool {
    let ladder = &config.ladder;
    ladder.rungs.contains(&rung) && !ladder.dry_run.covers(rung) && workload.spec.rungs.contains(&rung)
}

/// Nobody is braked while one of lower priority runs free and grows, or killed while one could be killed before him.
#[derive(Default)]
struct LowestFirst {
    former: BTreeMap<WorkloadId, Wanted>,
    /// When each was braked.
    brakes: BTreeMap<WorkloadId, u32>,
}

impl Law for LowestFirst {
    fn look(&mut self, sight: &Sight<'_>) {
        let plan = &sight.pass.plan.workloads;
        for (id, wanted) in plan.iter().filter(|(id, _)| sight.sample.workloads.contains_key(*id)) {
            let was = former(&self.former, id);
            // A throttle that turns into a freeze is no new brake.
            if wanted.rung > was && (was < Rung::Throttle || wanted.kill) && !wanted.leash {
                self.nobody_below(sight, id, wanted.rung);
                *self.brakes.entry(id.clone()).or_default() += 1;
            }
        }
        self.former = plan.iter().map(|(id, w)| (id.clone(), w.clone())).collect();
    }

    fn restarted(&mut self, _: &State) {
        *self = Self::default();
    }
}

impl LowestFirst {
    fn nobody_below(&self, sight: &Sight<'_>, id: &WorkloadId, rung: Rung) {
        let Sight { config, sample, pass } = sight;
        let above = rank(&sample.workloads[id]);
        for (other, workload) in sample.workloads.iter().filter(|(_, w)| rank(w) < above) {
            if untouchable(config, workload)
                || workload.populated == Some(false)
                || workload.current.is_none()
            {
                continue;
            }
            let now = pass.plan.workloads[other].rung;
            if rung == Rung::Kill && may(config, workload, Rung::Kill) {
                let anon = workload.stat.map_or(Bytes::ZERO, |s| s.anon);
                assert!(now == Rung::Kill || anon < Bytes::mib(4), "{id} is killed before {other}");
            }
            // One whose brakes of the hour are used up is nobody's alternative.
            let spent = self.brakes.get(other).is_some_and(|n| *n >= config.ladder.actions_per_hour);
            // One that may only be throttled rests from a futile throttle; the same goes for it.
            let open = may(config, workload, rung) && may(config, workload, Rung::Freeze) && !spent;
            let growth = pass.assessment.growth.get(other).copied().unwrap_or(0);
            if matches!(rung, Rung::Throttle | Rung::Freeze) && open && growth > FAST {
                assert!(now > Rung::Free, "{id} is put on {rung} while {other} grows by {growth}");
            }
        }
    }
}

#[test]
fn invariant_1_lowest_first() {
    holds(40, LowestFirst::default);
}

/// Whether nothing is done to it; who is protected may be asked to collect its garbage.
pub(crate) fn spared(workload: &Workload, wanted: &Wanted) -> bool {
    let asked = wanted.wish.as_ref().map(|wish| wish.level);
    let done = (wanted.high, wanted.reclaim, wanted.frozen, wanted.kill) != (None, None, false, false);
    let gc = asked == Some(Level::Gc) && workload.spec.preference != Preference::Omit;
    !done && (wanted.rung == Rung::Free || (gc && wanted.rung == Rung::Trim))
}

/// Nobody is touched who may not be, and nobody in a way that is none of his or is only rehearsed.
struct OutOfBounds;

impl Law for OutOfBounds {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { config, sample, pass } = sight;
        for (id, workload) in &sample.workloads {
            let wanted = &pass.plan.workloads[id];
            let bound = untouchable(config, workload);
            assert!(!bound || spared(workload, wanted), "{id} may not be touched: {wanted:?}");
            assert!(!bound || !pass.plan.gate.targets.contains(id), "{id} may not be gated");
            let allowed = wanted.rung == Rung::Free || may(config, workload, wanted.rung);
            assert!(allowed || wanted.leash, "{id} is put on {}", wanted.rung);
        }
    }
}

#[test]
fn invariant_2_who_is_out_of_bounds_is_not_touched() {
    holds(40, || OutOfBounds);
}

/// No kill while another one is in flight.
#[derive(Default)]
struct OneKill {
    begun: BTreeMap<WorkloadId, Monotonic>,
}

impl Law for OneKill {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { config, sample, pass } = sight;
        for outcome in
            sample.outcomes.iter().filter(|o| o.act == Act::Kill && o.result == ActResult::Withdrawn)
        {
            self.begun.remove(&outcome.workload);
        }
        // Who was seen dead stays so, whatever can't be read of him later.
        let dead = |id: &WorkloadId| sample.workloads.get(id).is_none_or(|w| w.populated == Some(false));
        self.begun.retain(|id, _| !dead(id));
        for (id, _) in pass.plan.workloads.iter().filter(|(_, w)| w.kill) {
            self.begun.entry(id.clone()).or_insert(sample.at);
        }
        let alive = |id: &WorkloadId| sample.workloads.get(id).is_some_and(|w| w.populated != Some(false));
        let flies = |at: Monotonic| sample.at.since(at) < config.ladder.kill_deadline;
        let flying = self.begun.iter().filter(|(id, at)| alive(id) && flies(**at));
        assert!(flying.count() <= 1, "two kills in flight");
    }

    /// A daemon does not know of its predecessor's kill; that one has a tenth of a second left.
    fn restarted(&mut self, _: &State) {
        self.begun.clear();
    }
}

#[test]
fn invariant_3_one_kill_in_flight() {
    holds(40, OneKill::default);
}

/// `memory.high` is set above what can't be reclaimed, and ends by itself.
#[derive(Default)]
struct Floor {
    former: BTreeMap<WorkloadId, Option<Bytes>>,
}

impl Law for Floor {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { config, sample, pass } = sight;
        for (id, wanted) in &pass.plan.workloads {
            let Some(high) = wanted.high else { continue };
            let latest = sample.at + config.ladder.throttle_lease;
            assert!(wanted.until.is_some_and(|until| until <= latest), "{id} is throttled without an end");
            let news = self.former.get(id).copied().flatten().is_none_or(|former| high < former);
            let swap = sample.host.meminfo.map_or(Bytes::ZERO, |m| m.swap_free);
            let stat = sample.workloads[id].stat.filter(|_| news);
            let floor = stat.map_or(Bytes::ZERO, |s| (s.anon + s.shmem).saturating_sub(swap));
            assert!(high >= floor, "{id}: memory.high {high} is below the floor of {floor}");
        }
        self.former = pass.plan.workloads.iter().map(|(id, w)| (id.clone(), w.high)).collect();
    }
}

#[test]
fn invariant_4_no_limit_below_the_floor_or_without_an_end() {
    holds(40, Floor::default);
}

/// What a plan sets is what its rung says, of workloads that are there; the last plan of a daemon sets nothing.
struct Listed;

impl Law for Listed {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { config, sample, pass } = sight;
        for (id, wanted) in &pass.plan.workloads {
            let workload = sample.workloads.get(id).expect("a plan for who is not there");
            assert_eq!(wanted.frozen, wanted.rung == Rung::Freeze, "{id}");
            assert_eq!(wanted.kill, wanted.rung == Rung::Kill, "{id}");
            let asked = wanted.wish.as_ref().map(|wish| wish.level);
            assert_eq!(asked.map_or(Rung::Free, Level::rung).max(wanted.rung), wanted.rung, "{id}");
            let unloads = wanted.rung == Rung::Offload && asked == Some(Level::Unload);
            let limits = unloads || wanted.rung == Rung::Throttle;
            assert!(wanted.high.is_none() || limits, "{id} has a limit on {}", wanted.rung);
            let protected = workload.spec.priority >= config.protect_priority;
            assert!(wanted.low.is_none() || protected, "{id} is given memory.low");
        }
    }

    fn left(&mut self, sight: &Sight<'_>) {
        for (id, wanted) in &sight.pass.plan.workloads {
            let sets = (wanted.rung, wanted.high, wanted.low, wanted.reclaim);
            assert_eq!(sets, (Rung::Free, None, None, None), "{id}");
        }
        assert!(!sight.pass.plan.gate.armed());
    }
}

#[test]
fn invariant_5_whatever_is_set_is_listed_and_released() {
    holds(30, || Listed);
}

/// Nobody is newly frozen or killed on readings that are missing.
#[derive(Default)]
struct Fresh {
    former: BTreeMap<WorkloadId, Rung>,
}

impl Law for Fresh {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { sample, pass, .. } = sight;
        for (id, wanted) in &pass.plan.workloads {
            let was = self.former.get(id).copied().unwrap_or_default();
            let workload = &sample.workloads[id];
            if wanted.rung < Rung::Freeze
                || wanted.rung <= was
                || workload.frozen == Some(true) && !wanted.kill
            {
                continue;
            }
            assert!(sample.host.meminfo.is_some(), "{id}: {} without meminfo", wanted.rung);
            assert!(workload.current.is_some(), "{id}: {} although it can't be read", wanted.rung);
            assert!(workload.populated != Some(false), "{id}: {} although it is dead", wanted.rung);
        }
        self.former = pass.plan.workloads.iter().map(|(id, w)| (id.clone(), w.rung)).collect();
    }
}

#[test]
fn invariant_6_no_freeze_and_no_kill_without_readings() {
    holds(40, Fresh::default);
}

/// An hour has so many brakes, workloads are let go one at a time, and in the end all are free.
#[derive(Default)]
struct Calm {
    former: BTreeMap<WorkloadId, Wanted>,
    brakes: BTreeMap<WorkloadId, Vec<Monotonic>>,
}

impl Law for Calm {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { config, sample, pass } = sight;
        let plan = &pass.plan.workloads;
        let brakes = |w: &Wanted| matches!(w.rung, Rung::Throttle | Rung::Freeze) && !w.leash;
        for (id, _) in plan.iter().filter(|(_, w)| brakes(w)) {
            let found_frozen = sample.workloads[id].frozen == Some(true);
            if self.former.get(id).is_some_and(brakes)
                || found_frozen
                || pass.assessment.tier == Tier::Emergency
            {
                continue;
            }
            assert_ne!(pass.assessment.tier, Tier::Normal, "{id} is braked in calm");
            let brakes = self.brakes.entry(id.clone()).or_default();
            brakes.retain(|at| sample.at.since(*at) < Span::secs(3600));
            brakes.push(sample.at);
            assert!(brakes.len() <= config.ladder.actions_per_hour as usize, "{id}: {brakes:?}");
        }
        assert!(self.thawed(sight) <= 1, "thawed at once");
        self.former = plan.iter().map(|(id, w)| (id.clone(), w.clone())).collect();
    }

    /// The budget is the daemon's own.
    fn restarted(&mut self, _: &State) {
        *self = Self::default();
    }

    fn wants_calm(&self) -> bool {
        true
    }

    fn calm(&mut self, sight: &Sight<'_>) {
        assert_eq!(sight.pass.assessment.tier, Tier::Normal);
        for (id, wanted) in &sight.pass.plan.workloads {
            // One whose brakes of the hour are used up runs on a leash until there is room for another.
            let waits = wanted.leash && wanted.held_off.is_some_and(|until| until > sight.sample.at);
            assert!(wanted.rung == Rung::Free || waits, "{id}: {wanted:?}");
            assert_eq!(wanted.low, None, "{id}");
        }
        assert!(!sight.pass.plan.gate.armed());
    }
}

impl Calm {
    /// Those that were let go; who died, or whose freeze had not come about, is not one of them.
    fn thawed(&self, sight: &Sight<'_>) -> usize {
        let now = |id: &WorkloadId| sight.pass.plan.workloads[id].rung;
        let ended = |id: &WorkloadId| sight.sample.outcomes.iter().any(|o| o.workload == *id);
        let lives =
            |id: &WorkloadId| sight.sample.workloads.get(id).is_some_and(|w| w.populated != Some(false));
        let frozen = self.former.iter().filter(|(_, w)| w.frozen).map(|(id, _)| id);
        // Whose probes would fail does not wait for the others.
        let paced =
            |id: &WorkloadId| sight.sample.workloads.get(id).is_some_and(|w| w.spec.freeze_max.is_none());
        frozen.filter(|id| lives(id) && paced(id) && !ended(id) && now(id) < Rung::Freeze).count()
    }
}

#[test]
fn invariant_7_back_to_free_one_at_a_time_and_within_the_budget() {
    holds(16, Calm::default);
}

/// Nobody is frozen for longer than his probes bear, and who was is let run for as long before he is again.
#[derive(Default)]
struct Probed {
    /// When each spell of freezes began, and when it last saw a freeze.
    spells: BTreeMap<WorkloadId, (Monotonic, Monotonic)>,
    former: BTreeSet<WorkloadId>,
}

impl Law for Probed {
    fn look(&mut self, sight: &Sight<'_>) {
        let at = sight.sample.at;
        let frozen = sight.pass.plan.workloads.iter().filter(|(_, w)| w.frozen).map(|(id, _)| id.clone());
        let frozen: BTreeSet<_> = frozen.collect();
        for id in frozen.union(&self.former) {
            let most = sight.sample.workloads.get(id).and_then(|w| w.spec.freeze_max);
            let Some(most) = most else { continue };
            let spell = self.spells.entry(id.clone()).or_insert((at, at));
            if !self.former.contains(id) && at.since(spell.1) >= most {
                spell.0 = at;
            }
            assert!(!frozen.contains(id) || at.since(spell.0) < most, "{id} is frozen beyond {most}");
            spell.1 = at;
        }
        self.former = frozen;
    }

    /// Its successor thaws what a daemon has left frozen, and knows nothing else of it.
    fn restarted(&mut self, _: &State) {
        *self = Self::default();
    }
}

#[test]
fn invariant_7_nobody_is_frozen_for_longer_than_his_probes_bear() {
    holds(40, Probed::default);
}

/// Nobody is handed over who may not be ended here, two at once, in calm or without the time for it; who leaves is not frozen.
#[derive(Default)]
struct Evicted {
    former: BTreeSet<WorkloadId>,
    /// Who agreed to go, and has until then.
    leaving: BTreeMap<WorkloadId, Monotonic>,
}

impl Law for Evicted {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { config, sample, pass } = sight;
        let agreed = |id: &WorkloadId| {
            let mut outcomes = sample.outcomes.iter();
            outcomes.any(|o| o.workload == *id && o.act == Act::Evict && o.result == ActResult::Done)
        };
        let wanted = pass.plan.workloads.iter().filter(|(_, w)| w.evict).map(|(id, _)| id.clone());
        let wanted: BTreeSet<_> = wanted.collect();
        assert!(wanted.len() <= 1, "two at once");
        for id in self.former.iter().filter(|id| agreed(id)) {
            let grace = sample.workloads.get(id).and_then(|w| w.spec.evictable).unwrap_or_default();
            self.leaving.insert(id.clone(), sample.at + grace);
        }
        for id in wanted.difference(&self.former) {
            let workload = &sample.workloads[id];
            let tier = pass.assessment.tier;
            assert!(
                workload.spec.evictable.is_some() && may(config, workload, Rung::Kill),
                "{id} may not be"
            );
            assert!(!untouchable(config, workload), "{id} may not be touched");
            assert!(tier > Tier::Normal && tier < Tier::Emergency, "{id} at {tier}");
        }
        self.leaving.retain(|id, until| *until > sample.at && wanted.contains(id));
        for id in self.leaving.keys() {
            let wanted = &pass.plan.workloads[id];
            assert!(!wanted.frozen, "{id} is to end, and can't");
            assert!(!pass.plan.gate.targets.contains(id), "{id} would be stopped");
        }
        self.former = wanted;
    }

    fn restarted(&mut self, _: &State) {
        *self = Self::default();
    }
}

#[test]
fn nobody_is_handed_over_who_may_not_be_and_who_is_can_end_in_order() {
    holds(40, Evicted::default);
}

/// Nobody is asked what he does not offer, while he is frozen or in calm; one asking is one number; restores come one at a time.
#[derive(Default)]
struct Asked {
    former: BTreeMap<WorkloadId, Wish>,
    answered: BTreeSet<u64>,
}

impl Law for Asked {
    fn look(&mut self, sight: &Sight<'_>) {
        let Sight { sample, pass, .. } = sight;
        self.answered.extend(sample.conceded.iter().map(|it| it.number));
        let wishes = pass.plan.workloads.iter().filter_map(|(id, w)| Some((id.clone(), w.wish.clone()?)));
        let wishes: BTreeMap<_, _> = wishes.collect();
        let new =
            |id: &WorkloadId, wish: &Wish| self.former.get(id).is_none_or(|it| it.number != wish.number);
        let latest = self.former.values().map(|wish| wish.number).max().unwrap_or(0);
        for (id, wish) in wishes.iter().filter(|(id, wish)| new(id, wish)) {
            assert!(wish.number > latest, "{id}: {} after {latest}", wish.number);
            let workload = &sample.workloads[id];
            if wish.level > Level::Nothing {
                let offer = workload.offer.as_ref().expect("it offers something");
                assert!(offer.levels.contains_key(&wish.level), "{id} does not offer {}", wish.level);
                assert_ne!(workload.frozen, Some(true), "{id} is frozen");
                assert_ne!(pass.assessment.tier, Tier::Normal, "{id} is asked in calm");
            }
        }
        for (id, wish) in &wishes {
            let gentle = matches!(wish.level, Level::Gc | Level::Aggressive | Level::Nothing);
            let failed = wish.level == Level::Nothing && pass.state.workloads[id].voluntary.is_some();
            assert!(!gentle || failed || !self.answered.contains(&wish.number), "{id} has answered that");
        }
        let restored = |wishes: &BTreeMap<WorkloadId, Wish>| {
            let open = |it: &&Wish| it.level == Level::Nothing && !self.answered.contains(&it.number);
            wishes.values().filter(open).count()
        };
        assert!(restored(&wishes) <= restored(&self.former).max(1), "restored at once");
        self.former = wishes;
    }

    fn restarted(&mut self, _: &State) {
        *self = Self::default();
    }

    fn wants_calm(&self) -> bool {
        true
    }

    fn calm(&mut self, sight: &Sight<'_>) {
        for (id, wanted) in &sight.pass.plan.workloads {
            let level = wanted.wish.as_ref().map_or(Level::Nothing, |wish| wish.level);
            assert_eq!(level, Level::Nothing, "{id} has not got it back");
        }
    }
}

#[test]
fn nobody_is_asked_for_more_than_he_offers_and_everybody_gets_it_back() {
    holds(12, Asked::default);
}

/// Who yields last has the lowest score.
fn in_order(config: &Config, sample: &Sample) {
    let specs: Vec<&Spec> = sample.workloads.values().map(|w| &w.spec).collect();
    let scores = scores(config, specs.iter().copied().enumerate());
    let class = |n: usize| (specs[n].preference == Preference::Avoid, specs[n].priority, specs[n].qos);
    for (a, score) in &scores {
        assert_ne!(specs[*a].preference, Preference::Omit, "who is never touched has no score");
        let Score::Exactly(score) = score else { continue };
        assert!((100..=900).contains(score));
        for (b, other) in &scores {
            match other {
                Score::Exactly(other) if class(*a) < class(*b) => assert!(score > other),
                Score::Exactly(other) if class(*a) == class(*b) => assert_eq!(score, other),
                Score::Exactly(_) => {}
                Score::AtMost(most) => {
                    assert!(score > most, "one that may not be killed goes before a victim");
                }
            }
        }
    }
}

/// The kernel's order is ours.
struct Order;

impl Law for Order {
    fn look(&mut self, sight: &Sight<'_>) {
        in_order(sight.config, sight.sample);
    }
}

#[test]
fn invariant_9_the_kernel_would_take_whom_we_would() {
    holds(30, || Order);
}

/// The same sample and state give the same pass, also when the state has been to a file and back.
#[derive(Default)]
struct Replayed {
    state: State,
}

impl Law for Replayed {
    fn look(&mut self, sight: &Sight<'_>) {
        let again = step(sight.config, through_json(&self.state), sight.sample);
        assert_eq!(&again, sight.pass);
        self.state = again.state;
    }

    fn restarted(&mut self, state: &State) {
        self.state.clone_from(state);
    }
}

#[test]
fn invariant_10_the_same_journal_gives_the_same_decisions() {
    holds(12, Replayed::default);
}

/// What these laws ask for is what the lint asks for: in no life has it anything to say. Every change has a number.
#[derive(Default)]
struct NothingFound {
    former: BTreeMap<WorkloadId, Wanted>,
}

impl Law for NothingFound {
    fn look(&mut self, sight: &Sight<'_>) {
        assert_eq!(sight.pass.findings, []);
        for (id, wanted) in &sight.pass.plan.workloads {
            let former = self.former.get(id).cloned().unwrap_or_default();
            assert!(wanted.rung <= former.rung || wanted.action > former.action, "{id}: no number");
        }
        self.former = sight.pass.plan.workloads.iter().map(|(id, w)| (id.clone(), w.clone())).collect();
    }

    fn restarted(&mut self, _: &State) {
        self.former.clear();
    }
}

#[test]
fn the_lint_finds_nothing() {
    holds(40, NothingFound::default);
}
