//! What a machine is made of: speeds, watermarks, swap. Where a figure comes from is said beside it.

use super::{MIB, TICK_MS};

/// What pages that are swapped out cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// They take no RAM, and come back at the pace of a disk.
    Disk,
    /// They are compressed in RAM to so many per cent of their size.
    Zram {
        /// 30 to 50 for the memory of model servers and batch jobs.
        percent: u64,
    },
}

/// Speeds in bytes per second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// Where swap is.
    pub swap: Swap,
    /// Swapped pages come back at this rate.
    pub swap_in: u64,
    /// Files are read at this rate: mapped models that were evicted come back with it.
    pub read: u64,
    /// Clean pages are dropped at this rate when the kernel reclaims by itself.
    pub drop: u64,
    /// Whether the kernel's own swapping is bound to the speed of swap, and its own reclaim takes anon as well as files.
    pub balanced: bool,
    /// Whether kswapd reclaims in the background, and the kernel keeps reserves as `Marks` says.
    pub kswapd: bool,
    /// Whether the eBPF programs run: counters for each workload, and the gate.
    pub probes: bool,
    /// A pass comes so many milliseconds late where the machine does nothing but wait for memory.
    pub lag_ms: u64,
    /// Every so many readings of a workload one fails; zero for never.
    pub gap_every: u64,
}

impl Hardware {
    /// A machine without details, for single behaviours: what reclaim takes is there at once, nothing comes back from swap by
    /// itself, and the kernel keeps one per cent for itself.
    #[must_use]
    pub const fn plain() -> Self {
        Self {
            swap: Swap::Disk,
            swap_in: 150 * MIB,
            read: 100 * MIB,
            drop: u64::MAX / 1024,
            balanced: false,
            kswapd: false,
            probes: false,
            lag_ms: 0,
            gap_every: 0,
        }
    }

    /// A server with an NVMe disk. Clean pages are dropped at about 4 GiB/s for each reclaiming thread, models are read at 1.5 GiB/s.
    /// A locked real-time thread was measured to come up to 16 ms late under thrash on a machine of two emulated processors; one
    /// sample in 2000 finds a cgroup that can't be read.
    #[must_use]
    pub const fn server() -> Self {
        Self {
            swap: Swap::Disk,
            swap_in: 400 * MIB,
            read: 1536 * MIB,
            drop: 4096 * MIB,
            balanced: true,
            kswapd: true,
            probes: true,
            lag_ms: 20,
            gap_every: 2000,
        }
    }

    /// RAM that so many swapped bytes take.
    #[must_use]
    pub const fn in_ram(&self, swapped: u64) -> u64 {
        match self.swap {
            Swap::Disk => 0,
            Swap::Zram { percent } => swapped * percent / 100,
        }
    }

    /// What the kernel keeps of `total` bytes.
    #[must_use]
    pub fn marks(&self, total: u64) -> Marks {
        if !self.kswapd {
            return Marks { min: 0, direct: total / 100, low: 0, high: 0 };
        }
        // min_free_kbytes as khugepaged sets it where huge pages are on, at most a twentieth; watermark_scale_factor is 10.
        let min = (66 * MIB).min(total / 20);
        let step = (min / 4).max(total / 1000);
        Marks { min, direct: min, low: min + step, high: min + 2 * step }
    }
}

/// The kernel's watermarks in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Nobody is given what is below.
    pub min: u64,
    /// Who allocates below this reclaims by himself first.
    pub direct: u64,
    /// kswapd wakes below this,
    pub low: u64,
    /// and sleeps again above this.
    pub high: u64,
}

/// Bytes in a tick, from bytes per second.
pub(crate) const fn per_tick(rate: u64) -> u64 {
    rate / 1000 * TICK_MS + rate % 1000 * TICK_MS / 1000
}
