//! What others do to the cgroups that we act on: kubelet, systemd, container runtimes, people. Told, counted, lived with.

use std::collections::BTreeMap;
use std::fmt;

use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::Limit;

/// What was done to a value of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Back to what a cgroup is born with: `max`, or 0 for a protection. So `systemctl daemon-reload` and kubelet do.
    Reset,
    /// To less than ours.
    Lowered,
    /// To more than ours.
    Raised,
    /// Thawed while ours was to freeze.
    Thawed,
}

impl How {
    /// The word used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Lowered => "lowered",
            Self::Raised => "raised",
            Self::Thawed => "thawed",
        }
    }

    pub(super) fn of(file: File, ours: u64, theirs: Limit) -> Self {
        match (file, theirs) {
            (File::High, Limit::Max) => Self::Reset,
            (File::Low, Limit::Bytes(bytes)) if bytes.0 == 0 => Self::Reset,
            (_, Limit::Bytes(bytes)) if bytes.0 < ours => Self::Lowered,
            _ => Self::Raised,
        }
    }
}

/// A file that we write, and others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    /// `memory.high`.
    High,
    /// `memory.low`.
    Low,
    /// `cgroup.freeze`.
    Freeze,
}

impl File {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "memory.high",
            Self::Low => "memory.low",
            Self::Freeze => "cgroup.freeze",
        }
    }
}

bitflags::bitflags! {
    /// What somebody else has set on a workload, that narrows what we can do for it or to it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Foreign: u8 {
        /// `memory.swap.max` is 0: its anonymous memory can't be reclaimed (kubelet's NoSwap).
        const NO_SWAP = 1;
        /// `memory.oom.group` is 1: an OOM kill takes all of it (kubelet since 1.28).
        const OOM_GROUP = 2;
        /// A `memory.high` that is not ours: a ceiling that is never raised (kubelet's MemoryQoS).
        const HIGH = 4;
        /// A `memory.low` that is not ours: a floor that is never lowered.
        const LOW = 8;
        /// A `memory.min`: what reclaim and throttling can't get (kubelet's MemoryQoS).
        const MIN = 16;
        /// Frozen, and not by us: not ours to thaw (a paused container).
        const FROZEN = 32;
    }
}

impl Foreign {
    /// The words used in the log, in `status` and in metrics.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(|one| match one {
            Self::NO_SWAP => "no_swap",
            Self::OOM_GROUP => "oom_group",
            Self::HIGH => "memory_high",
            Self::LOW => "memory_low",
            Self::MIN => "memory_min",
            _ => "frozen",
        })
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(", "))
    }
}

/// All that is known of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// How often they wrote over a value of ours.
    pub writes: BTreeMap<(File, How), u64>,
    /// What they have set; only workloads on which they have set something.
    pub set: BTreeMap<WorkloadId, Foreign>,
}

impl Others {
    pub(super) fn count(&mut self, file: File, how: How) {
        *self.writes.entry((file, how)).or_default() += 1;
    }

    pub(super) fn note(&mut self, id: &WorkloadId, set: Foreign) {
        if set.is_empty() {
            self.set.remove(id);
        } else {
            self.set.insert(id.clone(), set);
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::units::Bytes;

    use super::*;

    #[test]
    fn a_write_is_named_by_what_it_does() {
        let bytes = |bytes| Limit::Bytes(Bytes(bytes));
        assert_eq!(How::of(File::High, 4096, Limit::Max), How::Reset);
        assert_eq!(How::of(File::High, 4096, bytes(0)), How::Lowered);
        assert_eq!(How::of(File::High, 4096, bytes(8192)), How::Raised);
        assert_eq!(How::of(File::Low, 4096, bytes(0)), How::Reset);
        assert_eq!(How::of(File::Low, 4096, Limit::Max), How::Raised);
    }

    #[test]
    fn every_fact_has_its_word() {
        let words: std::collections::BTreeSet<_> = Foreign::all().words().collect();
        assert_eq!(words.len(), 6);
        assert_eq!((Foreign::NO_SWAP | Foreign::OOM_GROUP).to_string(), "no_swap, oom_group");
    }
}
