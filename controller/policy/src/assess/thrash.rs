//! Refaults and major faults of the protected: the signal that sees a machine evicting its own model, which
//! `MemAvailable` and PSI averages both miss.
//!
//! A model that is being loaded from its file faults a lot without thrashing: each such fault adds pages. So a major
//! fault counts only as far as the workload's growth does not explain it, or in full once the kernel reports
//! refaults, which are of pages that had been there before.

use std::collections::BTreeMap;

use super::observe::positive;
use crate::config::Config;
use crate::roles;
use crate::sample::{Sample, WorkloadId};
use crate::state::{State, Track};
use crate::units::{Monotonic, Span};

/// Time constant of the smoothed rate.
const SMOOTHING: Span = Span::secs(1);
/// Page size for telling faults from growth. Larger pages only make a fault explain more.
const PAGE: u64 = 4096;
/// From one refault to this many major faults on, the faults are taken for refaults.
const REFAULTS_PER_FAULT: u64 = 8;

/// The larger of the present and the smoothed rate of the worst protected workload; `None` = not known.
pub(crate) fn thrash(
    config: &Config,
    state: &mut State,
    sample: &Sample,
    growth: &BTreeMap<WorkloadId, i64>,
) -> Option<u64> {
    let of = |(id, _): (&WorkloadId, _)| {
        let track = state.workloads.get_mut(id)?;
        let raw = rate(track, growth.get(id).copied().unwrap_or(0), sample.at)?;
        Some(smooth(track, raw, sample.at))
    };
    roles::protected(config, sample).filter_map(of).max()
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
    let passed = u128::from(at.since(track.thrash_at).0);
    let weight = u128::from(SMOOTHING.0) + passed;
    let mixed = (u128::from(track.thrash) * u128::from(SMOOTHING.0) + u128::from(raw) * passed) / weight;
    track.thrash = u64::try_from(mixed).unwrap_or(u64::MAX);
    track.thrash_at = track.thrash_at.max(at);
    raw.max(track.thrash)
}
