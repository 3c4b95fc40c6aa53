//! What became of earlier actions: yields are learned, second looks are respected, the gate's stops are taken over.

use super::Turn;
use crate::plan::{Act, ActResult, Evidence, Outcome, Tier};
use crate::sample::{Rung, WorkloadId};
use crate::state::{Learned, Track};
use crate::units::{Bytes, Monotonic, Share, Span};

/// Rest after a fruitless reclaim; doubles with each further one.
const REST: Span = Span::millis(500);
/// It doubles at most this often.
const RESTS: u32 = 6;
/// Less freed than this part of what was asked is fruitless.
const FRUITLESS: Share = Share::percent(10);

pub(crate) fn settle(turn: &mut Turn<'_>) {
    for outcome in &turn.sample.outcomes {
        take(turn, outcome);
    }
    adopt(turn);
}

fn take(turn: &mut Turn<'_>, outcome: &Outcome) {
    let at = turn.at();
    let Some(track) = turn.state.workloads.get_mut(&outcome.workload) else { return };
    match (outcome.act, &outcome.result) {
        (Act::Reclaim(asked), ActResult::Done | ActResult::Partial) => {
            if let Some(freed) = outcome.freed {
                track.learned.take(asked, freed, outcome.took, at);
            }
        }
        (Act::Freeze | Act::Kill, ActResult::Withdrawn) if matches(track, outcome) => {
            withdraw(turn, &outcome.workload);
        }
        _ => {}
    }
}

/// A kill is decided anew from the bottom up. A freeze stands while the host is short: the second look saw no more
/// than that nothing grew in that instant, which is no reason to start over.
fn withdraw(turn: &mut Turn<'_>, id: &WorkloadId) {
    let kill = turn.state.workloads.get(id).is_some_and(|t| t.held.rung == Rung::Kill);
    let frozen = turn.sample.workloads.get(id).is_some_and(|w| w.frozen == Some(true));
    if kill && frozen {
        // It was frozen before; that a kill is not needed is no reason to thaw it.
        turn.put(id, Rung::Freeze, turn.because([]));
    } else if kill || turn.tier() < Tier::Constrained {
        turn.put(id, Rung::Free, Vec::new());
    }
}

/// Whether the outcome is of the rung that is still in force, not of an earlier one.
fn matches(track: &Track, outcome: &Outcome) -> bool {
    let rung = if outcome.act == Act::Kill { Rung::Kill } else { Rung::Freeze };
    track.held.rung == rung && outcome.begun >= track.held.since
}

impl Learned {
    /// A moving average with the weight on the newest: conditions change within seconds.
    fn take(&mut self, asked: Bytes, freed: Bytes, took: Span, at: Monotonic) {
        let Some(ratio) = Share::of(freed.0.min(asked.0), asked.0) else { return };
        self.ratio = Share(self.ratio.0 / 2 + ratio.0 / 2).min(Share::ONE);
        let speed = u128::from(freed.0) * 1_000_000_000 / u128::from(took.0.max(1_000_000));
        let speed = u64::try_from(speed).unwrap_or(u64::MAX);
        self.per_second = Bytes(self.per_second.0 / 2 + speed / 2);
        if ratio >= FRUITLESS {
            self.fruitless = 0;
            return;
        }
        self.rest_until = at + Span(REST.0 << self.fruitless.min(RESTS));
        self.fruitless = (self.fruitless + 1).min(RESTS);
    }
}

/// A target of the gate that is found frozen was stopped by it: the plan takes it over instead of thawing it.
fn adopt(turn: &mut Turn<'_>) {
    let stopped = |id: &WorkloadId| {
        let frozen = turn.sample.workloads.get(id).is_some_and(|w| w.frozen == Some(true));
        frozen && turn.state.workloads.get(id).is_some_and(|t| t.held.rung < Rung::Freeze)
    };
    let adopted: Vec<_> = turn.state.gate.targets.iter().filter(|id| stopped(id)).cloned().collect();
    for id in adopted {
        let growth = Evidence::Growth { bytes_per_second: turn.growth(&id) };
        let evidence = turn.because([growth]);
        turn.put(&id, Rung::Freeze, evidence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_are_learned_and_fruitless_reclaim_rests() {
        let mut learned = Learned::default();
        learned.take(Bytes::mib(64), Bytes::mib(32), Span::secs(1), Monotonic(0));
        assert_eq!((learned.ratio, learned.per_second), (Share::percent(75), Bytes::mib(116)));
        let mut rests = Vec::new();
        for _ in 0..3 {
            learned.take(Bytes::mib(64), Bytes::ZERO, Span::secs(1), Monotonic(0));
            rests.push(learned.rest_until.0 / 1_000_000);
        }
        assert_eq!(rests, [500, 1000, 2000]);
        learned.take(Bytes::mib(64), Bytes::mib(64), Span::millis(1), Monotonic(0));
        assert_eq!(learned.fruitless, 0);
    }
}
