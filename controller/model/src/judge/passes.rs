//! What passes show as they go by: kills, brakes that come back, findings.

use std::collections::BTreeMap;

use plimsoll_policy::pass::Pass;
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};
use plimsoll_policy::units::{Monotonic, Span};

/// A brake that comes back within this time flaps.
const FLAP: Span = Span::secs(60);

#[derive(Default)]
pub(super) struct Passes {
    pub(super) count: u64,
    pub(super) findings: u64,
    pub(super) flaps: u64,
    /// Kills that were decided since this was last emptied.
    pub(super) kills: Vec<WorkloadId>,
    braked: BTreeMap<WorkloadId, Brake>,
}

#[derive(Clone, Copy)]
struct Brake {
    rung: Rung,
    ended: Option<Monotonic>,
}

impl Passes {
    pub(super) fn look(&mut self, sample: &Sample, pass: &Pass) {
        self.count += 1;
        self.findings += pass.findings.len() as u64;
        self.braked.retain(|id, _| sample.workloads.contains_key(id));
        for (id, wanted) in &pass.plan.workloads {
            let former = self.braked.get(id).copied();
            let before = former.map_or(Rung::Free, |b| b.rung);
            if wanted.rung < Rung::Throttle && before < Rung::Throttle {
                continue;
            }
            if wanted.kill && before < Rung::Kill {
                self.kills.push(id.clone());
            }
            let begins = wanted.rung >= Rung::Throttle && before < Rung::Throttle;
            let ended = former.and_then(|b| b.ended);
            let soon = ended.is_some_and(|at| sample.at.since(at) < FLAP);
            self.flaps += u64::from(begins && soon);
            let ended = if wanted.rung < Rung::Throttle { Some(sample.at) } else { ended };
            self.braked.insert(id.clone(), Brake { rung: wanted.rung, ended });
        }
    }
}
