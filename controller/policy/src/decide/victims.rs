//! Who yields first.

use std::cmp::Reverse;

use super::Turn;
use crate::relief::Candidate;
use crate::roles;
use crate::sample::{Preference, Rung, WorkloadId};
use crate::units::{Bytes, Span};

/// The eligible workloads in the order in which they yield: those that ask to be avoided last; the
/// lowest priority first; among equals the one of whom this rung frees most, then the cheapest to start again.
pub(crate) fn victims(turn: &Turn<'_>, rung: Rung, within: Span, swap_free: Bytes) -> Vec<WorkloadId> {
    let mut order: Vec<_> = turn
        .tracked()
        .filter(|(_, w, _)| roles::is_eligible(turn.config, w))
        .filter_map(|(id, w, track)| {
            let freed = freed(&turn.candidate(id, w, track, swap_free)?, rung, within, turn);
            let avoid = w.spec.preference == Preference::Avoid;
            Some(((avoid, w.spec.priority, Reverse(freed), w.spec.restart_cost_ms, id), id))
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, id)| id.clone()).collect()
}

fn freed(candidate: &Candidate<'_>, rung: Rung, within: Span, turn: &Turn<'_>) -> Bytes {
    let relief = candidate.relief(rung, within, &turn.config.ladder).total();
    if rung == Rung::Trim { relief + candidate.holding.file } else { relief }
}
