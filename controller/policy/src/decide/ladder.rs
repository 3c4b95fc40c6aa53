//! Raises rungs for the calm target: from the lowest victim up, each to the gentlest rung that is enough.

use super::turn::{Turn, part};
use super::victims::victims;
use crate::assess::{Memory, time_for};
use crate::plan::{Evidence, Tier};
use crate::relief::{BRAKE_AHEAD, CRUMBS, Candidate, HORIZON, Relief, SLOW, residual};
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::units::{Bytes, Span};

/// While the tier is above normal this share of the memory is kept really free, out of the caches of the
/// expendable: then reclaim has no reason to look at those of the protected.
const FREE_PERCENT: u32 = 3;

/// What is still wanted when a victim's turn comes.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// In headroom.
    bytes: Bytes,
    /// In free pages, which page cache can give as well.
    free: Bytes,
    /// Within this time.
    within: Span,
    /// Swap that nobody has been promised yet.
    swap: Bytes,
}

pub(crate) fn raise(turn: &mut Turn<'_>) {
    let Some(memory) = turn.memory() else { return };
    let Some(strongest) = strongest(turn.tier()) else { return };
    let mut need = need(turn, &memory);
    for id in victims(turn, strongest, need.within, need.swap) {
        if need.bytes == Bytes::ZERO && need.free == Bytes::ZERO {
            break;
        }
        serve(turn, &id, strongest, &mut need);
    }
}

/// The strongest rung short of a kill that a tier allows.
fn strongest(tier: Tier) -> Option<Rung> {
    match tier {
        Tier::Normal => None,
        Tier::Elevated => Some(Rung::Trim),
        Tier::Constrained => Some(Rung::Throttle),
        Tier::Critical | Tier::Emergency => Some(Rung::Freeze),
    }
}

fn need(turn: &Turn<'_>, memory: &Memory) -> Need {
    let falling = residual(memory, turn.just_stopped());
    let above = memory.above(turn.config.host.elevated.leave, falling, BRAKE_AHEAD);
    let left = time_for(memory.headroom, falling).unwrap_or(HORIZON);
    Need {
        bytes: above.saturating_sub(turn.pending()),
        free: free_wanted(memory),
        within: left.clamp(BRAKE_AHEAD, HORIZON),
        swap: memory.swap_free,
    }
}

/// Free pages that are lacking.
pub(crate) fn free_wanted(memory: &Memory) -> Bytes {
    part(memory, FREE_PERCENT).saturating_sub(memory.free)
}

fn serve(turn: &mut Turn<'_>, id: &WorkloadId, strongest: Rung, need: &mut Need) {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return;
    };
    let Some(candidate) = turn.candidate(id, workload, track, need.swap) else { return };
    let (rung, relief) = choose(turn, workload, &candidate, strongest, need);
    let changed = rung > track.held.rung;
    let evidence = || {
        let growth = turn.growth(id);
        turn.because([
            Evidence::Tier { tier: turn.tier(), deficit: need.bytes },
            Evidence::Yield { expected: relief.bytes },
            Evidence::Growth { bytes_per_second: growth },
        ])
    };
    let evidence = if changed { evidence() } else { Vec::new() };
    let file = candidate.holding.file;
    if changed {
        turn.put(id, rung, evidence);
    }
    need.bytes = need.bytes.saturating_sub(relief.total());
    need.swap = need.swap.saturating_sub(relief.bytes);
    if rung >= Rung::Trim {
        need.free = need.free.saturating_sub(file + relief.bytes);
    }
}

/// The gentlest rung that is enough; where none is, the one that gives most. Never lower than now.
fn choose(
    turn: &Turn<'_>,
    workload: &Workload,
    candidate: &Candidate<'_>,
    strongest: Rung,
    need: &Need,
) -> (Rung, Relief) {
    let now = candidate.track.held.rung;
    let relief = |rung| candidate.relief(rung, need.within, &turn.config.ladder);
    let mut best = (now, relief(now));
    for rung in [Rung::Trim, Rung::Throttle, Rung::Freeze] {
        if best.1.total() >= need.bytes {
            break;
        }
        if rung > now && rung <= reach(turn, candidate, strongest) && open(turn, workload, candidate, rung) {
            let given = relief(rung);
            // Where nothing is enough, what is reclaimed must at least not come back: a frozen one can't refault.
            let keeps = rung == Rung::Freeze && given.bytes >= CRUMBS && given.total() == best.1.total();
            if worthwhile(given) && (keeps || given.total() > best.1.total()) {
                best = (rung, given);
            }
        }
    }
    let cache = need.free > Bytes::ZERO && candidate.holding.file >= CRUMBS;
    if best.0 == Rung::Free && cache && roles::allows(turn.config, workload, Rung::Trim) {
        best = (Rung::Trim, relief(Rung::Trim));
    }
    best
}

/// A workload whose throttle was futile is frozen where another one would be throttled.
fn reach(turn: &Turn<'_>, candidate: &Candidate<'_>, strongest: Rung) -> Rung {
    let futile = strongest == Rung::Throttle && turn.at() < candidate.track.no_throttle;
    if futile { Rung::Freeze } else { strongest }
}

fn worthwhile(relief: Relief) -> bool {
    relief.bytes >= CRUMBS || relief.growth >= SLOW
}

fn open(turn: &Turn<'_>, workload: &Workload, candidate: &Candidate<'_>, rung: Rung) -> bool {
    let futile = rung == Rung::Throttle && turn.at() < candidate.track.no_throttle;
    roles::allows(turn.config, workload, rung) && !futile
}
