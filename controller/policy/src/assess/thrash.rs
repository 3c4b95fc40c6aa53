//! Refaults and major faults of the protected: the signal that sees a machine evicting its own model, which
//! `MemAvailable` and PSI averages both miss.
//!
//! A model that is being loaded from its file faults a lot without thrashing: each such fault adds pages. So a major
//! fault counts only as far as the workload's growth does not explain it, or in full once the kernel reports
//! refaults, which are of pages that had been there before.

use std::collections::BTreeMap;

use super::observe::positive;
use crate::config::Config;
use crate::join::join;
use crate::roles;
use crate::sample::{Sample, Workload, WorkloadId};
use crate::state::{State, Track};
use crate::units::{Monotonic, Span};

/// Time constant of the smoothed rate.
const SMOOTHING: Span = Span::secs(1);
/// Page size for telling faults from growth. Larger pages only make a fault explain more.
const PAGE: u64 = 4096;
/// From one refault to this many major faults on, the faults are taken for refaults.
const REFAULTS_PER_FAULT: u64 = 8;

/// Pages per second of one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rates {
    /// At present.
    pub(crate) now: u64,
    /// Smoothed over a second.
    pub(crate) mean: u64,
}

impl Rates {
    /// What counts: a burst at once, and its end with some delay.
    pub(crate) fn worst(self) -> u64 {
        self.now.max(self.mean)
    }
}

/// The rates of the worst protected workload; `None` = not known.
pub(crate) fn thrash(
    config: &Config,
    state: &mut State,
    sample: &Sample,
    growth: &BTreeMap<WorkloadId, i64>,
) -> Option<Rates> {
    let of = |(id, _, track): (&WorkloadId, &Workload, &mut Track)| {
        let raw = rate(track, growth.get(id).copied().unwrap_or(0), sample.at)?;
        Some(Rates { now: raw, mean: smooth(track, raw, sample.at) })
    };
    let all = join(&sample.workloads, &mut state.workloads);
    all.filter(|(_, w, _)| roles::is_protected(config, w)).filter_map(of).max_by_key(|r| r.worst())
}

fn rate(track: &Track, growth: i64, now: Monotonic) -> Option<u64> {
    let refaults = track.refaults.rate(now).map(|r| positive(r).0);
    let faults = track.major_faults.rate(now).map(|r| positive(r).0);
    let (Some(refaults), Some(faults)) = (refaults, faults) else {
        return refaults.or_else(|| Some(unexplained(faults?, growth)));
    };
    let counted = if refaults.saturating_mul(REFAULTS_PER_FAULT) >= faults {
        faults
    } else {
        unexplained(faults, growth)
    };
    Some(refaults.saturating_add(counted))
}

fn unexplained(faults: u64, growth: i64) -> u64 {
    faults.saturating_sub(positive(growth).0 / PAGE)
}

fn smooth(track: &mut Track, raw: u64, at: Monotonic) -> u64 {
    // After a long time without a rate this one is no more than one of several.
    let passed = u128::from(at.since(track.thrash_at).0.min(SMOOTHING.0));
    let weight = u128::from(SMOOTHING.0) + passed;
    let mixed = (u128::from(track.thrash) * u128::from(SMOOTHING.0) + u128::from(raw) * passed) / weight;
    track.thrash = u64::try_from(mixed).unwrap_or(u64::MAX);
    track.thrash_at = track.thrash_at.max(at);
    track.thrash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A track after a tenth of a second with these refaults and major faults.
    fn track(refaults: u64, faults: u64) -> Track {
        let mut track = Track::default();
        for (ms, n) in [(0, 0), (100, 1)] {
            let at = Monotonic(ms * 1_000_000);
            track.refaults.push_counter(at, refaults * n);
            track.major_faults.push_counter(at, faults * n);
        }
        track
    }

    fn check(refaults: u64, faults: u64, growth: i64, expected: u64) {
        let now = Monotonic(100_000_000);
        assert_eq!(rate(&track(refaults, faults), growth, now), Some(expected));
    }

    #[test]
    fn loading_a_model_is_no_thrash() {
        check(0, 100, 200 << 20, 0);
        check(0, 100, 0, 1000);
        check(0, 100, -5, 1000);
    }

    #[test]
    fn refaults_count_whatever_grows() {
        check(100, 100, 200 << 20, 2000);
        check(1, 1000, 100 * 4096, 10 + 9900);
    }

    #[test]
    fn the_mean_remembers_a_burst() {
        let mut track = Track::default();
        assert_eq!(smooth(&mut track, 8000, Monotonic(1_000_000_000)), 4000);
        assert_eq!(smooth(&mut track, 0, Monotonic(2_000_000_000)), 2000);
        assert_eq!(smooth(&mut track, 0, Monotonic(0)), 2000);
    }
}
