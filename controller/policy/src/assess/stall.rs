//! Share of time that protected workloads wait for memory, from counters: averages over 10 s come too late.

use super::we_brake_somebody;
use crate::config::Config;
use crate::roles;
use crate::sample::{Rung, Sample, WorkloadId};
use crate::state::{State, Track};
use crate::units::{Monotonic, Share};

/// The worst of the protected, each by the larger of PSI `some` and its time in direct reclaim. Host PSI stands in
/// where nobody is protected, unless we brake somebody: their waiting is in it. `None` = not known.
pub(crate) fn stall(config: &Config, state: &State, sample: &Sample) -> Option<Share> {
    let mut protected = roles::protected(config, sample).peekable();
    if protected.peek().is_some() {
        return protected.filter_map(|(id, _)| of(state, id, sample.at)).max();
    }
    if we_brake_somebody(config, state, sample) {
        return None;
    }
    state.host_psi.rate(sample.at).map(share_of_us)
}

fn of(state: &State, id: &WorkloadId, now: Monotonic) -> Option<Share> {
    let track = state.workloads.get(id)?;
    if track.held.rung >= Rung::Throttle {
        return None;
    }
    psi(track, now).max(reclaim(track, now))
}

fn psi(track: &Track, now: Monotonic) -> Option<Share> {
    track.psi.rate(now).map(share_of_us)
}

/// Summed over tasks, so it may exceed the time that passed; it says no more than "always" then.
fn reclaim(track: &Track, now: Monotonic) -> Option<Share> {
    track.reclaim.rate(now).map(|ns| share_of_us(ns / 1000))
}

/// Microseconds per second are parts per million.
fn share_of_us(us_per_second: i64) -> Share {
    Share(u32::try_from(us_per_second.max(0)).unwrap_or(u32::MAX)).min(Share::ONE)
}
