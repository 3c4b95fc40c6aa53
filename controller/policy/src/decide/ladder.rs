//! Raises rungs from the lowest victim up, each to the gentlest rung that is enough.
//!
//! Trimming costs a workload little, so it works towards calm: below what elevated may be left at. A throttle or a
//! freeze costs it its progress, so these are for staying below what constrained may be left at, and no more: memory
//! that nobody else needs is not refused to the lowest either.

use super::turn::{Turn, part};
use super::victims::victims;
use crate::assess::{Memory, time_for};
use crate::plan::{Evidence, Tier};
use crate::relief::{BRAKE_AHEAD, CRUMBS, Candidate, HORIZON, Relief, SLOW, residual};
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Span};

/// While the tier is above normal this share of the memory is kept really free, out of the caches of the
/// expendable: then reclaim has no reason to look at those of the protected.
const FREE_PERCENT: u32 = 3;

/// What is still wanted when a victim's turn comes.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// In headroom, to be calm.
    calm: Bytes,
    /// In headroom, to be out of constrained with the growth of the next moment: what brakes are for.
    brake: Bytes,
    /// In free pages, which page cache can give as well.
    free: Bytes,
    /// Within this time.
    within: Span,
    /// Swap that nobody has been promised yet.
    swap: Bytes,
}

impl Need {
    /// What a rung may be used for.
    fn of(&self, rung: Rung) -> Bytes {
        if rung >= Rung::Throttle { self.brake } else { self.calm }
    }
}

pub(crate) fn raise(turn: &mut Turn<'_>) {
    let Some(memory) = turn.memory() else { return };
    let Some(mut strongest) = strongest(turn.tier()) else { return };
    let mut need = need(turn, &memory);
    for id in victims(turn, strongest, need.within, need.swap) {
        if is_spared(turn, &id, need.swap) {
            // Nobody is braked in place of one that matters less.
            strongest = strongest.min(Rung::Trim);
        }
        if need.calm == Bytes::ZERO && need.brake == Bytes::ZERO && need.free == Bytes::ZERO {
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
    let host = &turn.config.host;
    let above =
        |share, growth, within| memory.above(share, growth, BRAKE_AHEAD).saturating_sub(turn.pending(within));
    let left = time_for(memory.headroom, falling).unwrap_or(HORIZON);
    Need {
        calm: above(host.elevated.leave, Bytes::ZERO, HORIZON),
        brake: above(host.constrained.leave, falling, BRAKE_AHEAD),
        free: free_wanted(memory),
        within: left.clamp(BRAKE_AHEAD, HORIZON),
        swap: memory.swap_free,
    }
}

/// Whether a brake on it would be worth while, and only its budget forbids it.
fn is_spared(turn: &Turn<'_>, id: &WorkloadId, swap_free: Bytes) -> bool {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return false;
    };
    let worth = |c: Candidate<'_>| worthwhile(c.relief(Rung::Freeze, BRAKE_AHEAD, &turn.config.ladder));
    spent(turn, track, Rung::Freeze) && turn.candidate(id, workload, track, swap_free).is_some_and(worth)
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
    let changed = rung > track.held.brake();
    let evidence = || {
        let growth = turn.growth(id);
        turn.because([
            Evidence::Tier { tier: turn.tier(), deficit: need.of(rung) },
            Evidence::Yield { expected: relief.bytes },
            Evidence::Growth { bytes_per_second: growth },
        ])
    };
    let evidence = if changed { evidence() } else { Vec::new() };
    let soon = candidate.relief(rung, BRAKE_AHEAD, &turn.config.ladder);
    let file = candidate.holding.file;
    if changed {
        turn.put(id, rung, evidence);
    }
    need.calm = need.calm.saturating_sub(relief.total());
    need.brake = need.brake.saturating_sub(soon.total());
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
    let now = candidate.track.held.brake();
    let relief = |rung| candidate.relief(rung, need.within, &turn.config.ladder);
    let soon = |rung| candidate.relief(rung, BRAKE_AHEAD, &turn.config.ladder);
    let in_the_end = |candidate: &Candidate<'_>| {
        let lag = candidate.estimate(Rung::Freeze).worth.lag;
        candidate.relief(Rung::Freeze, BRAKE_AHEAD.saturating_add(lag), &turn.config.ladder).total()
    };
    let mut best = (now, relief(now));
    for rung in [Rung::Trim, Rung::Throttle, Rung::Freeze] {
        // A brake is for the next moment, so what gentler rungs bring later does not count against it.
        let brakes = rung >= Rung::Throttle;
        let has = if brakes { soon(best.0).total() } else { best.1.total() };
        if has >= need.of(rung) {
            continue;
        }
        let reach = reach(turn, candidate, strongest);
        let spills = rung == Rung::Throttle && candidate.spills() && reach >= Rung::Freeze;
        if spills && roles::allows(turn.config, workload, Rung::Freeze) {
            continue;
        }
        if rung > now && rung <= reach && open(turn, workload, candidate, rung) {
            let given = if brakes { soon(rung) } else { relief(rung) };
            // Where nothing is enough, what is reclaimed must at least not come back: a frozen one can't refault.
            let keeps = rung == Rung::Freeze && given.bytes >= CRUMBS && in_the_end(candidate) >= has;
            if worthwhile(given) && (keeps || given.total() > has) {
                best = (rung, relief(rung));
            }
        }
    }
    let cache = need.free > Bytes::ZERO && candidate.holding.file >= CRUMBS;
    let leashed = candidate.track.held.leash.is_some();
    if best.0 == Rung::Free && cache && !leashed && roles::allows(turn.config, workload, Rung::Trim) {
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
    // Trimming would take a workload that is being let go off its leash.
    let leashed = rung == Rung::Trim && candidate.track.held.leash.is_some();
    roles::allows(turn.config, workload, rung) && !futile && !leashed && !spent(turn, candidate.track, rung)
}

/// Whether the brakes of the hour are used up; survival is not bound by that.
fn spent(turn: &Turn<'_>, track: &Track, rung: Rung) -> bool {
    let begins = rung >= Rung::Throttle && track.held.rung < Rung::Throttle;
    begins && turn.tier() < Tier::Emergency && track.repeats.spent(&turn.config.ladder, turn.at()).is_some()
}
