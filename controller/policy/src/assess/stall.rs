//! Share of time that protected workloads wait for memory, from counters: averages over 10 s come too late.

use super::we_brake_somebody;
use crate::config::Config;
use crate::join::join;
use crate::roles;
use crate::sample::{Rung, Sample};
use crate::state::{State, Track};
use crate::units::{Monotonic, Share};

/// The worst of the protected, each by the larger of PSI `some` and its time in direct reclaim. Host PSI stands in
/// where nobody is protected, unless we brake somebody: their waiting is in it. `None` = not known.
pub(crate) fn stall(config: &Config, state: &State, sample: &Sample) -> Option<Share> {
    let all = join(&sample.workloads, &state.workloads);
    let mut protected = all.filter(|(_, w, _)| roles::is_protected(config, w)).peekable();
    if protected.peek().is_some() {
        return protected.filter_map(|(_, _, track)| of(track, sample.at)).max();
    }
    if we_brake_somebody(config, state, sample) {
        return None;
    }
    state.host_psi.rate(sample.at).map(share_of_us)
}

fn of(track: &Track, now: Monotonic) -> Option<Share> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Psi, Spec, Workload, WorkloadId};
    use crate::units::Monotonic;

    /// Two samples a second apart; every `(priority, stalled per cent)` is a workload, the host stalls all the time.
    fn stalls(workloads: &[(i32, u64)], braked: usize) -> Option<Share> {
        let config = Config { protect_priority: 100, ..Config::default() };
        let (mut state, mut sample) = (State::default(), Sample::default());
        for second in [1, 2] {
            sample.at = Monotonic(second * 1_000_000_000);
            sample.host.psi = Some(Psi { some_us: second * 1_000_000, full_us: 0 });
            for (n, (priority, percent)) in workloads.iter().enumerate() {
                let spec = Spec { priority: *priority, ..Spec::default() };
                let psi = Some(Psi { some_us: second * percent * 10_000, full_us: 0 });
                sample.workloads.insert(id(n), Workload { spec, psi, ..Workload::default() });
            }
            crate::assess::observe::observe(&mut state, &sample);
        }
        if let Some(track) = state.workloads.get_mut(&id(braked)) {
            track.held.rung = Rung::Throttle;
        }
        stall(&config, &state, &sample)
    }

    fn id(n: usize) -> WorkloadId {
        WorkloadId { path: format!("w{n}").into(), inode: n as u64 }
    }

    #[test]
    fn the_worst_of_the_protected_counts() {
        assert_eq!(stalls(&[(100, 3), (200, 7), (0, 90)], 9), Some(Share::percent(7)));
    }

    #[test]
    fn our_own_throttle_is_no_pressure() {
        assert_eq!(stalls(&[(100, 3), (0, 90)], 1), Some(Share::percent(3)));
        assert_eq!(stalls(&[(0, 90)], 9), Some(Share::ONE), "nobody is protected: the host stands in");
        assert_eq!(stalls(&[(0, 90)], 0), None, "the host's stall contains what we throttle");
    }
}
