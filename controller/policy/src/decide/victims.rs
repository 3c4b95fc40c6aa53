//! Who yields first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Turn;
use crate::relief::Candidate;
use crate::roles::{self, Rank};
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Span};

/// Those that ask to be avoided yield last; the lowest priority first, and of equals the lowest quality of service; then the one of
/// whom most is freed, then the cheapest to start again. Ties are broken by the order of the ids, which is that of the walk.
pub(crate) type Place = (Rank, Reverse<Bytes>, u64);

pub(crate) fn place(workload: &Workload, freed: Bytes) -> Place {
    let spec = &workload.spec;
    (roles::rank(spec), Reverse(freed), spec.restart_cost_ms)
}

/// The eligible workloads that are braked or could give anything on a rung short of a kill, in the order in which they yield.
/// Few are asked before the need is met, so they are put in order one by one.
pub(crate) fn victims<'t>(
    turn: &'t Turn<'_>,
    rung: Rung,
    within: Span,
    swap_free: Bytes,
) -> impl Iterator<Item = (&'t WorkloadId, &'t Workload, &'t Track)> {
    let mut all = Vec::new();
    let mut order = Vec::new();
    // Who leaves gives what it has, and can't end if it is braked.
    let stays = |w: &Workload, t: &Track| roles::is_eligible(turn.config, w) && !turn.is_leaving(t);
    for (id, workload, track) in turn.tracked().filter(|(_, w, t)| stays(w, t)) {
        let candidate = turn.candidate(workload, track, swap_free);
        if let Some(candidate) = candidate.filter(Candidate::can_yield) {
            order.push(Reverse((place(workload, freed(&candidate, rung, within, turn)), all.len())));
            all.push((id, workload, track));
        }
    }
    let mut order = BinaryHeap::from(order);
    std::iter::from_fn(move || order.pop().and_then(|Reverse((_, n))| all.get(n).copied()))
}

fn freed(candidate: &Candidate<'_>, rung: Rung, within: Span, turn: &Turn<'_>) -> Bytes {
    let relief = candidate.relief(rung, within, &turn.config.ladder).total();
    if rung == Rung::Trim { relief + candidate.holding.file } else { relief }
}
