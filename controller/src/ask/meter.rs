//! What a workload holds, by meters that it can't write itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_policy::concession::Gains;
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::{Bytes, Share};
use tokio::sync::watch;

use crate::sense::cgroup::Cgroup;

/// GPU memory of a workload as the latest sample has it.
pub(super) type Gpus = BTreeMap<GpuId, Option<Bytes>>;

/// Reads what one workload holds.
#[derive(Debug)]
pub(super) struct Meter {
    cgroup: Arc<Cgroup>,
    gpus: watch::Receiver<Gpus>,
}

/// What it held at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// `memory.current` and `memory.swap.current`, less file pages.
    host: Option<i64>,
    gpus: Gpus,
}

/// Shows a meter the latest sample.
pub(super) fn show(gpus: &watch::Sender<Gpus>, seen: &Gpus) {
    gpus.send_if_modified(|known| {
        let other = known != seen;
        if other {
            known.clone_from(seen);
        }
        other
    });
}

impl Meter {
    pub(super) fn new(cgroup: Arc<Cgroup>, gpus: watch::Receiver<Gpus>) -> Self {
        Self { cgroup, gpus }
    }

    /// Whose meter it is.
    pub(super) fn workload(&self) -> &WorkloadId {
        &self.cgroup.id
    }

    /// What it holds now. Of host memory, that which only the workload itself can give: pages that the kernel swapped out meanwhile
    /// were not given, and file pages are the kernel's to take at any time.
    pub(super) fn read(&self) -> Reading {
        let signed = |bytes: Bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX);
        let swap = self.cgroup.swap().map_or(0, signed);
        let file = self.cgroup.stat().map_or(0, |stat| signed(stat.file) - signed(stat.shmem));
        let host = self.cgroup.current().ok().map(|current| signed(current) + swap - file);
        Reading { host, gpus: self.gpus.borrow().clone() }
    }
}

impl Reading {
    /// What has become less since an earlier reading. What could not be read at both times is no gain.
    pub(super) fn since(&self, before: &Self) -> Gains {
        let host = before.host.zip(self.host).map_or(0, |(before, now)| before - now);
        let less = |(gpu, before): (&GpuId, &Option<Bytes>)| {
            // A device that it no longer uses is not named any more.
            let now = self.gpus.get(gpu).copied().unwrap_or(Some(Bytes::ZERO));
            let less = (*before)?.0.saturating_sub(now?.0);
            (less > 0).then(|| (gpu.clone(), Bytes(less)))
        };
        Gains { host, gpus: before.gpus.iter().filter_map(less).collect() }
    }
}

/// Whether gains are at least this share of what was expected of the resources that are short: these GPUs, or the host where none is.
/// What comes beside them is welcome and proves nothing. Where nothing was expected, any gain will do.
pub(super) fn enough(freed: &Gains, expected: &Gains, share: Share, short: &[GpuId]) -> bool {
    let of = |gpu: &GpuId| freed.gpus.get(gpu).copied().unwrap_or_default();
    if short.is_empty() {
        let wanted = u64::try_from(expected.host).map_or(Bytes::ZERO, Bytes).share(share);
        return u64::try_from(freed.host).is_ok_and(|freed| freed > 0 && freed >= wanted.0);
    }
    let wanted = |gpu: &GpuId| expected.gpus.get(gpu).map_or(Bytes::ZERO, |bytes| bytes.share(share));
    short.iter().any(|gpu| of(gpu).0 > 0) && short.iter().all(|gpu| of(gpu) >= wanted(gpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gains(host: i64, gpus: &[(&str, u64)]) -> Gains {
        Gains { host, gpus: gpus.iter().map(|(gpu, bytes)| ((*gpu).into(), Bytes(*bytes))).collect() }
    }

    #[test]
    fn three_quarters_are_enough() {
        let share = Share::percent(75);
        let check = |freed: Gains, expected: Gains, short: &[GpuId]| enough(&freed, &expected, share, short);
        assert!(check(gains(75, &[]), gains(100, &[]), &[]));
        assert!(!check(gains(74, &[]), gains(100, &[]), &[]));
        assert!(
            check(gains(-500, &[("a", 80)]), gains(-400, &[("a", 100)]), &["a".into()]),
            "moved to the host"
        );
        assert!(!check(
            gains(0, &[("a", 80)]),
            gains(0, &[("a", 100), ("b", 100)]),
            &["a".into(), "b".into()]
        ));
        assert!(
            check(gains(0, &[("a", 80)]), gains(500, &[("a", 100)]), &["a".into()]),
            "the host is not short"
        );
        assert!(check(gains(1, &[]), gains(0, &[]), &[]) && !check(gains(0, &[]), gains(0, &[]), &[]));
        assert!(
            !check(gains(1, &[("b", 1)]), gains(0, &[]), &["a".into()]),
            "another GPU than the one that is short"
        );
    }

    #[test]
    fn what_is_unknown_is_no_gain() {
        let gpus = |bytes: Option<u64>| Gpus::from([("a".into(), bytes.map(Bytes))]);
        let reading = |host, gpus| Reading { host, gpus };
        let freed = |before: Reading, after: Reading| after.since(&before);
        assert_eq!(
            freed(reading(Some(9), gpus(Some(8))), reading(Some(4), gpus(Some(3)))),
            gains(5, &[("a", 5)])
        );
        assert_eq!(freed(reading(None, gpus(None)), reading(Some(4), gpus(Some(3)))), gains(0, &[]));
        assert_eq!(freed(reading(Some(9), gpus(Some(8))), reading(None, gpus(None))), gains(0, &[]));
        assert_eq!(
            freed(reading(Some(1), gpus(Some(8))), reading(Some(4), Gpus::new())),
            gains(-3, &[("a", 8)])
        );
    }
}
