//! The throttle is a lease. It is stepped while it is needed, renewed while it helps, and withdrawn within a second
//! where it only torments: without swap a workload at `memory.high` scans for ever and gives nothing back.

use super::{Turn, spell};
use crate::holding::Holding;
use crate::plan::{Evidence, Tier};
use crate::relief::SLOW;
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::{Lease, Track};
use crate::units::{Bytes, Monotonic, Span};

/// How long a throttle has to show that it helps. With the time between two passes on a loaded machine that is a
/// second at most from the limit to its withdrawal.
pub(crate) const REVIEW: Span = Span::millis(750);
/// Time between two steps of `memory.high`: its reclaim has to be seen first.
const STEP: Span = Span::millis(500);
/// Reclaim that gets less than one page of this many scanned is getting nowhere.
const SCANS_PER_STEAL: u64 = 4;
/// `memory.current` must fall by this much to have fallen.
const FELL: Bytes = Bytes::mib(1);

/// With as much to give, a workload is not passed over for one that matters more.
const PLENTY: Bytes = Bytes::mib(64);

/// What a review says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Helps,
    NoMore,
    Futile,
}

pub(crate) fn review(turn: &mut Turn<'_>) {
    for id in turn.on(|r| r == Rung::Throttle) {
        let Some(workload) = turn.sample.workloads.get(&id) else { continue };
        let Some(track) = turn.state.workloads.get(&id).filter(|t| t.held.leash.is_none()) else { continue };
        if track.leaves().is_some() {
            renew(turn, &id, workload);
            continue;
        }
        match verdict(track, workload, turn.growth(&id), turn.at()) {
            Some(Verdict::Futile) => give_up(turn, &id, Tier::Constrained),
            Some(Verdict::Helps) => renew(turn, &id, workload),
            Some(Verdict::NoMore) | None if turn.at() >= track.held.lease.until => expire(turn, &id),
            Some(Verdict::NoMore) | None => {}
        }
    }
}

/// `None` while the review period runs.
fn verdict(track: &Track, workload: &Workload, growth: i64, at: Monotonic) -> Option<Verdict> {
    let lease = &track.held.lease;
    if at.since(lease.begun) < REVIEW {
        return None;
    }
    let current = workload.current?;
    let pushes = workload.events.is_some_and(|e| e.high > lease.high_events);
    let fell = current + FELL <= lease.current;
    if pushes && !fell && fruitless(lease, track) {
        return Some(Verdict::Futile);
    }
    let stopped = growth < i64::try_from(SLOW.0).unwrap_or(i64::MAX);
    Some(match (stopped, fell) {
        (true, _) => Verdict::Helps,
        // What left `memory.current` went to swap, and more came after it: no brake.
        (false, _) if pushes => Verdict::Futile,
        (false, true) => Verdict::Helps,
        (false, false) => Verdict::NoMore,
    })
}

fn fruitless(lease: &Lease, track: &Track) -> bool {
    let now = track.scan.last().zip(track.steal.last());
    let Some(((scan, steal), (scan_before, steal_before))) = now.zip(lease.scanned) else { return true };
    let (scanned, stolen) = (scan.saturating_sub(scan_before), steal.saturating_sub(steal_before));
    // Nothing new in `memory.stat`: what `memory.current` says stands alone.
    scanned == 0 || stolen.saturating_mul(SCANS_PER_STEAL) < scanned
}

/// Freeze where the host is still that short and the workload may be frozen, if need be in a moment; let go otherwise.
pub(crate) fn give_up(turn: &mut Turn<'_>, id: &WorkloadId, least: Tier) {
    let Some(workload) = turn.sample.workloads.get(id) else { return };
    let evidence = turn.because([
        Evidence::Futile { rung: Rung::Throttle },
        Evidence::Growth { bytes_per_second: turn.growth(id) },
    ]);
    let short = turn.tier() >= least && turn.memory().is_some();
    let rests = turn.state.workloads.get(id).and_then(|track| spell::rests(workload, track, turn.at()));
    if short && rests.is_some() && roles::allows(turn.config, workload, Rung::Freeze) {
        // It waits for its probes, and what little a limit does is better than nothing for that short time.
        renew(turn, id, workload);
        return;
    }
    // Where one that matters less has something to give, it is its turn, and need will find it.
    let freeze =
        short && roles::allows(turn.config, workload, Rung::Freeze) && !spares_another(turn, workload);
    turn.put(id, if freeze { Rung::Freeze } else { Rung::Free }, evidence);
    rest(turn, id);
}

/// Whether one of lower priority is left alone that has memory which trimming would give.
fn spares_another(turn: &Turn<'_>, workload: &Workload) -> bool {
    let rank = |w: &Workload| roles::rank(&w.spec);
    let swap_free = turn.memory().map_or(Bytes::ZERO, |memory| memory.swap_free);
    turn.tracked().any(|(_, other, track)| {
        let lower = rank(other) < rank(workload) && roles::is_eligible(turn.config, other);
        let gives = |holding: Holding| holding.swappable >= PLENTY;
        lower
            && track.held.rung == Rung::Free
            && roles::allows(turn.config, other, Rung::Trim)
            && Holding::of(other, swap_free, &turn.config.ladder).is_some_and(gives)
    })
}

fn expire(turn: &mut Turn<'_>, id: &WorkloadId) {
    let evidence = turn.because([Evidence::Futile { rung: Rung::Throttle }]);
    turn.put(id, Rung::Free, evidence);
    rest(turn, id);
}

/// No further throttle for as long as a hold would take by now.
fn rest(turn: &mut Turn<'_>, id: &WorkloadId) {
    let (at, hold) = (turn.at(), turn.config.ladder.hold);
    if let Some(track) = turn.state.workloads.get_mut(id) {
        let rest = Span(hold.0.saturating_mul(1 << track.repeats.times.min(8)));
        // For one that can't be held, to be held off is to be left alone.
        track.no_throttle = (at + rest).max(track.held_off);
    }
}

fn renew(turn: &mut Turn<'_>, id: &WorkloadId, workload: &Workload) {
    let (at, lasts) = (turn.at(), turn.config.ladder.throttle_lease);
    if let Some(track) = turn.state.workloads.get_mut(id) {
        track.held.lease = fresh(track, workload, at, lasts);
    }
}

pub(crate) fn fresh(track: &Track, workload: &Workload, at: Monotonic, lasts: Span) -> Lease {
    Lease {
        until: at + lasts,
        begun: at,
        current: workload.current.unwrap_or(track.held.lease.current),
        high_events: workload.events.map_or(track.held.lease.high_events, |e| e.high),
        scanned: track.scan.last().zip(track.steal.last()),
        stepped: track.held.lease.stepped,
    }
}

/// `memory.high` of every throttled workload: begun at its size or a step below, a step further while there is need,
/// never set below the floor. It is not raised after a workload that pushes over it: that would be no brake, and
/// the review ends it within a second if it only torments.
pub(crate) fn set_high(turn: &mut Turn<'_>) {
    let (at, lasts) = (turn.at(), turn.config.ladder.throttle_lease);
    let swap_free = turn.memory().map_or(Bytes::ZERO, |m| m.swap_free);
    let limit = turn.config.host.constrained.leave;
    let short = turn.memory().is_some_and(|m| m.above(limit, Bytes::ZERO, Span::ZERO) > Bytes::ZERO);
    for id in turn.on(|r| r == Rung::Throttle) {
        let Some(workload) = turn.sample.workloads.get(&id) else { continue };
        let Some(holding) = Holding::of(workload, swap_free, &turn.config.ladder) else { continue };
        let Some(track) = turn.state.workloads.get_mut(&id).filter(|t| t.held.leash.is_none()) else {
            continue;
        };
        // While only growth is the matter the limit is where the workload stands: nothing has to be squeezed out.
        let step = if short { holding.squeeze(&turn.config.ladder) } else { Bytes::ZERO };
        let lower = holding.current.saturating_sub(step).max(holding.floor);
        let due = short && track.leaves().is_none() && at.since(track.held.lease.stepped) >= STEP;
        let high = match track.held.high {
            None => lower,
            Some(high) if due => high.min(lower),
            Some(high) => high,
        };
        if track.held.high.is_none() {
            track.held.lease = fresh(track, workload, at, lasts);
        }
        if track.held.high != Some(high) {
            track.held.lease.stepped = at;
        }
        track.held.high = Some(high);
    }
}
