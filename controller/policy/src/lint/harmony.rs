//! Invariant 7: no brake in calm, and no stampede when workloads are let go.

use super::{Case, fatal};
use crate::plan::{Finding, Plan, Tier, Wanted};
use crate::sample::{Preference, Rung, Trigger, WorkloadId};

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    if case.sample.trigger == Trigger::Shutdown {
        return;
    }
    for (id, wanted) in &plan.workloads {
        if brake_in_calm(case, id, wanted) {
            findings.push(fatal(Some(id), 7, format!("{} although the tier is normal", wanted.rung)));
        }
    }
    let thawed: Vec<_> = plan.workloads.iter().filter(|(id, w)| thaws(case, id, w)).collect();
    for (id, _) in thawed.iter().skip(1) {
        findings.push(fatal(Some(id), 7, "thawed at once with another workload".into()));
    }
}

fn brake_in_calm(case: Case<'_>, id: &WorkloadId, wanted: &Wanted) -> bool {
    let already = case.sample.workloads.get(id).is_some_and(|w| w.frozen == Some(true));
    let raised = wanted.rung >= Rung::Throttle && wanted.rung > case.before.held(id).rung;
    case.tier == Tier::Normal && raised && !already
}

/// Thawed by the paced way down; one that has died or may no longer be touched is let go in any case.
fn thaws(case: Case<'_>, id: &WorkloadId, wanted: &Wanted) -> bool {
    let Some(workload) = case.sample.workloads.get(id) else { return false };
    let may_stay = workload.spec.preference != Preference::Omit
        && workload.spec.priority < case.config.protect_priority
        && workload.populated != Some(false)
        && case.config.ladder.rungs.contains(&Rung::Freeze)
        && workload.spec.rungs.contains(&Rung::Freeze);
    let withdrawn = case.sample.outcomes.iter().any(|o| o.workload == *id);
    case.before.held(id).rung == Rung::Freeze && wanted.rung < Rung::Freeze && may_stay && !withdrawn
}
