//! Looks at a plan with fresh eyes before anybody acts on it.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::plan::{Assessment, Finding, Plan, Wanted};
use crate::sample::{Preference, Rung, Sample, WorkloadId};
use crate::state::{Held, State};

/// What was held before the pass.
pub(crate) struct Before(BTreeMap<WorkloadId, Held>);

impl Before {
    pub(crate) fn of(state: &State) -> Self {
        Self(state.workloads.iter().map(|(id, t)| (id.clone(), t.held.clone())).collect())
    }
}

/// Every invariant that one pass can see.
pub(crate) fn lint(
    config: &Config,
    before: &Before,
    sample: &Sample,
    assessment: &Assessment,
    plan: &Plan,
) -> Vec<Finding> {
    let _ = (before, assessment);
    let mut findings = Vec::new();
    for (id, wanted) in &plan.workloads {
        let Some(workload) = sample.workloads.get(id) else { continue };
        let untouchable =
            workload.spec.preference == Preference::Omit || workload.spec.priority >= config.protect_priority;
        if untouchable && wanted.rung > Rung::Free {
            findings.push(Finding {
                workload: Some(id.clone()),
                invariant: 2,
                fatal: true,
                message: format!("{} of a workload that may not be touched", wanted.rung),
            });
        }
    }
    findings
}

/// Takes what has a fatal finding out of the plan.
pub(crate) fn block(findings: &[Finding], before: &Before, state: &mut State, plan: &mut Plan) {
    let _ = before;
    for id in findings.iter().filter(|f| f.fatal).filter_map(|f| f.workload.as_ref()) {
        if let Some(track) = state.workloads.get_mut(id) {
            track.held = Held { low: track.held.low, ..Held::default() };
        }
        if let Some(wanted) = plan.workloads.get_mut(id) {
            *wanted = Wanted { low: wanted.low, ..Wanted::default() };
        }
    }
}
