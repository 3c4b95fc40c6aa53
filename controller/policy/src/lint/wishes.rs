//! Wishes: asked of nobody before those who matter less (1), of nobody who may not or can't be asked (2, 6), offload and unload not in
//! calm, and restores one at a time (7).

use super::order::{may, out_of_bounds, rank};
use super::{Case, fatal};
use crate::concession::{Level, Wish};
use crate::gpu::GpuId;
use crate::plan::{Finding, Plan, Tier};
use crate::sample::{Preference, Rung, Trigger, Workload, WorkloadId};
use crate::units::Bytes;

/// One who matters less must hold this much of a GPU before its being spared is a mistake.
const PLENTY: Bytes = Bytes::mib(256);

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    let new = plan.workloads.iter().filter_map(|(id, w)| Some((id, w.wish.as_ref()?)));
    let new = new.filter(|(id, wish)| is_new(case, id, wish));
    for (id, wish) in new.filter(|(_, wish)| wish.level > Level::Nothing) {
        let Some(workload) = case.sample.workloads.get(id) else { continue };
        if let Some((invariant, why)) = forbidden(case, workload, wish) {
            findings.push(fatal(Some(id), invariant, format!("asked for {}, {why}", wish.level)));
        } else if let Some(spared) = spared(case, plan, workload, wish) {
            let message = format!("asked for {} while {spared} of lower priority is not", wish.level);
            findings.push(fatal(Some(id), 1, message));
        }
    }
    restores(case, plan, findings);
}

fn is_new(case: Case<'_>, id: &WorkloadId, wish: &Wish) -> bool {
    let before = case.before.voluntary(id).and_then(|it| it.wish.as_ref());
    before.is_none_or(|before| before.number != wish.number)
}

fn forbidden(case: Case<'_>, workload: &Workload, wish: &Wish) -> Option<(u8, &'static str)> {
    let protected = out_of_bounds(case, workload) && wish.level > Level::Gc;
    let offers = workload.offer.as_ref().is_some_and(|offer| offer.levels.contains_key(&wish.level));
    let facts = [
        (workload.spec.preference == Preference::Omit || protected, 2, "and may not be"),
        (!may(case, workload, wish.level.rung()), 2, "which is none of its rungs"),
        (!offers, 2, "which it does not offer"),
        (workload.frozen == Some(true), 6, "and is frozen"),
        (workload.populated == Some(false), 6, "and is empty"),
        (in_calm(case, wish), 7, "in calm"),
    ];
    facts.into_iter().find_map(|(wrong, invariant, why)| wrong.then_some((invariant, why)))
}

fn in_calm(case: Case<'_>, wish: &Wish) -> bool {
    let tier = |gpu: &GpuId| case.gpus.get(gpu).map_or(Tier::Normal, |seen| seen.tier);
    let worst = wish.gpus.iter().map(tier).max().unwrap_or(case.tier);
    let least = if wish.level >= Level::Offload { Tier::Constrained } else { Tier::Elevated };
    worst < least
}

/// One that holds memory on the same GPU, could be asked as well and was never, although it matters less.
fn spared<'a>(case: Case<'a>, plan: &Plan, above: &Workload, wish: &Wish) -> Option<&'a WorkloadId> {
    if wish.level < Level::Offload {
        return None;
    }
    let holds = |w: &Workload| {
        wish.gpus.iter().any(|gpu| w.gpus.get(gpu).copied().flatten().is_some_and(|bytes| bytes >= PLENTY))
    };
    // An offload may have no room on the host; an unload always has.
    let could = |w: &Workload| {
        let offers = w.offer.as_ref().is_some_and(|offer| offer.levels.contains_key(&Level::Unload));
        offers && may(case, w, Rung::Offload) && !out_of_bounds(case, w) && w.populated != Some(false)
    };
    let asked = |id: &WorkloadId| {
        let never =
            case.before.voluntary(id).is_none_or(|it| it.pauses.is_empty() && it.repeats.brakes.is_empty());
        !never || plan.workloads.get(id).is_some_and(|w| w.wish.is_some())
    };
    let lower = |w: &Workload| rank(w) < rank(above) && w.frozen != Some(true);
    let mut all = case.sample.workloads.iter();
    all.find(|(id, w)| lower(w) && holds(w) && could(w) && !asked(id)).map(|(id, _)| id)
}

fn restores(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    if case.sample.trigger == Trigger::Shutdown {
        return;
    }
    let new = plan.workloads.iter().filter(|(id, w)| {
        let wish = w.wish.as_ref().filter(|wish| wish.level == Level::Nothing);
        // Those who may no longer be asked get back what they gave at once.
        let paced = case.sample.workloads.get(*id).is_some_and(|w| {
            !out_of_bounds(case, w) && may(case, w, Rung::Offload) && w.populated != Some(false)
        });
        paced && wish.is_some_and(|wish| is_new(case, id, wish))
    });
    for (id, _) in new.skip(1) {
        findings.push(fatal(Some(id), 7, "restored at once with another workload".into()));
    }
}
