//! A workload of the modelled machine: what it holds, and what it does by itself.

use plimsoll_policy::sample::{Events, MemoryStat, Psi, Spec, Workload};
use plimsoll_policy::units::{Bytes, Limit, Monotonic, Span};

use super::{MIB, PAGE, TICK_MS};

/// `memory.stat` is read this often.
const STAT_EVERY: Span = Span::millis(500);

/// What a workload does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    Idle,
    /// Allocates `rate` MiB/s of anon from `from_ms` until it has `until` MiB.
    Grow {
        /// MiB/s.
        rate: u64,
        /// Milliseconds after the start.
        from_ms: u64,
        /// MiB.
        until: u64,
    },
    /// The same, and gives it all back at `drop_ms`.
    Burst {
        /// MiB/s.
        rate: u64,
        /// Milliseconds after the start.
        from_ms: u64,
        /// MiB.
        until: u64,
        /// Milliseconds after the start.
        drop_ms: u64,
    },
    /// Grows by `rate` MiB/s to `until` MiB, gives it all back, and begins anew every `every_ms`.
    Saw {
        /// MiB/s.
        rate: u64,
        /// MiB.
        until: u64,
        /// Milliseconds.
        every_ms: u64,
    },
    /// Reads `rate` MiB/s of a file that is larger than the memory.
    Scan {
        /// MiB/s.
        rate: u64,
    },
    /// Maps a model file of `size` MiB, `rate` MiB/s, from `from_ms`.
    Load {
        /// MiB/s.
        rate: u64,
        /// Milliseconds after the start.
        from_ms: u64,
        /// MiB.
        size: u64,
    },
}

/// One workload.
#[derive(Clone, Debug)]
pub struct Process {
    /// How it may be treated.
    pub spec: Spec,
    /// What it does by itself.
    pub habit: Habit,
    /// Anon in RAM, in bytes.
    pub anon: u64,
    /// File pages in RAM, in bytes.
    pub file: u64,
    /// Bytes in swap.
    pub swap: u64,
    /// The part of the file that it uses over and over.
    pub model: u64,
    /// Anon that it would have if nothing stood in its way.
    pub start: u64,
    /// `memory.high`.
    pub high: Option<u64>,
    /// `memory.low`.
    pub low: u64,
    /// When a freeze under way takes effect, in milliseconds.
    pub frozen_at: Option<u64>,
    /// Whether it is frozen.
    pub frozen: bool,
    /// When a kill under way takes effect, in milliseconds.
    pub dies_at: Option<u64>,
    /// Whether it has died.
    pub dead: bool,
    /// Stuck in a driver: it takes the signal and stays.
    pub immortal: bool,
    /// Reclaim under way: asked, freed, begun.
    pub reclaim: Option<(u64, u64, u64)>,
    /// `memory.events` `high`.
    pub high_events: u64,
    /// Bytes refaulted.
    pub refaults: u64,
    /// Major faults.
    pub major_faults: u64,
    /// Pages scanned for it.
    pub scan: u64,
    /// Pages reclaimed from it.
    pub steal: u64,
    /// Cumulative stall, in microseconds.
    pub psi_us: u64,
    stat: Option<(Monotonic, MemoryStat)>,
}

impl Process {
    pub(crate) fn new(spec: Spec, anon: u64, file: u64, habit: Habit) -> Self {
        Self {
            spec,
            habit,
            anon,
            file,
            swap: 0,
            model: file,
            start: anon,
            high: None,
            low: 0,
            frozen_at: None,
            frozen: false,
            dies_at: None,
            dead: false,
            immortal: false,
            reclaim: None,
            high_events: 0,
            refaults: 0,
            major_faults: 0,
            scan: 0,
            steal: 0,
            psi_us: 0,
            stat: None,
        }
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.anon + self.file
    }

    /// Bytes of anon and of new file that it wants in this tick.
    pub(crate) fn appetite(&self, now: u64) -> (u64, u64) {
        let step = |rate: u64| rate * MIB * TICK_MS / 1000;
        let has = self.anon + self.swap;
        match self.habit {
            Habit::Grow { rate, from_ms, until } if now >= from_ms => {
                (step(rate).min((until * MIB).saturating_sub(has)), 0)
            }
            Habit::Burst { rate, from_ms, until, drop_ms } if (from_ms..drop_ms).contains(&now) => {
                (step(rate).min((until * MIB).saturating_sub(has)), 0)
            }
            Habit::Saw { rate, until, .. } => (step(rate).min((until * MIB).saturating_sub(has)), 0),
            Habit::Scan { rate } => (0, step(rate)),
            Habit::Load { rate, from_ms, size } if now >= from_ms && self.model < size * MIB => {
                (0, step(rate).min(size * MIB - self.model))
            }
            _ => (0, 0),
        }
    }

    /// Whether it gives back what it took, now.
    pub(crate) fn drops(&self, now: u64) -> bool {
        match self.habit {
            Habit::Burst { drop_ms, .. } => now >= drop_ms && self.anon + self.swap > self.start,
            Habit::Saw { every_ms, .. } => now.is_multiple_of(every_ms),
            _ => false,
        }
    }

    pub(crate) fn read(&mut self, at: Monotonic) -> Workload {
        if self.stat.is_none_or(|(read, _)| at.since(read) >= STAT_EVERY) {
            self.stat = Some((at, self.stat()));
        }
        let (stat_at, stat) = self.stat.unwrap_or_default();
        Workload {
            spec: self.spec.clone(),
            current: Some(Bytes(self.resident())),
            swap: Some(Bytes(self.swap)),
            stat: Some(stat),
            stat_at,
            high: Some(self.high.map_or(Limit::Max, |h| Limit::Bytes(Bytes(h)))),
            low: Some(Limit::Bytes(Bytes(self.low))),
            max: Some(Limit::Max),
            swap_max: Some(Limit::Max),
            swap_ram: None,
            events: Some(Events { high: self.high_events, ..Events::default() }),
            psi: Some(Psi { some_us: self.psi_us, full_us: self.psi_us }),
            frozen: Some(self.frozen),
            populated: Some(!self.dead),
            probes: None,
        }
    }

    fn stat(&self) -> MemoryStat {
        let mapped = self.model.min(self.file);
        MemoryStat {
            anon: Bytes(self.anon),
            file: Bytes(self.file),
            file_mapped: Bytes(mapped),
            active_file: Bytes(mapped),
            inactive_file: Bytes(self.file - mapped),
            refault_file: self.refaults / PAGE,
            major_faults: self.major_faults,
            scan: self.scan,
            steal: self.steal,
            ..MemoryStat::default()
        }
    }
}
