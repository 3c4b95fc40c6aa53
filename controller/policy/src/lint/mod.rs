//! Looks at a plan with fresh eyes before anybody acts on it.
//!
//! Each rule is an invariant of the README's list, as far as one pass can see it, and shares no code with
//! the decisions: a mistake there must not be made here again. A fatal finding takes the action out of the plan; the workload
//! keeps what it was on, or is let go where that is no better.

mod evict;
mod gpus;
mod harmony;
mod order;
mod shape;
#[cfg(test)]
mod tests;
mod timing;
mod wishes;

use std::collections::BTreeMap;

use crate::config::Config;
use crate::decide::wanted;
use crate::eviction::Eviction;
use crate::gpu::GpuId;
use crate::learned::Learned;
use crate::plan::{Finding, Gate, GpuAssessment, Plan, Tier};
use crate::sample::{Rung, Sample, WorkloadId};
use crate::state::{Held, Spell, State, Track};
use crate::units::Monotonic;
use crate::voluntary::Voluntary;

/// What was held before the pass, and what reclaim was worth then. Only of those of whom there is something to say.
#[derive(Default)]
pub(crate) struct Before {
    of: BTreeMap<WorkloadId, Former>,
    other: Former,
}

#[derive(Default)]
struct Former {
    held: Held,
    learned: Learned,
    /// When it was braked, oldest first.
    brakes: Vec<Monotonic>,
    /// What was asked of it.
    voluntary: Option<Box<Voluntary>>,
    /// Its last freezes.
    spell: Option<Spell>,
    /// How long it had been braked, and whether it was handed over.
    eviction: Option<Box<Eviction>>,
}

impl Before {
    pub(crate) fn of(state: &State) -> Self {
        let other = Former::default();
        let telling = |t: &Track| {
            let braked = t.held != other.held || !t.repeats.brakes.is_empty();
            let told = t.voluntary.is_some() || t.spell.is_some() || t.eviction.is_some();
            braked || told || t.learned != other.learned
        };
        let former = |t: &Track| Former {
            held: t.held.clone(),
            learned: t.learned.clone(),
            brakes: t.repeats.brakes.clone(),
            voluntary: t.voluntary.clone(),
            spell: t.spell,
            eviction: t.eviction.clone(),
        };
        let tracks = state.workloads.iter().filter(|(_, t)| telling(t));
        Self { of: tracks.map(|(id, t)| (id.clone(), former(t))).collect(), other }
    }

    fn of_one(&self, id: &WorkloadId) -> &Former {
        self.of.get(id).unwrap_or(&self.other)
    }

    pub(crate) fn held(&self, id: &WorkloadId) -> &Held {
        &self.of_one(id).held
    }

    /// What was asked of it before the pass.
    pub(crate) fn voluntary(&self, id: &WorkloadId) -> Option<&Voluntary> {
        self.of_one(id).voluntary.as_deref()
    }

    /// Those who were to end in order.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &WorkloadId> {
        let leaves = |it: &Former| it.eviction.as_ref().is_some_and(|it| it.leaves.is_some());
        self.of.iter().filter(move |(_, it)| leaves(it)).map(|(id, _)| id)
    }

    /// The rung that it was on, by what was done to it and what it was asked.
    pub(crate) fn rung(&self, id: &WorkloadId) -> Rung {
        self.held(id).rung.max(self.voluntary(id).map_or(Rung::Free, Voluntary::rung))
    }

    /// Takes a workload back to what it was before the pass.
    pub(crate) fn restore(&self, id: &WorkloadId, track: &mut Track) {
        let Former { held, voluntary, eviction, .. } = self.of_one(id);
        (track.held, track.voluntary) = (held.clone(), voluntary.clone());
        track.eviction.clone_from(eviction);
    }
}

/// A plan with all that it is held against.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) config: &'a Config,
    pub(crate) before: &'a Before,
    pub(crate) sample: &'a Sample,
    pub(crate) tier: Tier,
    pub(crate) gpus: &'a BTreeMap<GpuId, GpuAssessment>,
    /// Since when the tier has been below critical.
    pub(crate) eased: Option<Monotonic>,
}

/// Every invariant that one pass can see.
pub(crate) fn lint(case: Case<'_>, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    order::lint(case, plan, &mut findings);
    shape::lint(case, plan, &mut findings);
    timing::lint(case, plan, &mut findings);
    harmony::lint(case, plan, &mut findings);
    gpus::lint(case, plan, &mut findings);
    wishes::lint(case, plan, &mut findings);
    evict::lint(case, plan, &mut findings);
    findings
}

/// Takes what has a fatal finding out of the plan and out of the state.
pub(crate) fn block(case: Case<'_>, findings: &[Finding], state: &mut State, plan: &mut Plan) {
    revert(case, findings, state, plan, |id, track| case.before.restore(id, track));
    if findings.iter().any(|f| f.fatal) {
        let still = lint(case, plan);
        let protected = |id: &WorkloadId| {
            case.sample.workloads.get(id).is_some_and(|w| w.spec.priority >= case.config.protect_priority)
        };
        let low = |id: &WorkloadId| case.before.held(id).low.filter(|_| protected(id));
        revert(case, &still, state, plan, |id, track| {
            track.held = Held { low: low(id), since: case.sample.at, ..Held::default() };
            (track.voluntary, track.eviction) = (None, None);
        });
    }
}

fn revert(
    case: Case<'_>,
    findings: &[Finding],
    state: &mut State,
    plan: &mut Plan,
    to: impl Fn(&WorkloadId, &mut Track),
) {
    for finding in findings.iter().filter(|f| f.fatal) {
        let Some(id) = &finding.workload else {
            plan.gate = Gate::default();
            state.gate = Gate::default();
            continue;
        };
        let mut unknown = Track::default();
        let track = state.workloads.get_mut(id).unwrap_or(&mut unknown);
        to(id, track);
        if let Some(entry) = plan.workloads.get_mut(id) {
            *entry = wanted(track, &case.config.ladder, case.sample.at);
        }
    }
}

fn fatal(workload: Option<&WorkloadId>, invariant: u8, message: String) -> Finding {
    Finding { workload: workload.cloned(), invariant, fatal: true, message }
}
