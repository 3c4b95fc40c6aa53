//! Invariants 4 and 5: no `memory.high` below the floor, and nothing set that the rung does not stand for.

use super::{Case, fatal};
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
        // Holding a value is not setting one: the workload's own growth may carry it past.
        let set = wanted.high.filter(|_| wanted.high != case.before.held(id).high);
        if let Some((high, floor)) = set.zip(floor(case, workload)).filter(|(high, floor)| high < floor) {
            findings.push(fatal(Some(id), 4, format!("memory.high {high} is below the floor of {floor}")));
        }
    }
    for id in case.sample.workloads.keys().filter(|id| !plan.workloads.contains_key(*id)) {
        findings.push(fatal(Some(id), 5, "a workload that the plan leaves out".into()));
    }
}

fn mismatch(wanted: &Wanted) -> Option<&'static str> {
    let facts = [
        (wanted.high.is_some() && wanted.rung != Rung::Throttle, "memory.high"),
        (wanted.frozen != (wanted.rung == Rung::Freeze), "cgroup.freeze"),
        (wanted.kill != (wanted.rung == Rung::Kill), "cgroup.kill"),
        (wanted.reclaim.is_some() && !matches!(wanted.rung, Rung::Trim | Rung::Freeze), "memory.reclaim"),
        (wanted.rung == Rung::Offload, "offload"),
    ];
    facts.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
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
