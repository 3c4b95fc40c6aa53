//! Invariant 7: no brake in calm or beyond the budget, no stampede and no queue-jumping when workloads are let go, no
//! freeze without an end.

use super::order::rank;
use super::{Case, fatal};
use crate::plan::{Act, Finding, Plan, Tier, Wanted};
use crate::sample::{Preference, Rung, Trigger, Workload, WorkloadId};
use crate::units::Span;

/// A brake counts for this long.
const HOUR: Span = Span::secs(3600);
/// What is overdue may have to wait for the others: thaws are this far apart.
const EACH: Span = Span::secs(2);
/// What probes bear is less than what they count by a second.
const PROBED: Span = Span::secs(1);
/// And a little longer: the last pass may have been a while ago.
const LATE: Span = Span::secs(10);

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    if case.sample.trigger == Trigger::Shutdown {
        return;
    }
    for (id, wanted) in &plan.workloads {
        if brake_in_calm(case, id, wanted) {
            findings.push(fatal(Some(id), 7, format!("{} although the tier is normal", wanted.rung)));
        } else if beyond_budget(case, id, wanted) {
            let most = case.config.ladder.actions_per_hour;
            findings.push(fatal(Some(id), 7, format!("{}, its brake {} of the hour", wanted.rung, most + 1)));
        }
    }
    for (id, wanted) in plan.workloads.iter().filter(|(_, w)| w.frozen) {
        if let Some(what) = fails_its_probes(case, id, wanted) {
            findings.push(fatal(Some(id), 7, what.into()));
        }
    }
    thaws(case, plan, findings);
    if let Some(id) = overdue(case, plan) {
        let most = case.config.ladder.freeze_max;
        findings.push(fatal(Some(id), 7, format!("frozen for longer than {most}")));
    }
}

fn brake_in_calm(case: Case<'_>, id: &WorkloadId, wanted: &Wanted) -> bool {
    let raised = wanted.rung >= Rung::Throttle && wanted.rung > case.before.rung(id);
    let of_host = wanted.rung != Rung::Offload && wanted.killed_for().is_none();
    case.tier == Tier::Normal && raised && of_host && !is_frozen(case, id)
}

/// Survival is not bound by the budget.
fn beyond_budget(case: Case<'_>, id: &WorkloadId, wanted: &Wanted) -> bool {
    let brakes = matches!(wanted.rung, Rung::Throttle | Rung::Freeze);
    let begins = brakes && case.before.held(id).rung < Rung::Throttle && !is_frozen(case, id);
    let recent = case.before.of_one(id).brakes.iter().filter(|at| case.sample.at.since(**at) < HOUR).count();
    begins && case.tier < Tier::Emergency && recent >= case.config.ladder.actions_per_hour as usize
}

fn is_frozen(case: Case<'_>, id: &WorkloadId) -> bool {
    case.sample.workloads.get(id).is_some_and(|w| w.frozen == Some(true))
}

fn thaws(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    let thawed = plan.workloads.iter().filter_map(|(id, w)| Some((id, thawed(case, id, w)?)));
    let thawed: Vec<_> = thawed.filter(|(id, _)| !must_run(case, id)).collect();
    for (id, _) in thawed.iter().skip(1) {
        findings.push(fatal(Some(id), 7, "thawed at once with another workload".into()));
    }
    let waits = |above: &Workload| {
        let stays = |id: &WorkloadId, w: &Wanted| w.frozen && case.before.held(id).rung == Rung::Freeze;
        let frozen = plan.workloads.iter().filter(|(id, w)| stays(id, w));
        frozen
            .map(|(id, _)| id)
            .find(|id| case.sample.workloads.get(id).is_some_and(|w| rank(w) > rank(above)))
    };
    // One whose time is up goes whoever else has to stay.
    let early = thawed.iter().take(1).filter(|(id, _)| !has_lasted(case, id, case.config.ladder.freeze_max));
    for (id, other) in early.filter_map(|(id, w)| Some((id, waits(w)?))) {
        findings.push(fatal(Some(id), 7, format!("thawed before {other}, which matters more")));
    }
}

/// A freeze that goes on although a probe would fail once too often, or that begins before one could succeed.
fn fails_its_probes(case: Case<'_>, id: &WorkloadId, wanted: &Wanted) -> Option<&'static str> {
    let most = case.sample.workloads.get(id)?.spec.freeze_max.filter(|_| wanted.frozen)?;
    let goes_on = case.before.held(id).rung == Rung::Freeze;
    if goes_on {
        return has_lasted(case, id, most.saturating_add(PROBED))
            .then_some("frozen for longer than its probes bear");
    }
    let (at, spell) = (case.sample.at, case.before.of_one(id).spell?);
    let again = spell.until <= at && at.since(spell.last) < most;
    again.then_some("frozen again before a probe could succeed")
}

/// Whether it can't wait for its turn: its probes don't let it, or it is to end in order.
fn must_run(case: Case<'_>, id: &WorkloadId) -> bool {
    let before = case.before.of_one(id);
    let evicted = case.sample.outcomes.iter().any(|it| it.workload == *id && it.act == Act::Evict);
    let leaves = before.eviction.as_ref().is_some_and(|it| it.leaves.is_some());
    leaves || evicted || before.spell.is_some_and(|spell| spell.until <= case.sample.at)
}

/// Thawed by the paced way down; one that has died or may no longer be touched is let go in any case.
fn thawed<'a>(case: Case<'a>, id: &WorkloadId, wanted: &Wanted) -> Option<&'a Workload> {
    let workload = case.sample.workloads.get(id)?;
    let may_stay = workload.spec.preference != Preference::Omit
        && workload.spec.priority < case.config.protect_priority
        && workload.populated != Some(false)
        && case.config.ladder.rungs.contains(&Rung::Freeze)
        && workload.spec.rungs.contains(&Rung::Freeze);
    let withdrawn = case.sample.outcomes.iter().any(|o| o.workload == *id);
    let thawed = case.before.held(id).rung == Rung::Freeze && wanted.rung < Rung::Freeze;
    (thawed && may_stay && !withdrawn).then_some(workload)
}

/// One that stays frozen although its time is up, and the host could have borne it for long enough to let it go: one at a time.
fn overdue<'a>(case: Case<'_>, plan: &'a Plan) -> Option<&'a WorkloadId> {
    let eased = case.eased.filter(|_| case.tier < Tier::Critical)?;
    let frozen =
        || plan.workloads.iter().filter(|(id, w)| w.frozen && case.before.held(id).rung == Rung::Freeze);
    let queue = Span(EACH.0.saturating_mul(frozen().count() as u64));
    let due = |id| (case.before.held(id).since + case.config.ladder.freeze_max).max(eased);
    frozen().map(|(id, _)| id).find(|id| case.sample.at >= due(id) + LATE + queue)
}

fn has_lasted(case: Case<'_>, id: &WorkloadId, most: Span) -> bool {
    case.sample.at.since(case.before.held(id).since) >= most
}
