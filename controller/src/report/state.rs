//! What a scrape shows: the last pass, and totals over all of them. The keeper writes it, scrapes read it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_policy::config::{Config, DryRun};
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::plan::{Act, ActResult, Outcome, Plan, Tier};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::Monotonic;

use super::Record;
use super::about::About;
use super::admission::AdmissionTotals;
use super::asking::AskingTotals;
use super::histogram::Histogram;
use super::journal::Counts;
use crate::kubernetes::PodRef;

/// Different sensors that gaps are counted for; what comes after is counted together. A label has to be bounded.
const SENSORS: usize = 64;
/// Passes back to which an outcome is traced: slower actions have waited for a worker, and that is no reaction time.
const TRACED: usize = 64;

/// All that is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) about: About,
    pub(super) dry_run: DryRun,
    pub(super) journal: Option<Arc<Counts>>,
    pub(super) started: Instant,
    /// The slowest that passes follow each other when all is well.
    calm: Duration,
    pub(super) last: Option<(Instant, Arc<Record>)>,
    /// Reclaim stalls by cgroup id.
    pub(super) stalls: BTreeMap<u64, plimsoll_ebpf::Histogram>,
    /// The pods that workloads are containers of.
    pub(super) pods: BTreeMap<WorkloadId, PodRef>,
    pub(super) totals: Totals,
    looks: VecDeque<Monotonic>,
}

/// Sums over all passes.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) passes: u64,
    pub(super) tier_changes: u64,
    /// Those of every GPU.
    pub(super) gpu_tier_changes: BTreeMap<GpuId, u64>,
    /// By act and result.
    pub(super) actions: BTreeMap<(&'static str, &'static str), u64>,
    /// Bytes, by act.
    pub(super) freed: BTreeMap<&'static str, u64>,
    /// By sensor.
    pub(super) gaps: BTreeMap<String, u64>,
    /// By invariant, and whether the action was blocked.
    pub(super) findings: BTreeMap<(u8, bool), u64>,
    /// By rung, actions that were only talked about.
    pub(super) dry: BTreeMap<Rung, u64>,
    /// The newest of them.
    talked: u64,
    /// Times that a workload was held off.
    pub(super) hold_offs: u64,
    pub(super) admission: AdmissionTotals,
    pub(super) asking: AskingTotals,
    pub(super) pass: Histogram,
    pub(super) reaction: Histogram,
    /// By act.
    pub(super) action: BTreeMap<&'static str, Histogram>,
}

impl State {
    pub(super) fn new(config: &Config, about: About, journal: Option<Arc<Counts>>) -> Self {
        Self {
            about,
            dry_run: config.ladder.dry_run.clone(),
            journal,
            started: Instant::now(),
            calm: config.pace.calm.into(),
            last: None,
            stalls: BTreeMap::new(),
            pods: BTreeMap::new(),
            totals: Totals::default(),
            looks: VecDeque::new(),
        }
    }

    /// Takes a pass over.
    pub(super) fn apply(&mut self, record: Arc<Record>) {
        let before = self.tier();
        self.totals.hold_offs += self.newly_held_off(&record);
        for outcome in &record.sample.outcomes {
            self.reaction(outcome.begun);
            self.totals.outcome(outcome);
        }
        self.totals.pass(&record);
        self.count_gpu_tiers(&record);
        self.looks.push_back(record.sample.at);
        if self.looks.len() > TRACED {
            self.looks.pop_front();
        }
        self.last = Some((Instant::now(), record));
        self.totals.tier_changes += u64::from(before.is_some() && before != self.tier());
    }

    /// Workloads that are held off until a moment that the last pass did not name.
    fn newly_held_off(&self, record: &Record) -> u64 {
        let former = |id| self.last.as_ref().and_then(|(_, last)| last.plan.workloads.get(id)?.held_off);
        let held_off = record
            .plan
            .workloads
            .iter()
            .filter(|(id, now)| now.held_off.is_some() && now.held_off > former(id));
        held_off.count() as u64
    }

    /// Whether passes follow each other as they should. A control loop that stopped protects nobody.
    pub(super) fn fresh(&self) -> bool {
        self.last.as_ref().is_some_and(|(at, _)| at.elapsed() < self.calm * 10 + Duration::from_secs(2))
    }

    /// What was left of a pause at the last pass.
    pub(super) fn paused_seconds(&self) -> Option<f64> {
        let (_, record) = self.last.as_ref()?;
        record.plan.paused.map(|until| until.since(record.sample.at).as_secs_f64())
    }

    /// Those that are gone are not told of any more.
    fn count_gpu_tiers(&mut self, record: &Record) {
        let now = &record.assessment.gpus;
        self.totals.gpu_tier_changes.retain(|id, _| record.sample.gpus.contains_key(id));
        for (id, seen) in now {
            let former = self.last.as_ref().and_then(|(_, last)| last.assessment.gpus.get(id));
            let changed = former.is_some_and(|former| former.tier != seen.tier);
            *self.totals.gpu_tier_changes.entry(id.clone()).or_default() += u64::from(changed);
        }
    }

    fn tier(&self) -> Option<Tier> {
        self.last.as_ref().map(|(_, record)| record.assessment.tier)
    }

    /// From the look that an action followed from to its beginning.
    fn reaction(&mut self, begun: Monotonic) {
        if let Some(look) = self.looks.iter().rev().find(|look| **look <= begun) {
            self.totals.reaction.add(begun.since(*look));
        }
    }
}

impl Totals {
    fn pass(&mut self, record: &Record) {
        self.passes += 1;
        self.pass.add(record.took);
        for gap in &record.sample.gaps {
            let known = self.gaps.len() < SENSORS || self.gaps.contains_key(&gap.what);
            let sensor = if known { gap.what.clone() } else { "other".into() };
            *self.gaps.entry(sensor).or_default() += 1;
        }
        for finding in &record.findings {
            *self.findings.entry((finding.invariant, finding.fatal)).or_default() += 1;
        }
        self.talk(&record.plan);
        self.admission.pass(&record.plan);
        self.asking.pass(&record.sample);
    }

    fn talk(&mut self, plan: &Plan) {
        let talked = plan.workloads.values().filter_map(|wanted| wanted.would.as_ref());
        let new: Vec<_> = talked.filter(|would| would.action > self.talked).collect();
        for would in &new {
            *self.dry.entry(would.rung).or_default() += 1;
        }
        self.talked = new.iter().map(|would| would.action).fold(self.talked, u64::max);
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let act = outcome.act.name();
        *self.actions.entry((act, result(&outcome.result))).or_default() += 1;
        *self.freed.entry(act).or_default() += outcome.freed.unwrap_or_default().0;
        self.action.entry(act).or_default().add(outcome.took);
    }

    /// Actions of one kind that ended in one way.
    pub(super) fn of(&self, act: &Act, how: &ActResult) -> u64 {
        self.actions.get(&(act.name(), result(how))).copied().unwrap_or_default()
    }
}

/// The word used in metrics.
pub(crate) const fn result(result: &ActResult) -> &'static str {
    match result {
        ActResult::Done => "done",
        ActResult::Partial => "partial",
        ActResult::Gone => "gone",
        ActResult::Withdrawn => "withdrawn",
        ActResult::Foreign => "foreign",
        ActResult::Blocked(_) => "blocked",
        ActResult::Failed(_) => "failed",
    }
}
