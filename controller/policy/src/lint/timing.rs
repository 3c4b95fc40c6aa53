//! Invariant 6: what can't be undone, and what stops a workload, rests on fresh readings.

use super::{Case, fatal};
use crate::plan::{Finding, Plan};
use crate::sample::Rung;

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    for (id, wanted) in plan.workloads.iter().filter(|(_, w)| w.rung >= Rung::Freeze) {
        let Some(workload) = case.sample.workloads.get(id) else { continue };
        let already = wanted.rung == Rung::Freeze && workload.frozen == Some(true);
        if wanted.rung <= case.before.rung(id) || already {
            continue;
        }
        let blind = [
            (case.sample.host.meminfo.is_none(), "meminfo could not be read"),
            (workload.current.is_none(), "memory.current could not be read"),
            (workload.populated == Some(false), "the cgroup is empty"),
        ];
        for why in blind.into_iter().filter_map(|(wrong, why)| wrong.then_some(why)) {
            findings.push(fatal(Some(id), 6, format!("{} although {why}", wanted.rung)));
        }
    }
}
