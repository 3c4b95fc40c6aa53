//! The plan's end state, brought about with the delays of a real machine.

use plimsoll_policy::plan::{Act, ActResult, Outcome, Plan};
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::{Bytes, Span};

use super::hardware::per_tick;
use super::memory::Tick;
use super::{MIB, Machine, TICK_MS, moment};

/// From `cgroup.freeze` to `frozen 1`.
const FREEZE_MS: u64 = 20;
/// From `cgroup.kill` to `populated 0`, besides the memory's own time.
const KILL_MS: u64 = 80;
/// Exits give back so many bytes in a millisecond: 0.1 to 0.25 s for a GiB of small pages.
const EXIT: u64 = 4 * MIB;
/// Clean file pages are dropped at this rate.
const DROP: u64 = 1024 * MIB;

impl Machine {
    pub(super) fn apply(&mut self, plan: &Plan) {
        let now = self.now_ms;
        for (id, process) in self.processes.iter_mut().filter(|(_, p)| !p.dead) {
            let wanted = &plan.workloads[id];
            process.high = wanted.high.map(|h| h.0);
            process.low = wanted.low.map_or(0, |l| l.0);
            match (wanted.frozen, process.frozen_at) {
                (true, None) => process.frozen_at = Some(now + FREEZE_MS),
                (false, Some(_)) => (process.frozen_at, process.frozen) = (None, false),
                _ => {}
            }
            if wanted.kill && process.dies_at.is_none() {
                process.dies_at = Some(now + KILL_MS + process.anon / EXIT);
                self.killed.push(process.spec.name.clone());
            }
            let has = process.anon + process.swap;
            if let Some((giver, wish)) = process.giver.as_mut().zip(wanted.wish.as_ref()) {
                giver.wish(wish, now, has);
            }
            if process.reclaim.is_none() {
                process.reclaim = wanted.reclaim.map(|budget| (budget.0, 0, now));
            }
        }
        self.gate.clone_from(&plan.gate.targets);
    }

    /// The gate: who is a target stops at his next fault once anybody had to reclaim for himself.
    pub(super) fn stop_targets(&mut self) {
        for id in std::mem::take(&mut self.gate) {
            if let Some(process) = self.processes.get_mut(&id).filter(|p| !p.dead && p.frozen_at.is_none()) {
                (process.frozen_at, process.frozen) = (Some(self.now_ms), true);
            }
        }
    }
}

impl Tick<'_> {
    /// Goes on with what is under way; gives the indices of those whose reclaim came to its end.
    pub(crate) fn act(&mut self, ids: &[&WorkloadId]) {
        for (i, id) in ids.iter().enumerate() {
            let process = &mut *self.all[i];
            process.frozen = process.frozen_at.is_some_and(|at| at <= self.now);
            if process.dies_at.is_some_and(|at| at <= self.now) && !process.dead && !process.immortal {
                self.die(i);
            }
            self.reclaim_one(i, id);
            if self.all[i].runs() {
                self.give(i, id);
            }
        }
    }

    fn reclaim_one(&mut self, i: usize, id: &WorkloadId) {
        let process = &mut *self.all[i];
        let Some((asked, freed, begun)) = process.reclaim else { return };
        let dropped = (asked - freed).min(process.file).min(per_tick(DROP));
        process.file -= dropped;
        self.free += dropped;
        let swapped = self.swap_out(i, (asked - freed - dropped).min(self.swap_step));
        let got = dropped + swapped;
        let freed = freed + got;
        self.all[i].reclaim = Some((asked, freed, begun));
        if got == 0 || freed == asked {
            self.all[i].reclaim = None;
            let result = if freed == asked { ActResult::Done } else { ActResult::Partial };
            self.outcomes.push(Outcome {
                workload: (*id).clone(),
                act: Act::Reclaim(Bytes(asked)),
                result,
                begun: moment(begun),
                took: Span::millis(self.now + TICK_MS - begun),
                freed: Some(Bytes(freed)),
            });
        }
    }
}
