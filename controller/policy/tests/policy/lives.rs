//! Worlds in which things go wrong: the daemon dies, workloads come and go, actions fail, readings fail, clocks jump.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use plimsoll_model::machine::{Giver, Habit, Machine, Swap};
use plimsoll_policy::config::{Config, DryRun, Preset};
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::{Act, ActResult, Outcome};
use plimsoll_policy::sample::{Rung, Sample, Trigger, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Span};
use proptest::prelude::*;

use crate::worlds::{Pod, Tenant, World, pod, tenant, world};

/// How long a world is troubled.
pub(crate) const TROUBLED_MS: u64 = 20_000;

/// How long it is calm afterwards: longer than any freeze.
const CALM_MS: u64 = 300_000;

/// What happens to a machine at a moment. `which` counts its workloads.
#[derive(Clone, Debug)]
enum Event {
    /// The daemon dies and comes back, with or without its memory file.
    Restart { remembers: bool },
    /// A workload ends.
    Leave { which: usize },
    /// A workload ends, and its path comes back with another inode.
    Replace { which: usize, by: Tenant },
    /// A new one comes.
    Come { who: Tenant },
    /// Nothing can be read.
    Gap { ms: u64 },
    /// One workload can't be read: all of it, or only its `memory.stat`.
    Blind { which: usize, ms: u64, stat_only: bool },
    /// The clock goes forward.
    Jump { ms: u64 },
    /// The clock stands.
    Stand { ms: u64 },
}

/// A machine and its troubles.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    world: World,
    variant: Variant,
    zram: Option<u64>,
    /// With their moments in milliseconds.
    events: Vec<(u64, Event)>,
    /// How actions end, in turn; `None` = as the machine has it.
    endings: Vec<Option<ActResult>>,
    /// Which workloads are of pods, in turn.
    pods: Vec<Option<Pod>>,
}

/// What differs from the default configuration.
#[derive(Clone, Debug)]
struct Variant {
    preset: Preset,
    rungs: Vec<Rung>,
    dry: DryRun,
    freeze_max: Span,
    actions_per_hour: u32,
}

/// What a law is shown of a pass.
pub(crate) struct Sight<'a> {
    pub(crate) config: &'a Config,
    pub(crate) sample: &'a Sample,
    pub(crate) pass: &'a Pass,
}

/// Something that has to hold throughout a life.
pub(crate) trait Law {
    /// Sees a pass; panics where the law is broken.
    fn look(&mut self, sight: &Sight<'_>);
    /// The daemon has died, and the next one begins with this state.
    fn restarted(&mut self, _state: &State) {}
    /// Sees the last pass, long after everybody became calm.
    fn calm(&mut self, _sight: &Sight<'_>) {}
    /// Sees the pass before the daemon leaves, at the height of the trouble.
    fn left(&mut self, _sight: &Sight<'_>) {}
    /// Whether `calm` is worth its time.
    fn wants_calm(&self) -> bool {
        false
    }
}

impl Life {
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = self.world.machine();
        let Variant { preset, rungs, dry, freeze_max, actions_per_hour } = self.variant.clone();
        let config =
            Config { preset, by_size: plimsoll_policy::config::SizedHost::all(preset), ..machine.config };
        machine.config = config.resolve(Bytes(machine.total)).unwrap();
        let ladder = &mut machine.config.ladder;
        (ladder.rungs, ladder.dry_run) = (rungs, dry);
        (ladder.freeze_max, ladder.actions_per_hour) = (freeze_max, actions_per_hour);
        let kubernetes = &mut machine.config.kubernetes;
        (kubernetes.enabled, kubernetes.evict_after) = (true, Span::secs(5));
        if let Some(percent) = self.zram {
            machine.hardware.swap = Swap::Zram { percent };
        }
        machine
    }

    /// Lives it under the eyes of a law.
    pub(crate) fn live(&self, law: &mut impl Law) {
        let mut machine = self.machine();
        let config = machine.config.clone();
        let (endings, pods) = (self.endings.clone(), self.pods.clone());
        let mut trouble = Trouble { endings, pods, ..Trouble::default() };
        trouble.dress(&mut machine);
        let mut events = self.events.clone();
        events.sort_by_key(|(at, _)| *at);
        for (at, event) in events {
            trouble.run(&mut machine, &config, at, |sight| law.look(&sight));
            trouble.befall(&mut machine, event, law);
        }
        trouble.run(&mut machine, &config, TROUBLED_MS, |sight| law.look(&sight));
        let sample = Sample { trigger: Trigger::Shutdown, ..trouble.last.clone() };
        let pass = step(&config, machine.state.clone(), &sample);
        law.left(&Sight { config: &config, sample: &sample, pass: &pass });
        if law.wants_calm() {
            calm(&mut machine);
            let mut last = (Sample::default(), Pass::default());
            trouble.run(&mut machine, &config, TROUBLED_MS + CALM_MS, |sight| {
                law.look(&sight);
                last = (sight.sample.clone(), sight.pass.clone());
            });
            law.calm(&Sight { config: &config, sample: &last.0, pass: &last.1 });
        }
    }
}

/// Everybody stops what he does, and has little.
fn calm(machine: &mut Machine) {
    for process in machine.processes.values_mut() {
        process.habit = Habit::Idle;
        process.anon = process.anon.min(machine.total / 40);
        process.file = process.file.min(machine.total / 40);
        process.swap = 0;
        process.model = process.file;
        process.giver.as_mut().into_iter().for_each(Giver::calm);
    }
}

/// What stands between the machine and the policy.
#[derive(Default)]
struct Trouble {
    endings: Vec<Option<ActResult>>,
    pods: Vec<Option<Pod>>,
    /// Workloads that have been looked at with that in mind.
    dressed: BTreeSet<WorkloadId>,
    /// Actions that have ended.
    ended: usize,
    /// Of whom nothing can be read, or not `memory.stat`, and in which of the machine's milliseconds.
    blind: Vec<(WorkloadId, Range<u64>, bool)>,
    /// The clock that the policy is shown, and the machine's own at that time.
    shown: Monotonic,
    real: Monotonic,
    stands: Range<u64>,
    /// Who is handed over, by the number of the action.
    evicted: BTreeMap<WorkloadId, u64>,
    /// Who was begun to be frozen or killed, or asked for to be handed over, in the last pass.
    begun: Vec<(WorkloadId, Act, Monotonic)>,
    /// The last sample that was shown.
    last: Sample,
}

impl Trouble {
    fn run(
        &mut self,
        machine: &mut Machine,
        config: &Config,
        until_ms: u64,
        mut look: impl FnMut(Sight<'_>),
    ) {
        let ms = until_ms.saturating_sub(machine.now_ms);
        let trouble = std::cell::RefCell::new(self);
        let mut former: Option<Pass> = None;
        machine.run_with(
            ms,
            |machine, sample| trouble.borrow_mut().alter(machine, sample),
            |sample, pass| {
                trouble.borrow_mut().note(sample, pass, former.as_ref());
                former = Some(pass.clone());
                look(Sight { config, sample, pass });
            },
        );
    }

    fn befall(&mut self, machine: &mut Machine, event: Event, law: &mut impl Law) {
        let now = machine.now_ms;
        let ids: Vec<_> = machine.processes.keys().cloned().collect();
        let of = |which: usize| ids.get(which % ids.len().max(1)).cloned();
        let room = (machine.free() / 2) >> 20;
        match event {
            Event::Restart { remembers } => {
                let memory = machine.state.remember(self.shown);
                let recalled = || State::recall(&memory, Span::secs(1), self.shown);
                machine.restart(if remembers { recalled() } else { State::default() });
                self.begun.clear();
                self.evicted.clear();
                law.restarted(&machine.state);
            }
            Event::Leave { which } => drop(of(which).and_then(|id| machine.processes.remove(&id))),
            Event::Replace { which, by } => {
                if let Some(gone) = of(which).and_then(|id| machine.processes.remove(&id)) {
                    by.settle(machine, &gone.spec.name, room);
                }
            }
            Event::Come { who } => who.settle(machine, &format!("n{now}"), room),
            Event::Gap { ms } => machine.gap = now..now + ms,
            Event::Blind { which, ms, stat_only } => {
                self.blind.extend(of(which).map(|id| (id, now..now + ms, stat_only)));
            }
            Event::Jump { ms } => self.shown = self.shown + Span::millis(ms),
            Event::Stand { ms } => self.stands = now..now + ms,
        }
        self.dress(machine);
    }

    /// Puts newcomers into pods.
    fn dress(&mut self, machine: &mut Machine) {
        for (id, process) in &mut machine.processes {
            let pod = self.pods.get(self.dressed.len() % self.pods.len().max(1)).copied().flatten();
            if self.dressed.insert(id.clone())
                && let Some(pod) = pod
            {
                pod.put_on(&mut process.spec);
            }
        }
    }

    fn alter(&mut self, machine: &mut Machine, sample: &mut Sample) {
        let real = sample.at;
        if !self.stands.contains(&machine.now_ms) {
            self.shown = self.shown + real.since(self.real);
        }
        self.real = real;
        let shown = self.shown;
        let ago = |then: Monotonic| Monotonic(shown.0.saturating_sub(real.since(then).0));
        sample.at = shown;
        for workload in sample.workloads.values_mut() {
            workload.stat_at = ago(workload.stat_at);
        }
        for conceded in &mut sample.conceded {
            conceded.begun = ago(conceded.begun);
        }
        for outcome in &mut sample.outcomes {
            outcome.begun = ago(outcome.begun);
            if let Some(result) = ending(&self.endings, &mut self.ended) {
                outcome.freed = matches!(result, ActResult::Partial).then_some(Bytes::ZERO);
                outcome.result = result;
            }
        }
        self.conclude(machine, sample);
        self.cover(machine.now_ms, sample);
    }

    /// Freezes and kills that were begun end now; those that failed have not happened.
    fn conclude(&mut self, machine: &mut Machine, sample: &mut Sample) {
        for (workload, act, begun) in std::mem::take(&mut self.begun) {
            let Some(process) = machine.processes.get_mut(&workload).filter(|p| !p.dead) else { continue };
            let ending = ending(&self.endings, &mut self.ended);
            let Some(result) = ending.or((act == Act::Evict).then_some(ActResult::Done)) else { continue };
            if act == Act::Kill {
                process.dies_at = None;
            } else if act == Act::Evict {
                if result == ActResult::Done {
                    process.dies_at =
                        Some(machine.now_ms + process.spec.evictable.map_or(0, |it| it.0 / 1_000_000));
                }
            } else {
                (process.frozen_at, process.frozen) = (None, false);
                let seen = sample.workloads.get_mut(&workload).and_then(|w| w.frozen.as_mut());
                seen.into_iter().for_each(|frozen| *frozen = false);
            }
            let took = sample.at.since(begun);
            sample.outcomes.push(Outcome { workload, act, result, begun, took, freed: None });
        }
    }

    fn cover(&self, now: u64, sample: &mut Sample) {
        for (id, _, stat_only) in self.blind.iter().filter(|(_, when, _)| when.contains(&now)) {
            let Some(workload) = sample.workloads.get_mut(id) else { continue };
            match stat_only {
                true => workload.stat = None,
                false => *workload = Workload { spec: workload.spec.clone(), ..Workload::default() },
            }
        }
    }

    fn note(&mut self, sample: &Sample, pass: &Pass, former: Option<&Pass>) {
        let new = |id: &WorkloadId, rung| former.is_none_or(|f| f.plan.workloads[id].rung != rung);
        for (id, wanted) in pass.plan.workloads.iter().filter(|(id, w)| new(id, w.rung)) {
            let act = match wanted.rung {
                Rung::Freeze => Act::Freeze,
                Rung::Kill => Act::Kill,
                _ => continue,
            };
            self.begun.push((id.clone(), act, sample.at));
        }
        for (id, _) in pass.plan.workloads.iter().filter(|(_, w)| w.evict) {
            let action = pass.state.workloads[id].eviction.as_ref().map_or(0, |it| it.action);
            if self.evicted.insert(id.clone(), action) != Some(action) {
                self.begun.push((id.clone(), Act::Evict, sample.at));
            }
        }
        self.last.clone_from(sample);
    }
}

fn ending(endings: &[Option<ActResult>], ended: &mut usize) -> Option<ActResult> {
    *ended += 1;
    endings.get(*ended % endings.len().max(1)).cloned().flatten()
}

pub(crate) fn life() -> impl Strategy<Value = Life> {
    let events = prop::collection::vec((0..TROUBLED_MS / 10, event()), 0..6);
    let events = events.prop_map(|all| all.into_iter().map(|(at, event)| (at * 10, event)).collect());
    let zram = prop::option::of(30_u64..60);
    let endings = prop::collection::vec(ending_kind(), 0..6);
    // Last, so that a seed gives the life that it gave before there were pods.
    let pods = prop::collection::vec(prop::option::of(pod()), 0..4);
    (world(), variant(), zram, events, endings, pods).prop_map(
        |(world, variant, zram, events, endings, pods)| Life { world, variant, zram, events, endings, pods },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let (which, ms) = (0_usize..8, 10_u64..4000);
    prop_oneof![
        2 => any::<bool>().prop_map(|remembers| Event::Restart { remembers }),
        1 => which.clone().prop_map(|which| Event::Leave { which }),
        2 => (which.clone(), tenant()).prop_map(|(which, by)| Event::Replace { which, by }),
        2 => tenant().prop_map(|who| Event::Come { who }),
        1 => ms.clone().prop_map(|ms| Event::Gap { ms }),
        2 => (which, ms.clone(), any::<bool>())
            .prop_map(|(which, ms, stat_only)| Event::Blind { which, ms, stat_only }),
        1 => (10_u64..200_000).prop_map(|ms| Event::Jump { ms }),
        1 => ms.prop_map(|ms| Event::Stand { ms }),
    ]
}

fn ending_kind() -> impl Strategy<Value = Option<ActResult>> {
    let bad = vec![
        ActResult::Failed("no".into()),
        ActResult::Partial,
        ActResult::Gone,
        ActResult::Foreign,
        ActResult::Withdrawn,
        ActResult::Blocked("not now".into()),
    ];
    prop_oneof![3 => Just(None), 2 => prop::sample::select(bad).prop_map(Some)]
}

fn variant() -> impl Strategy<Value = Variant> {
    let all = Config::default().ladder.rungs;
    let rungs = prop_oneof![3 => Just(all.clone()), 1 => prop::sample::subsequence(all.clone(), 0..=5)];
    let dry = prop_oneof![
        4 => Just(DryRun::default()),
        1 => prop::sample::subsequence(all, 1..=5).prop_map(DryRun::Rungs),
        1 => Just(DryRun::Whole(true)),
    ];
    let freeze_max = prop_oneof![Just(Span::secs(120)), (1_u64..20).prop_map(Span::secs)];
    let actions = prop_oneof![Just(12_u32), 1_u32..4];
    (prop::sample::select(Preset::ALL.to_vec()), rungs, dry, freeze_max, actions).prop_map(
        |(preset, rungs, dry, freeze_max, actions_per_hour)| Variant {
            preset,
            rungs,
            dry,
            freeze_max,
            actions_per_hour,
        },
    )
}
