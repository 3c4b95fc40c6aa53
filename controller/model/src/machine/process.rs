//! A workload of the modelled machine: what it holds, what is done to it, and what its files say.

use plimsoll_policy::sample::{Events, MemoryStat, Probes, Psi, Spec, Workload};
use plimsoll_policy::units::{Bytes, Limit, Monotonic, Span};

use super::PAGE;
use super::giver::Giver;
use super::habit::Habit;
use super::hardware::{Hardware, Swap};

/// `memory.stat` is read this often.
const STAT_EVERY: Span = Span::millis(500);

/// One workload.
#[derive(Clone, Debug, PartialEq)]
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
    /// Anon that can't be swapped: mlocked or pinned.
    pub locked: u64,
    /// Per cent of its anon that it uses over and over: as much of it comes back from swap while it runs.
    pub hot: u64,
    /// `oom_score_adj`.
    pub oom_score_adj: i64,
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
    /// What it can be asked for, and how it answers.
    pub giver: Option<Giver>,
    /// `memory.events` `high`.
    pub high_events: u64,
    /// Bytes refaulted from files.
    pub refaults: u64,
    /// Bytes refaulted from swap.
    pub refaults_anon: u64,
    /// Major faults.
    pub major_faults: u64,
    /// Pages scanned for it.
    pub scan: u64,
    /// Pages reclaimed from it.
    pub steal: u64,
    /// Cumulative stall, in microseconds.
    pub psi_us: u64,
    /// The part of it in the kernel's own reclaim.
    pub direct_us: u64,
    /// Cumulative time in which it got on, in microseconds.
    pub work_us: u64,
    /// How often its files were looked at.
    pub reads: u64,
    pub(crate) stat: Option<(Monotonic, MemoryStat)>,
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
            locked: 0,
            hot: 0,
            oom_score_adj: 0,
            high: None,
            low: 0,
            frozen_at: None,
            frozen: false,
            dies_at: None,
            dead: false,
            immortal: false,
            reclaim: None,
            giver: None,
            high_events: 0,
            refaults: 0,
            refaults_anon: 0,
            major_faults: 0,
            scan: 0,
            steal: 0,
            psi_us: 0,
            direct_us: 0,
            work_us: 0,
            reads: 0,
            stat: None,
        }
    }

    /// Bytes of RAM.
    #[must_use]
    pub const fn resident(&self) -> u64 {
        self.anon + self.file
    }

    /// Whether it can do anything.
    #[must_use]
    pub const fn runs(&self) -> bool {
        !self.dead && !self.frozen
    }

    /// Bytes of RAM beyond its protection.
    pub(crate) const fn spare(&self) -> u64 {
        self.resident().saturating_sub(self.low)
    }

    /// Bytes in swap that it needs back.
    pub(crate) fn lacking(&self) -> u64 {
        let hot = (self.anon + self.swap) / 100 * self.hot;
        hot.saturating_sub(self.anon).min(self.swap)
    }

    /// Its readings; those of a failed look are gaps.
    pub(crate) fn read(&mut self, at: Monotonic, hardware: &Hardware) -> Workload {
        self.reads += 1;
        if hardware.gap_every > 0 && self.reads.is_multiple_of(hardware.gap_every) {
            return self.gap();
        }
        if self.stat.is_none_or(|(read, _)| at.since(read) >= STAT_EVERY) {
            self.stat = Some((at, self.stat()));
        }
        let (stat_at, stat) = self.stat.unwrap_or_default();
        let in_zram = matches!(hardware.swap, Swap::Zram { .. });
        let swap_ram = in_zram.then(|| Bytes(hardware.in_ram(self.swap)));
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
            swap_ram,
            events: Some(Events { high: self.high_events, ..Events::default() }),
            psi: Some(Psi { some_us: self.psi_us, full_us: self.psi_us }),
            frozen: Some(self.frozen),
            populated: Some(!self.dead),
            probes: hardware.probes.then(|| self.probes()),
            offer: self.giver.as_ref().filter(|_| !self.dead).map(Giver::offer),
            ..Workload::default()
        }
    }

    pub(crate) fn gap(&self) -> Workload {
        Workload { spec: self.spec.clone(), ..Workload::default() }
    }

    fn probes(&self) -> Probes {
        Probes {
            direct_reclaim_ns: self.direct_us * 1000,
            major_faults: self.major_faults,
            ..Probes::default()
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
            unevictable: Bytes(self.locked.min(self.anon)),
            refault_file: self.refaults / PAGE,
            refault_anon: self.refaults_anon / PAGE,
            major_faults: self.major_faults,
            scan: self.scan,
            steal: self.steal,
            ..MemoryStat::default()
        }
    }
}
