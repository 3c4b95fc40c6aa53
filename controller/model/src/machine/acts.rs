//! The plan's end state, brought about with the delays of a real machine.

use plimsoll_policy::plan::{Act, ActResult, Outcome, Plan};
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::{Bytes, Monotonic, Span};

use super::{MIB, Machine, TICK_MS};

/// From `cgroup.freeze` to `frozen 1`.
const FREEZE_MS: u64 = 20;
/// From `cgroup.kill` to `populated 0`, besides the memory's own time.
const KILL_MS: u64 = 80;
/// Clean file pages are dropped at this rate.
const DROP: u64 = 1024 * MIB;

impl Machine {
    pub(crate) fn apply(&mut self, plan: &Plan) {
        let now = self.now_ms;
        for (id, wanted) in &plan.workloads {
            let Some(process) = self.processes.get_mut(id).filter(|p| !p.dead) else { continue };
            process.high = wanted.high.map(|h| h.0);
            process.low = wanted.low.map_or(0, |l| l.0);
            match (wanted.frozen, process.frozen_at) {
                (true, None) => process.frozen_at = Some(now + FREEZE_MS),
                (false, Some(_)) => (process.frozen_at, process.frozen) = (None, false),
                _ => {}
            }
            if wanted.kill && process.dies_at.is_none() {
                process.dies_at = Some(now + KILL_MS + process.anon / (4 * MIB));
                self.killed.push(process.spec.name.clone());
            }
            if process.reclaim.is_none() {
                process.reclaim = wanted.reclaim.map(|budget| (budget.0, 0, now));
            }
        }
    }

    pub(crate) fn act(&mut self) {
        let now = self.now_ms;
        let ids: Vec<_> = self.processes.keys().cloned().collect();
        for id in ids {
            let process = self.entry(&id);
            process.frozen = process.frozen_at.is_some_and(|at| at <= now);
            if process.dies_at.is_some_and(|at| at <= now) && !process.dead && !process.immortal {
                self.die(&id);
            }
            self.reclaim_one(&id);
        }
    }

    fn reclaim_one(&mut self, id: &WorkloadId) {
        let Some((asked, freed, begun)) = self.processes[id].reclaim else { return };
        let process = self.entry(id);
        let dropped = (asked - freed).min(process.file).min(DROP * TICK_MS / 1000);
        process.file -= dropped;
        let swapped = self.swap_out(id, (asked - freed - dropped).min(self.swap_speed * TICK_MS / 1000));
        let got = dropped + swapped;
        let freed = freed + got;
        self.entry(id).reclaim = Some((asked, freed, begun));
        if got == 0 || freed == asked {
            self.entry(id).reclaim = None;
            let result = if freed == asked { ActResult::Done } else { ActResult::Partial };
            let at = |ms| Monotonic(0) + Span::millis(10_000 + ms);
            self.outcomes.push(Outcome {
                workload: id.clone(),
                act: Act::Reclaim(Bytes(asked)),
                result,
                begun: at(begun),
                took: Span::millis(self.now_ms + TICK_MS - begun),
                freed: Some(Bytes(freed)),
            });
        }
    }
}
