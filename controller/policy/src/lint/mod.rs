//! Looks at a plan with fresh eyes before anybody acts on it.
//!
//! Each rule is an invariant of the README's list, as far as one pass can see it, and shares no code with
//! the decisions: a mistake there must not be made here again. A fatal finding takes the action out of the plan; the workload
//! keeps what it was on, or is let go where that is no better.

mod harmony;
mod order;
mod shape;
#[cfg(test)]
mod tests;
mod timing;

use std::collections::BTreeMap;

use crate::config::Config;
use crate::decide::wanted;
use crate::learned::Learned;
use crate::plan::{Finding, Gate, Plan, Tier};
use crate::sample::{Sample, WorkloadId};
use crate::state::{Held, State, Track};
use crate::units::Monotonic;

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
}

impl Before {
    pub(crate) fn of(state: &State) -> Self {
        let other = Former::default();
        let telling =
            |t: &Track| t.held != other.held || t.learned != other.learned || !t.repeats.brakes.is_empty();
        let former =
            |t: &Track| Former { held: t.held.clone(), learned: t.learned, brakes: t.repeats.brakes.clone() };
        let tracks = state.workloads.iter().filter(|(_, t)| telling(t));
        Self { of: tracks.map(|(id, t)| (id.clone(), former(t))).collect(), other }
    }

    fn of_one(&self, id: &WorkloadId) -> &Former {
        self.of.get(id).unwrap_or(&self.other)
    }

    pub(crate) fn held(&self, id: &WorkloadId) -> &Held {
        &self.of_one(id).held
    }
}

/// A plan with all that it is held against.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) config: &'a Config,
    pub(crate) before: &'a Before,
    pub(crate) sample: &'a Sample,
    pub(crate) tier: Tier,
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
    findings
}

/// Takes what has a fatal finding out of the plan and out of the state.
pub(crate) fn block(case: Case<'_>, findings: &[Finding], state: &mut State, plan: &mut Plan) {
    revert(case, findings, state, plan, |id| case.before.held(id).clone());
    if findings.iter().any(|f| f.fatal) {
        let still = lint(case, plan);
        let protected = |id: &WorkloadId| {
            case.sample.workloads.get(id).is_some_and(|w| w.spec.priority >= case.config.protect_priority)
        };
        let low = |id: &WorkloadId| case.before.held(id).low.filter(|_| protected(id));
        revert(case, &still, state, plan, |id| Held {
            low: low(id),
            since: case.sample.at,
            ..Held::default()
        });
    }
}

fn revert(
    case: Case<'_>,
    findings: &[Finding],
    state: &mut State,
    plan: &mut Plan,
    to: impl Fn(&WorkloadId) -> Held,
) {
    for finding in findings.iter().filter(|f| f.fatal) {
        let Some(id) = &finding.workload else {
            plan.gate = Gate::default();
            state.gate = Gate::default();
            continue;
        };
        let mut unknown = Track::default();
        let track = state.workloads.get_mut(id).unwrap_or(&mut unknown);
        track.held = to(id);
        if let Some(entry) = plan.workloads.get_mut(id) {
            *entry = wanted(track, &case.config.ladder, case.sample.at);
        }
    }
}

fn fatal(workload: Option<&WorkloadId>, invariant: u8, message: String) -> Finding {
    Finding { workload: workload.cloned(), invariant, fatal: true, message }
}
