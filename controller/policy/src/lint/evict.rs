//! Evictions: of nobody who may not be ended here (2), of nobody before those who matter less (1), one at a time (3), and neither in calm
//! nor where there is no time for it (7).

use super::order::{may, out_of_bounds, rank};
use super::{Case, fatal};
use crate::plan::{Evidence, Finding, Plan, Tier, Wanted};
use crate::sample::{Rung, Workload, WorkloadId};

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    let wanted = plan.workloads.iter().filter(|(_, w)| w.evict);
    for (id, wanted) in wanted.clone().filter(|(id, _)| is_new(case, id)) {
        let Some(workload) = case.sample.workloads.get(id) else { continue };
        if let Some((invariant, why)) = forbidden(case, workload, wanted) {
            findings.push(fatal(Some(id), invariant, format!("evicted {why}")));
        } else if let Some(spared) = spared(case, plan, workload).filter(|_| !is_for_gpu(wanted)) {
            let message = format!("evicted while {spared} of lower priority could be");
            findings.push(fatal(Some(id), 1, message));
        }
    }
    // The one that was first stays.
    let mut all: Vec<_> = wanted.map(|(id, _)| (is_new(case, id), id)).collect();
    all.sort();
    for (_, id) in all.into_iter().skip(1) {
        findings.push(fatal(Some(id), 3, "evicted while another one is".into()));
    }
}

fn is_new(case: Case<'_>, id: &WorkloadId) -> bool {
    case.before.of_one(id).eviction.as_ref().is_none_or(|it| it.wanted.is_none())
}

fn is_for_gpu(wanted: &Wanted) -> bool {
    wanted.evidence.iter().any(|fact| matches!(fact, Evidence::OnGpu { .. }))
}

fn forbidden(case: Case<'_>, workload: &Workload, wanted: &Wanted) -> Option<(u8, &'static str)> {
    let kubernetes = &case.config.kubernetes;
    let facts = [
        (!kubernetes.enabled || !kubernetes.evict, 2, "although nobody is to be"),
        (out_of_bounds(case, workload), 2, "although it may not be touched"),
        (!could(case, workload), 2, "although it may not be ended"),
        (workload.populated == Some(false), 6, "although it is empty"),
        (case.tier == Tier::Normal && !is_for_gpu(wanted), 7, "in calm"),
        (case.tier == Tier::Emergency, 7, "although there is no time for it"),
    ];
    facts.into_iter().find_map(|(wrong, invariant, why)| wrong.then_some((invariant, why)))
}

fn could(case: Case<'_>, workload: &Workload) -> bool {
    workload.spec.evictable.is_some() && may(case, workload, Rung::Kill)
}

/// One that matters less, has been braked for as long, and was not refused. One with a longer grace may have no time for it.
fn spared<'a>(case: Case<'a>, plan: &Plan, above: &Workload) -> Option<&'a WorkloadId> {
    let after = case.config.kubernetes.evict_after;
    let lower = |w: &Workload| {
        let quick = w.spec.evictable <= above.spec.evictable;
        rank(w) < rank(above) && quick && could(case, w) && !out_of_bounds(case, w)
    };
    let unheld = |id: &WorkloadId| {
        let before = case.before.of_one(id).eviction.as_deref();
        let brakes = |w: &Wanted| matches!(w.rung, Rung::Throttle | Rung::Freeze) && !w.leash;
        let braked = plan.workloads.get(id).is_some_and(brakes);
        braked
            && before.is_some_and(|it| {
                it.braked >= after && it.wanted.is_none() && it.pause.until <= case.sample.at
            })
    };
    let lives =
        |w: &Workload| w.populated != Some(false) && w.stat.is_some_and(|s| s.anon >= super::order::CRUMBS);
    let mut all = case.sample.workloads.iter();
    all.find(|(id, w)| lower(w) && unheld(id) && lives(w)).map(|(id, _)| id)
}
