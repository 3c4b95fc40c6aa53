//! The way back to freedom goes through a throttle.
//!
//! A job that grew fast when it was braked grows as fast when it is let go, and would come up in pulses: let go, braked,
//! let go. So it is let go on a leash: `memory.high` where it stands, raised as fast as the memory lasts, and taken off when it has
//! not pulled at it for a while. The leash is no livelock: where it can't be raised and is pulled at, it ends within a second.

use super::Turn;
use super::calm;
use super::lease::{REVIEW, fresh, give_up};
use crate::assess::{Memory, per};
use crate::holding::Holding;
use crate::plan::{Evidence, Tier};
use crate::relief::BRAKE_AHEAD;
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::{Leash, Track};
use crate::units::{Bytes, Span};

/// All leashes together are raised so fast that what is left would last this long: more than the forecast of
/// constrained, so that letting go never looks like a shortage.
const LASTS: Span = Span::secs(15);
/// What a workload may take at once, as a part of what is left: a sixteenth of a second at the pace of a forecast of 4 s.
const SLACK_PART: u64 = 64;
/// Not pulled at for this long, the leash is taken off.
const LOOSE: Span = Span::secs(2);
/// However long ago the last pass was, no more is granted at once than for this long.
const LONGEST: Span = Span::millis(500);

/// Whether a workload can be let go like this.
pub(crate) fn possible(turn: &Turn<'_>, workload: &Workload) -> bool {
    roles::allows(turn.config, workload, Rung::Throttle)
        && workload.current.is_some()
        && turn.memory().is_some()
}

/// What a workload may take at once: never less than the floor leaves it anyway.
pub(crate) fn slack(turn: &Turn<'_>, memory: &Memory) -> Bytes {
    Bytes(memory.headroom.0 / SLACK_PART).max(turn.config.ladder.floor_margin)
}

/// How fast a workload can grow for the time that a brake is early by: the leash stops it then.
pub(crate) fn leeway(workload: &Workload, track: &Track) -> Bytes {
    let left = track.held.high.zip(workload.current).map(|(high, current)| high.saturating_sub(current));
    let per_second = left.map(|left| u128::from(left.0) * 1_000_000_000 / u128::from(BRAKE_AHEAD.0));
    Bytes(per_second.and_then(|rate| u64::try_from(rate).ok()).unwrap_or(u64::MAX))
}

/// Puts a workload on the leash. `back` of what it has in swap may come back at once.
pub(crate) fn put_on(turn: &mut Turn<'_>, id: &WorkloadId, back: Bytes, evidence: Vec<Evidence>) {
    let Some(memory) = turn.memory() else { return };
    let (at, lasts, slack) = (turn.at(), turn.config.ladder.throttle_lease, slack(turn, &memory));
    let Some(workload) = turn.sample.workloads.get(id) else { return };
    let Some(holding) = Holding::of(workload, memory.swap_free, &turn.config.ladder) else { return };
    turn.put(id, Rung::Throttle, evidence.clone());
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    let high_events = workload.events.map_or(0, |e| e.high);
    track.held.leash = Some(Leash { since: at, pulled: at, high_events, raised: at, stuck: None });
    track.held.high = track.held.high.max(Some((holding.current + back + slack).max(holding.floor)));
    track.held.lease = fresh(track, workload, at, lasts);
    track.held.evidence = evidence;
}

pub(crate) fn review(turn: &mut Turn<'_>) {
    let leashed = turn.held(|r| r == Rung::Throttle).filter(|(_, _, t)| t.held.leash.is_some());
    let leashed: Vec<WorkloadId> = leashed.map(|(id, ..)| id.clone()).collect();
    let share = leashed.len() as u64;
    for id in leashed {
        if turn.state.workloads.get(&id).is_some_and(|track| track.leaves().is_some()) {
            // What leaves keeps what it has, and gets no more.
            renew(turn, &id);
            continue;
        }
        match hold(turn, &id, share) {
            Some(Hand::Off) => turn.put(&id, Rung::Free, calm::evidence(turn)),
            Some(Hand::Stuck) => give_up(turn, &id, Tier::Elevated),
            Some(Hand::On) => renew(turn, &id),
            None => {}
        }
    }
}

/// What becomes of a leash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    On,
    Off,
    Stuck,
}

/// `None` where nothing can be said for want of readings: then the lease runs on to its end.
fn hold(turn: &mut Turn<'_>, id: &WorkloadId, share: u64) -> Option<Hand> {
    let at = turn.at();
    let expired = turn.state.workloads.get(id)?.held.lease.until <= at;
    let (Some(memory), Some(workload)) = (turn.memory(), turn.sample.workloads.get(id)) else {
        return expired.then_some(Hand::Off);
    };
    let Some(current) = workload.current else { return expired.then_some(Hand::Off) };
    let pulls = pulls(turn, id, workload)?;
    let raised = raise(turn, id, &memory, current, share)?;
    let track = turn.state.workloads.get_mut(id)?;
    let held_off = track.held_off > at;
    let leash = track.held.leash.as_mut()?;
    leash.stuck = match raised {
        Raised::Short if pulls => Some(leash.stuck.unwrap_or(at)),
        Raised::Short => leash.stuck.filter(|_| at.since(leash.pulled) < REVIEW),
        Raised::Loose | Raised::By(_) => None,
    };
    let loose = at.since(leash.pulled) >= LOOSE && !held_off;
    Some(match leash.stuck {
        Some(since) if at.since(since) >= REVIEW => Hand::Stuck,
        _ if loose => Hand::Off,
        _ => Hand::On,
    })
}

/// Whether it has run into its leash since the last look.
fn pulls(turn: &mut Turn<'_>, id: &WorkloadId, workload: &Workload) -> Option<bool> {
    let at = turn.at();
    let leash = turn.state.workloads.get_mut(id)?.held.leash.as_mut()?;
    let events = workload.events.map_or(leash.high_events, |e| e.high);
    let pulls = events > leash.high_events;
    if pulls {
        leash.pulled = at;
    }
    leash.high_events = events;
    Some(pulls)
}

/// How far a leash was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    /// There is slack.
    Loose,
    /// By as much.
    By(Bytes),
    /// There is no memory for it.
    Short,
}

fn raise(
    turn: &mut Turn<'_>,
    id: &WorkloadId,
    memory: &Memory,
    current: Bytes,
    share: u64,
) -> Option<Raised> {
    let at = turn.at();
    let reach = current + slack(turn, memory);
    let limit = turn.config.host.constrained.leave;
    let room = memory.total.share(limit).saturating_sub(memory.used() + per(memory.decline, BRAKE_AHEAD));
    let strained = calm::suffers(turn);
    let held = &mut turn.state.workloads.get_mut(id)?.held;
    let (high, leash) = (held.high?, held.leash.as_mut()?);
    if reach <= high {
        return Some(Raised::Loose);
    }
    let pace = Bytes(memory.headroom.0 / (LASTS.0 / 1_000_000_000) / share.max(1));
    let step = per(pace, at.since(leash.raised).min(LONGEST)).min(reach.saturating_sub(high));
    if strained || room < step || room == Bytes::ZERO {
        return Some(Raised::Short);
    }
    leash.raised = at;
    held.high = Some(high + step);
    Some(Raised::By(step))
}

fn renew(turn: &mut Turn<'_>, id: &WorkloadId) {
    let (at, lasts) = (turn.at(), turn.config.ladder.throttle_lease);
    let Some(workload) = turn.sample.workloads.get(id) else { return };
    if let Some(track) = turn.state.workloads.get_mut(id) {
        track.held.lease = fresh(track, workload, at, lasts);
    }
}
