//! Kills for a GPU: only where that is in emergency and somebody else wants the room (7), by readings of this moment (6), and
//! of somebody who holds memory there (1).

use super::order::{may, out_of_bounds};
use super::{Case, fatal};
use crate::gpu::GpuId;
use crate::plan::{Finding, GpuAssessment, Plan, Tier};
use crate::sample::{Rung, Workload};
use crate::units::Bytes;

/// A lower workload must hold this part of the memory before its being spared is a mistake.
const PLENTY: u64 = 50;

pub(super) fn lint(case: Case<'_>, plan: &Plan, findings: &mut Vec<Finding>) {
    for (id, wanted) in &plan.workloads {
        let Some(gpu) = wanted.killed_for().filter(|_| case.before.held(id).rung < Rung::Kill) else {
            continue;
        };
        let seen = case.gpus.get(gpu);
        let holds = case.sample.workloads.get(id).is_some_and(|w| held(w, gpu) > Bytes::ZERO);
        let facts = [
            (seen.is_none_or(GpuAssessment::is_stale), 6, "which could not be read"),
            (seen.is_some_and(|seen| seen.tier < Tier::Emergency), 7, "which is in no emergency"),
            (seen.is_some_and(|seen| !seen.contested), 7, "which nobody wants more of"),
            (!holds, 1, "of which it holds nothing"),
        ];
        for (_, invariant, why) in facts.into_iter().filter(|(wrong, ..)| *wrong) {
            findings.push(fatal(Some(id), invariant, format!("a kill for gpu:{gpu}, {why}")));
        }
    }
}

/// Whether its death would have made room there.
pub(super) fn could_die(case: Case<'_>, workload: &Workload, gpu: &GpuId) -> bool {
    let total = case.sample.gpus.get(gpu).and_then(|gpu| gpu.total).unwrap_or_default();
    let plenty = held(workload, gpu) >= Bytes(total.0 / PLENTY).max(Bytes(1));
    plenty && workload.current.is_some() && may(case, workload, Rung::Kill) && !out_of_bounds(case, workload)
}

fn held(workload: &Workload, gpu: &GpuId) -> Bytes {
    workload.gpus.get(gpu).copied().flatten().unwrap_or_default()
}
