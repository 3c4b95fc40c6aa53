//! One workload under observation: its open cgroup, and the readings that are too dear for every pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_policy::config::Pace;
use plimsoll_policy::sample::{Gap, MemoryStat, Probes as Counters, Spec, Workload};
use plimsoll_policy::units::{Bytes, Monotonic, Span};

use super::cgroup::{Cgroup, FileError};
use super::discover;
use crate::kubernetes::PodRef;

/// A workload that is watched.
#[derive(Debug)]
pub struct Tracked {
    /// Its cgroup.
    pub cgroup: Arc<Cgroup>,
    /// How it may be treated.
    pub spec: Spec,
    /// Ids of the cgroup and those below it: tasks count where they are.
    pub ids: Vec<u64>,
    /// The pod that it is a container of, where it is one.
    pub pod: Option<PodRef>,
    stat: Option<MemoryStat>,
    stat_at: Monotonic,
    current_at_stat: Bytes,
    high_at_stat: u64,
}

/// `memory.stat` is read again as soon as this, where `memory.current` moved by [`MOVED`] meanwhile.
const STAT_PAUSE: Span = Span::millis(40);
/// One that ran into `memory.high` since is read again after this: whether its limit helps is in `pgscan` and `pgsteal`, and
/// is to be known within a second.
const STAT_PUSHED: Span = Span::millis(200);
/// A change of `memory.current` that makes an older `memory.stat` misleading.
const MOVED: Bytes = Bytes::mib(4);

impl Tracked {
    pub(super) fn new(cgroup: Arc<Cgroup>) -> Self {
        Self {
            cgroup,
            ids: Vec::new(),
            pod: None,
            spec: Spec::default(),
            stat: None,
            stat_at: Monotonic::default(),
            current_at_stat: Bytes::ZERO,
            high_at_stat: 0,
        }
    }

    pub(super) fn with(self, found: &discover::Workload) -> Self {
        let discover::Workload { spec, means: _, ids, pod } = found.clone();
        Self { spec, ids, pod, ..self }
    }

    /// Reads the workload; `None` where its cgroup is gone.
    pub(super) fn read(
        &mut self,
        now: Monotonic,
        pace: &Pace,
        counters: Option<&BTreeMap<u64, Counters>>,
        gaps: &mut Vec<Gap>,
    ) -> Option<Workload> {
        let cgroup = Arc::clone(&self.cgroup);
        let (frozen, populated) = match cgroup.state() {
            Ok((frozen, populated)) => (Some(frozen), Some(populated)),
            Err(FileError::Gone) => return None,
            Err(error) => {
                gaps.push(gap(&cgroup, &error));
                (None, None)
            }
        };
        let current = keep(cgroup.current(), &cgroup, gaps);
        let events = keep(cgroup.memory_events(), &cgroup, gaps);
        self.refresh_stat(now, current, events.map_or(self.high_at_stat, |events| events.high), pace, gaps);
        Some(Workload {
            spec: self.spec.clone(),
            current,
            // Kernels without swap, and cgroups at the root of a delegation, have no swap files: that is no gap.
            swap: cgroup.swap().ok(),
            swap_max: cgroup.swap_max().ok(),
            // The host knows how much of it is compressed in RAM.
            swap_ram: None,
            stat: self.stat,
            stat_at: self.stat_at,
            high: keep(cgroup.high(), &cgroup, gaps),
            low: keep(cgroup.low(), &cgroup, gaps),
            max: keep(cgroup.max(), &cgroup, gaps),
            events,
            psi: keep(cgroup.pressure(), &cgroup, gaps),
            frozen,
            populated,
            probes: counters.map(|counters| self.sum(counters)),
            ..Workload::default()
        })
    }

    fn refresh_stat(
        &mut self,
        now: Monotonic,
        current: Option<Bytes>,
        high_events: u64,
        pace: &Pace,
        gaps: &mut Vec<Gap>,
    ) {
        let age = now.since(self.stat_at);
        let moved = current.is_some_and(|current| current.0.abs_diff(self.current_at_stat.0) >= MOVED.0);
        let due = age >= pace.stat
            || (moved && age >= STAT_PAUSE)
            || (high_events > self.high_at_stat && age >= STAT_PUSHED);
        if self.stat.is_some() && !due {
            return;
        }
        self.stat = keep(self.cgroup.stat(), &self.cgroup, gaps);
        self.stat_at = now;
        self.current_at_stat = current.unwrap_or_default();
        self.high_at_stat = high_events;
    }

    fn sum(&self, counters: &BTreeMap<u64, Counters>) -> Counters {
        let mut sum = Counters::default();
        for counted in self.ids.iter().filter_map(|id| counters.get(id)) {
            sum += *counted;
        }
        sum
    }
}

fn gap(cgroup: &Cgroup, error: &FileError) -> Gap {
    Gap { what: cgroup.id.path.to_string(), why: error.to_string() }
}

fn keep<T>(result: Result<T, FileError>, cgroup: &Cgroup, gaps: &mut Vec<Gap>) -> Option<T> {
    result.map_err(|error| gaps.push(gap(cgroup, &error))).ok()
}
