//! The survival target, and the one rung that can't be undone.

use super::explain::{Ask, explain};
use super::turn::part;
use super::victims::{place, victims};
use super::{Turn, spell};
use crate::assess::{Memory, time_for, we_brake_somebody};
use crate::holding::Holding;
use crate::plan::{Evidence, Tier};
use crate::relief::{CRUMBS, residual};
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Share, Span};

/// The protected are given room for this much growth.
const AHEAD: Span = Span::secs(2);
/// However long a kill takes, it is not begun earlier than this before exhaustion.
const LONGEST: Span = Span::millis(2400);
/// What those lack at least who thrash although the level is not that high.
const LACKING_PERCENT: u32 = 2;
/// Two readings this far apart are still one story: twice the default pace of calm.
const CONTINUOUS: Span = Span::secs(1);
/// Reclaim that promises enough must deliver within this time.
const PATIENCE: Span = Span::secs(5);

pub(crate) fn consider(turn: &mut Turn<'_>) {
    let Some(memory) = turn.memory().map(Memory::without_promises) else { return };
    // After a gap, one look at how full it is says nothing of where it is going; a freeze can be undone.
    if !turn.state.available.is_continuous(CONTINUOUS) {
        return;
    }
    let needed = needed(turn, &memory).saturating_sub(asked(turn));
    let desperate = needed > Bytes::ZERO && desperate(turn, &memory, needed);
    let since = desperate.then(|| turn.state.desperate.unwrap_or(turn.at()).min(turn.at()));
    turn.state.desperate = since;
    let Some(since) = since else { return };
    let within = if turn.at().since(since) < PATIENCE { left(turn, &memory) } else { Span::ZERO };
    let gentler = gentler(turn, &memory, within);
    if gentler >= needed {
        return;
    }
    if let Some(Victim { id, bytes: expected, .. }) =
        first(turn).filter(|victim| !is_missing_below(turn, victim))
    {
        let evidence =
            turn.because([Evidence::NothingGentler { gentler, needed }, Evidence::Yield { expected }]);
        let ask = Ask { rung: Rung::Kill, needed, within, horizon: AHEAD, swap: memory.swap_free };
        let taken = explain(turn, &id, ask);
        turn.put(&id, Rung::Kill, evidence);
        turn.explained(&id, taken);
    }
}

/// Bytes to get out of emergency, with room for the protected, less what is on its way. Protected workloads that thrash
/// or stall lack something whatever the level says.
fn needed(turn: &Turn<'_>, memory: &Memory) -> Bytes {
    let above = memory.above(turn.config.host.emergency.leave, memory.protected_growth, AHEAD);
    let lacking = if panics(turn) || stalls(turn) { part(memory, LACKING_PERCENT) } else { Bytes::ZERO };
    above.max(lacking).saturating_sub(turn.pending(AHEAD))
}

/// What asking still brings before it is too late. Whoever waits for it longer than for reclaim waits in vain.
fn asked(turn: &Turn<'_>) -> Bytes {
    let waited = turn.state.desperate.map_or(Span::ZERO, |since| turn.at().since(since));
    let patience = Span(PATIENCE.0.saturating_sub(waited.0));
    turn.promised(turn.patience().min(patience))
}

/// Refaults of the protected at the rate of an emergency.
fn panics(turn: &Turn<'_>) -> bool {
    let limit = turn.config.host.emergency.thrash;
    turn.assessed.report.thrash_per_second.zip(limit).is_some_and(|(t, limit)| t >= limit)
}

/// Waiting of the protected at the share of an emergency.
fn stalls(turn: &Turn<'_>) -> bool {
    turn.assessed.report.stall.is_some_and(|s| s >= turn.config.host.emergency.stall)
}

/// Whether waiting is worse. A level alone is not: something must still be growing, or the protected suffer. Where
/// what is needed fits into swap the kernel can move it there, and growth alone means waiting, not dying.
fn desperate(turn: &Turn<'_>, memory: &Memory, needed: Bytes) -> bool {
    let host = &turn.config.host;
    let used = Share::of(memory.used().0, memory.total.0).unwrap_or_default();
    let falling = residual(memory, turn.just_stopped());
    let swaps = swappable(turn, memory) >= needed;
    let too_late = !swaps && time_for(memory.headroom, falling).is_some_and(|left| left < kill_takes(turn));
    let panic = panics(turn);
    let stalled = stalls(turn);
    let full = used >= host.emergency.used && ((falling > Bytes::ZERO && !swaps) || suffering(turn));
    match turn.tier() {
        Tier::Emergency => full || too_late || (used >= host.critical.leave && (panic || stalled)),
        Tier::Critical => too_late || (used >= host.critical.leave && panic),
        _ => false,
    }
}

/// Anon of the expendable for which swap has room.
fn swappable(turn: &Turn<'_>, memory: &Memory) -> Bytes {
    if memory.swap_free == Bytes::ZERO {
        return Bytes::ZERO;
    }
    let of = |w| Holding::of(w, memory.swap_free, &turn.config.ladder).map(|h| h.swappable);
    let all: Bytes = turn
        .tracked()
        .filter(|(_, w, _)| roles::is_eligible(turn.config, w))
        .filter_map(|(_, w, _)| of(w))
        .sum();
    all.min(memory.swap_free)
}

/// How long before exhaustion the kill has to begin.
fn kill_takes(turn: &Turn<'_>) -> Span {
    first(turn).map_or(Span::ZERO, |victim| victim.takes.min(LONGEST))
}

/// Where the protected can't be seen to suffer, they are taken to.
fn suffering(turn: &Turn<'_>) -> bool {
    let host = &turn.config.host;
    let report = &turn.assessed.report;
    let blind = || {
        let protected = roles::protected(turn.config, turn.sample).next().is_some();
        protected || !we_brake_somebody(turn.config, turn.state, turn.sample)
    };
    let stalled = report.stall.map_or_else(blind, |s: Share| s >= host.constrained.stall);
    let thrashes = report.thrash_per_second.zip(host.constrained.thrash).is_some_and(|(t, limit)| t >= limit);
    stalled || thrashes
}

/// How long gentler rungs may take.
fn left(turn: &Turn<'_>, memory: &Memory) -> Span {
    time_for(memory.headroom, residual(memory, turn.just_stopped())).unwrap_or(AHEAD).min(AHEAD)
}

/// What all gentler rungs of all victims bring in time.
fn gentler(turn: &Turn<'_>, memory: &Memory, within: Span) -> Bytes {
    let mut swap = memory.swap_free;
    let mut sum = Bytes::ZERO;
    for (_, workload, track) in victims(turn, Rung::Freeze, within, swap) {
        let Some(candidate) = turn.candidate(workload, track, swap) else { continue };
        let rungs = [Rung::Trim, Rung::Throttle, Rung::Freeze];
        let rests = spell::rests(workload, track, turn.at()).is_some();
        let open = rungs
            .into_iter()
            .filter(|&r| roles::allows(turn.config, workload, r) && !(r == Rung::Freeze && rests));
        let best = open.map(|r| candidate.relief(r, within, &turn.config.ladder).bytes).max();
        let best = best.unwrap_or_default();
        swap = swap.saturating_sub(best);
        sum = sum + best;
    }
    sum
}

/// Who would be killed.
struct Victim {
    id: WorkloadId,
    /// What its death gives back to headroom.
    bytes: Bytes,
    /// From the decision until it is there.
    takes: Span,
}

/// The first victim whose death would give something back, if no other kill is under way. One that was killed and did not die in
/// time is on its last rung: the next one's turn has come.
fn first(turn: &Turn<'_>) -> Option<Victim> {
    if turn.held(|r| r == Rung::Kill).any(|(_, w, t)| turn.kill_in_flight(w, t)) {
        return None;
    }
    let open = |w: &Workload, track: &Track| {
        let allowed = roles::is_eligible(turn.config, w) && roles::allows(turn.config, w, Rung::Kill);
        allowed && track.held.rung < Rung::Kill
    };
    let could_die = turn.tracked().filter(|(_, w, track)| open(w, track)).filter_map(|(id, w, track)| {
        let candidate = turn.candidate(w, track, Bytes::ZERO)?;
        let relief = candidate.relief(Rung::Kill, AHEAD, &turn.config.ladder);
        (relief.bytes >= CRUMBS).then(|| (place(w, relief.total()), id, candidate, relief.bytes))
    });
    let (_, id, candidate, bytes) = could_die.min_by_key(|(place, ..)| *place)?;
    Some(Victim { id: id.clone(), bytes, takes: candidate.estimate(Rung::Kill).takes(bytes) })
}

/// Whether one that would be killed before this victim could not be read this time. The next look comes soon, and a kill can't be
/// undone; one that can't be read for longer is passed over.
fn is_missing_below(turn: &Turn<'_>, victim: &Victim) -> bool {
    let rank = |w: &Workload| roles::rank(&w.spec);
    let Some(of_victim) = turn.sample.workloads.get(&victim.id).map(rank) else { return false };
    turn.tracked().any(|(_, w, track)| {
        let open = roles::is_eligible(turn.config, w) && roles::allows(turn.config, w, Rung::Kill);
        let lately = track.usage.age(turn.at()).is_some_and(|age| age < CONTINUOUS);
        open && track.held.rung < Rung::Kill && rank(w) < of_victim && w.current.is_none() && lately
    })
}

/// Whether this workload is the one that would be killed.
pub(crate) fn is_next(turn: &Turn<'_>, id: &WorkloadId) -> bool {
    first(turn).is_some_and(|victim| victim.id == *id)
}
