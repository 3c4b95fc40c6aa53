//! Bytes until exhaustion, without believing that a model in use is available.

use std::collections::BTreeMap;

use super::Memory;
use super::observe::positive;
use crate::config::Config;
use crate::roles;
use crate::sample::{Meminfo, MemoryStat, Sample, WorkloadId};
use crate::state::State;
use crate::units::Bytes;

/// The host's memory; `None` where meminfo was a gap or says that there is none.
pub(crate) fn memory(
    config: &Config,
    state: &State,
    sample: &Sample,
    growth: &BTreeMap<WorkloadId, i64>,
    decline: Bytes,
) -> Option<Memory> {
    let meminfo = sample.host.meminfo.filter(|m| m.total > Bytes::ZERO)?;
    let of_protected = roles::protected(config, sample)
        .filter_map(|(id, _)| growth.get(id))
        .fold(Bytes::ZERO, |sum, &g| sum + positive(g));
    Some(Memory {
        total: meminfo.total,
        free: meminfo.free,
        headroom: headroom(&meminfo, in_use(config, state, sample)).saturating_sub(config.host.reserve),
        reserved: state.admission.reserved(),
        decline,
        protected_growth: of_protected.min(decline),
        swap_free: meminfo.swap_free,
    })
}

/// The kernel's estimate less the file pages in use: nearly the whole page cache is in `MemAvailable`. Never below what is
/// free above the watermarks, since `MemAvailable` takes those off twice where there is page cache.
fn headroom(meminfo: &Meminfo, in_use: Bytes) -> Bytes {
    let unused = meminfo.free.saturating_sub(meminfo.reserved);
    meminfo.available.saturating_sub(in_use).max(unused).min(meminfo.total)
}

/// File pages of the protected that they use: mapped, or active (read again and again without a mapping).
/// What they only read once is as available as anybody's cache, and what is locked was never counted as available.
/// Of one that could not be read this time they are what they were: a gap must not look like calm.
fn in_use(config: &Config, state: &State, sample: &Sample) -> Bytes {
    let known = |id| state.workloads.get(id).map_or(Bytes::ZERO, |track| track.hot);
    roles::protected(config, sample).map(|(id, w)| w.stat.as_ref().map_or_else(|| known(id), hot)).sum()
}

/// What a protected workload uses of its file pages.
pub(crate) fn hot(stat: &MemoryStat) -> Bytes {
    let mapped = stat.file_mapped.saturating_sub(stat.shmem);
    mapped.max(stat.active_file).min(stat.active_file + stat.inactive_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_model_is_not_available() {
        let m = Meminfo {
            total: Bytes::mib(1000),
            free: Bytes::mib(20),
            available: Bytes::mib(140),
            ..Meminfo::default()
        };
        assert_eq!(headroom(&m, Bytes::mib(240)), Bytes::mib(20));
        let short = Meminfo { reserved: Bytes::mib(60), ..m };
        assert_eq!(headroom(&short, Bytes::mib(240)), Bytes::ZERO, "what the kernel keeps is nobody's");
        assert_eq!(headroom(&m, Bytes::mib(50)), Bytes::mib(90));
        assert_eq!(headroom(&m, Bytes::ZERO), Bytes::mib(140));
    }

    #[test]
    fn absurd_figures_stay_within_bounds() {
        let m = Meminfo { total: Bytes(5), free: Bytes(u64::MAX), available: Bytes(9), ..Meminfo::default() };
        assert_eq!(headroom(&m, Bytes(u64::MAX)), Bytes(5));
    }
}
