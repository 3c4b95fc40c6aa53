//! Invariants 4 and 5: no `memory.high` below the floor or without an end, and nothing set that the rung does not stand for.

use super::{Case, fatal};
use crate::concession::Level;
use crate::plan::{Finding, Plan, Wanted};
use crate::sample::{Rung, Workload};
use crate::units::{Bytes, Limit};

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    for (id, wanted) in &plan.workloads {
        if let Some(what) = mismatch(wanted) {
            findings.push(fatal(Some(id), 5, format!("{what} does not belong to {}", wanted.rung)));
        }
        let Some(workload) = case.sample.workloads.get(id) else {
            findings.push(fatal(Some(id), 5, "a workload that the sample does not have".into()));
            continue;
        };
        if let Some((invariant, message)) = excess(case, wanted, workload) {
            findings.push(fatal(Some(id), invariant, message));
        }
        // Neither who holds a value nor who raises it sets it below the floor: the workload's own growth carried it past.
        let before = case.before.held(id).high;
        let set = wanted.high.filter(|high| before.is_none_or(|before| *high < before));
        if let Some((high, floor)) = set.zip(floor(case, workload)).filter(|(high, floor)| high < floor) {
            findings.push(fatal(Some(id), 4, format!("memory.high {high} is below the floor of {floor}")));
        }
    }
}

fn mismatch(wanted: &Wanted) -> Option<&'static str> {
    let asked = wanted.wish.as_ref().map_or(Rung::Free, |wish| wish.level.rung());
    let facts = [
        (wanted.high.is_some() && !limits(wanted), "memory.high"),
        (wanted.frozen != (wanted.rung == Rung::Freeze), "cgroup.freeze"),
        (wanted.kill != (wanted.rung == Rung::Kill), "cgroup.kill"),
        (wanted.rung == Rung::Offload && asked != Rung::Offload, "no wish"),
        (wanted.rung < asked, "the wish"),
        (wanted.reclaim.is_some() && !matches!(wanted.rung, Rung::Trim | Rung::Freeze), "memory.reclaim"),
    ];
    facts.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
}

/// A throttle, be it on one that is unloading; what moves memory to the host must not meet a limit there.
fn limits(wanted: &Wanted) -> bool {
    let unloads = || wanted.wish.as_ref().is_some_and(|wish| wish.level == Level::Unload);
    wanted.rung == Rung::Throttle || (wanted.rung == Rung::Offload && unloads())
}

/// What belongs to the rung, and is more than it may be.
fn excess(case: Case<'_>, wanted: &Wanted, workload: &Workload) -> Option<(u8, String)> {
    let ladder = &case.config.ladder;
    let latest = case.sample.at + ladder.throttle_lease;
    if wanted.high.is_some() && wanted.until.is_none_or(|until| until > latest) {
        return Some((4, format!("memory.high without an end within {}", ladder.throttle_lease)));
    }
    if wanted.low.is_some() && workload.spec.priority < case.config.protect_priority {
        return Some((5, "memory.low does not belong to what is not protected".into()));
    }
    let budget = wanted.reclaim.filter(|budget| *budget > ladder.reclaim_step)?;
    Some((5, format!("memory.reclaim of {budget} where a step is {}", ladder.reclaim_step)))
}

/// What can't be reclaimed at all, as `memory.stat` has it.
fn floor(case: Case<'_>, workload: &Workload) -> Option<Bytes> {
    let stat = workload.stat?;
    let swap_free = case.sample.host.meminfo.map_or(Bytes::ZERO, |m| m.swap_free);
    let room = match workload.swap_max {
        Some(Limit::Bytes(max)) => max.saturating_sub(workload.swap.unwrap_or_default()),
        _ => Bytes(u64::MAX),
    };
    let resident = stat.anon + stat.shmem;
    let swappable = resident.saturating_sub(stat.unevictable).min(swap_free).min(room);
    Some(resident.saturating_sub(swappable) + stat.kernel.saturating_sub(stat.slab_reclaimable))
}
