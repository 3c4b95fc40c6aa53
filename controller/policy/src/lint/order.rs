//! Invariants 1, 2 and 3: nobody before his turn, nobody who is out of bounds, one kill at a time.

use super::{Case, fatal, gpus};
use crate::concession::Level;
use crate::plan::{Act, Finding, Plan, Wanted};
use crate::sample::{Preference, Qos, Rung, Workload, WorkloadId};
use crate::units::{Bytes, Limit, Share};

/// A lower workload must have this much to give, and give it well, before its being spared is a mistake.
const PLENTY: Bytes = Bytes::mib(64);
/// With less anon than this a kill frees next to nothing.
pub(super) const CRUMBS: Bytes = Bytes::mib(4);

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    let claimed = claimed(case, plan);
    for (id, wanted) in plan.workloads.iter().filter(|(_, w)| w.rung > Rung::Free) {
        let Some(workload) = case.sample.workloads.get(id) else { continue };
        if out_of_bounds(case, workload) && !only_drops_garbage(case, workload, wanted) {
            let message = format!("{} of a workload that may not be touched", wanted.rung);
            findings.push(fatal(Some(id), 2, message));
        } else if wanted.rung > Rung::Free && !may(case, workload, wanted.rung) {
            findings.push(fatal(Some(id), 2, format!("{} is none of its rungs", wanted.rung)));
        } else if raised(case, id, wanted)
            && let Some(spared) = spared(case, plan, claimed, workload, wanted)
        {
            let message =
                format!("{} while {spared} of lower priority still has memory to give", wanted.rung);
            findings.push(fatal(Some(id), 1, message));
        }
    }
    gate(case, plan, findings);
    kills(case, plan, findings);
}

/// Swap that those who yield already may fill.
fn claimed(case: Case<'_>, plan: &Plan) -> Bytes {
    let yielding = plan.workloads.iter().filter(|(_, w)| w.rung > Rung::Free);
    yielding.filter_map(|(id, _)| case.sample.workloads.get(id)?.current).sum()
}

pub(super) fn out_of_bounds(case: Case<'_>, workload: &Workload) -> bool {
    workload.spec.preference == Preference::Omit || workload.spec.priority >= case.config.protect_priority
}

/// The protected may be asked to drop what refills by itself, and nothing is done to them.
fn only_drops_garbage(case: Case<'_>, workload: &Workload, wanted: &Wanted) -> bool {
    let protected = workload.spec.preference != Preference::Omit && out_of_bounds(case, workload);
    let asked = wanted.wish.as_ref().is_some_and(|wish| wish.level == Level::Gc);
    let left_alone = (wanted.high, wanted.reclaim, wanted.frozen, wanted.kill) == (None, None, false, false);
    protected && asked && left_alone && wanted.rung == Rung::Trim
}

/// One that is asked for the sake of a GPU is in the order of those who hold memory there ([`super::wishes`]).
fn raised(case: Case<'_>, id: &WorkloadId, wanted: &Wanted) -> bool {
    let for_gpu = wanted.rung == Rung::Offload && wanted.wish.as_ref().is_some_and(|it| !it.gpus.is_empty());
    // The leash is the way back, or in.
    wanted.rung >= Rung::Throttle && wanted.rung > case.before.rung(id) && !for_gpu && !wanted.leash
}

/// A workload that should have yielded before this one.
fn spared<'a>(
    case: Case<'a>,
    plan: &Plan,
    claimed: Bytes,
    above: &Workload,
    wanted: &Wanted,
) -> Option<&'a WorkloadId> {
    let now = |id: &WorkloadId| plan.workloads.get(id).map_or(Rung::Free, |w| w.rung);
    let lower = |w: &Workload| rank(w) < rank(above) && !out_of_bounds(case, w) && w.populated != Some(false);
    let could_die = |w: &Workload| match wanted.killed_for() {
        Some(gpu) => gpus::could_die(case, w, gpu),
        None => could_die(case, w),
    };
    let spared = |id: &WorkloadId, w: &Workload| match wanted.rung {
        Rung::Kill => could_die(w) && now(id) < Rung::Kill,
        _ => could_shrink(case, claimed, id, w) && now(id) == Rung::Free,
    };
    case.sample.workloads.iter().find(|(id, w)| lower(w) && spared(id, w)).map(|(id, _)| id)
}

pub(super) fn rank(workload: &Workload) -> (bool, i32, Qos) {
    let spec = &workload.spec;
    (spec.preference == Preference::Avoid, spec.priority, spec.qos)
}

pub(super) fn may(case: Case<'_>, workload: &Workload, rung: Rung) -> bool {
    case.config.ladder.rungs.contains(&rung) && workload.spec.rungs.contains(&rung)
}

fn could_die(case: Case<'_>, workload: &Workload) -> bool {
    let anon = workload.stat.map(|s| s.anon);
    may(case, workload, Rung::Kill) && workload.current.is_some() && anon.is_some_and(|a| a >= CRUMBS)
}

/// Whether it has anon that would fit into swap beside that of those whose turn came before, and gave well so far.
fn could_shrink(case: Case<'_>, claimed: Bytes, id: &WorkloadId, workload: &Workload) -> bool {
    let Some(stat) = workload.stat.filter(|_| workload.current.is_some()) else { return false };
    let swap = case.sample.host.meminfo.map_or(Bytes::ZERO, |m| m.swap_free);
    let room = match workload.swap_max {
        Some(Limit::Bytes(max)) => max.saturating_sub(workload.swap.unwrap_or_default()),
        _ => Bytes(u64::MAX),
    };
    let shrinks = stat.anon.saturating_sub(stat.unevictable).min(swap.saturating_sub(claimed)).min(room);
    let gives = || {
        let learned = case.before.of_one(id).learned.on(Rung::Trim, case.sample.at).worth;
        learned.ratio >= Share::percent(50) && learned.per_second >= PLENTY
    };
    shrinks >= PLENTY && may(case, workload, Rung::Trim) && gives()
}

fn gate(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    let targets = plan.gate.targets.iter().map(|id| (id, case.sample.workloads.get(id)));
    let targets: Vec<_> = targets.collect();
    let good = |w: &Workload| !out_of_bounds(case, w) && may(case, w, Rung::Freeze);
    if let Some((id, _)) = targets.iter().find(|(_, w)| !w.is_some_and(good)) {
        findings.push(fatal(None, 2, format!("the gate would stop {id}, which may not be frozen")));
    }
    // It can stop a whole priority only, so it stops the lowest.
    if !plan.gate.armed() {
        return;
    }
    let Some((spared, lowest)) = lowest(case, plan) else { return };
    let above = |w: &Workload| rank(w) > rank(lowest);
    if let Some((id, _)) = targets.iter().find(|(_, w)| w.is_some_and(above)) {
        findings.push(fatal(None, 1, format!("the gate would stop {id} before {spared}")));
    }
}

/// The one that the gate should stop first.
fn lowest<'a>(case: Case<'a>, plan: &Plan) -> Option<(&'a WorkloadId, &'a Workload)> {
    let dying = plan.workloads.iter().filter(|(_, w)| w.kill).map(|(id, _)| id);
    let evicted = case.sample.outcomes.iter().filter(|it| it.act == Act::Evict).map(|it| &it.workload);
    let out: Vec<_> = dying.chain(evicted).chain(case.before.leaving()).collect();
    let stays = |id: &WorkloadId| !out.contains(&id);
    let open =
        |w: &Workload| !out_of_bounds(case, w) && may(case, w, Rung::Freeze) && w.populated != Some(false);
    case.sample.workloads.iter().filter(|(id, w)| open(w) && stays(id)).min_by_key(|(_, w)| rank(w))
}

/// Kills in flight that this plan adds to.
fn kills(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    let deadline = case.config.ladder.kill_deadline;
    let running = plan.workloads.iter().filter(|(id, w)| {
        if !w.kill {
            return false;
        }
        let former = case.before.held(id);
        let alive = case.sample.workloads.get(*id).is_some_and(|w| w.populated != Some(false));
        alive && former.rung == Rung::Kill && case.sample.at.since(former.since) < deadline
    });
    let allowed = 1_usize.saturating_sub(running.count());
    let new = plan.workloads.iter().filter(|(id, w)| w.kill && case.before.held(id).rung != Rung::Kill);
    for (id, _) in new.skip(allowed) {
        findings.push(fatal(Some(id), 3, "a kill while another one is in flight".into()));
    }
}
