//! A machine of a few lines: memory is conserved, reclaim takes time, brakes brake. Time is simulated.

mod acts;
mod memory;
mod process;

use std::collections::BTreeMap;

use plimsoll_policy::config::Config;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::Outcome;
use plimsoll_policy::sample::{Host, Meminfo, Psi, Sample, Spec, Trigger, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Span};

pub use process::{Habit, Process};

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
/// Size of a page.
pub(crate) const PAGE: u64 = 4096;
/// The step of the simulation.
pub(crate) const TICK_MS: u64 = 10;

/// The whole machine with the policy that watches it.
pub struct Machine {
    /// What the policy goes by.
    pub config: Config,
    /// RAM in bytes.
    pub total: u64,
    /// Kernel and system services: constant.
    pub system: u64,
    /// Swap in bytes.
    pub swap_total: u64,
    /// Bytes per second that swap takes.
    pub swap_speed: u64,
    /// What runs, or ran.
    pub processes: BTreeMap<WorkloadId, Process>,
    /// Virtual milliseconds since the start.
    pub now_ms: u64,
    /// What the policy remembers.
    pub state: State,
    /// What ended since the last sample.
    pub outcomes: Vec<Outcome>,
    /// Names of what the kernel killed.
    pub oom: Vec<String>,
    /// Names of what we killed.
    pub killed: Vec<String>,
    /// Cumulative stall of the host, in microseconds.
    pub psi_us: u64,
    /// Nothing can be read in these milliseconds.
    pub gap: std::ops::Range<u64>,
    next_ms: u64,
}

impl Machine {
    /// A machine with nothing on it but the system's own twelfth. Priority 100 and above is protected.
    #[must_use]
    pub fn new(total_mib: u64, swap_mib: u64) -> Self {
        let config = Config { protect_priority: 100, ..Config::default() };
        Self {
            config,
            total: total_mib * MIB,
            system: total_mib * MIB / 12,
            swap_total: swap_mib * MIB,
            swap_speed: 150 * MIB,
            processes: BTreeMap::new(),
            now_ms: 0,
            state: State::default(),
            outcomes: Vec::new(),
            oom: Vec::new(),
            killed: Vec::new(),
            psi_us: 0,
            gap: 0..0,
            next_ms: 0,
        }
    }

    /// Adds a workload that has `anon` MiB and a mapped file of `file` MiB.
    pub fn add(&mut self, name: &str, priority: i32, anon: u64, file: u64, habit: Habit) -> WorkloadId {
        let inode = 100 + self.processes.len() as u64;
        let id = WorkloadId { path: format!("models/{name}"), inode };
        let spec = Spec { name: name.into(), priority, ..Spec::default() };
        self.processes.insert(id.clone(), Process::new(spec, anon * MIB, file * MIB, habit));
        id
    }

    /// Runs for `ms`, giving every pass with its sample to `look`.
    pub fn run(&mut self, ms: u64, mut look: impl FnMut(&Sample, &Pass)) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            if self.now_ms >= self.next_ms {
                let sample = self.sample();
                let pass = step(&self.config, std::mem::take(&mut self.state), &sample);
                look(&sample, &pass);
                self.next_ms = self.now_ms + (pass.plan.next.0 / 1_000_000).max(TICK_MS);
                self.apply(&pass.plan);
                self.state = pass.state;
            }
            self.tick();
            self.now_ms += TICK_MS;
        }
    }

    /// The moment that a sample taken now would bear.
    #[must_use]
    pub fn at(&self) -> Monotonic {
        Monotonic(0) + Span::millis(10_000 + self.now_ms)
    }

    /// Bytes of RAM that nobody holds.
    #[must_use]
    pub fn free(&self) -> u64 {
        let used: u64 = self.processes.values().map(Process::resident).sum();
        self.total.saturating_sub(used + self.system)
    }

    /// Bytes of swap that nobody holds.
    #[must_use]
    pub fn swap_free(&self) -> u64 {
        self.swap_total - self.processes.values().map(|p| p.swap).sum::<u64>().min(self.swap_total)
    }

    fn meminfo(&self) -> Option<Meminfo> {
        let file: u64 = self.processes.values().map(|p| p.file).sum();
        let low = self.total / 100;
        (!self.gap.contains(&self.now_ms)).then(|| Meminfo {
            total: Bytes(self.total),
            free: Bytes(self.free()),
            available: Bytes((self.free() + file).saturating_sub(low)),
            file: Bytes(file),
            reserved: Bytes::ZERO,
            shmem: Bytes::ZERO,
            swap_total: Bytes(self.swap_total),
            swap_free: Bytes(self.swap_free()),
        })
    }

    fn sample(&mut self) -> Sample {
        let at = self.at();
        let host = Host {
            meminfo: self.meminfo(),
            psi: (!self.gap.contains(&self.now_ms))
                .then_some(Psi { some_us: self.psi_us, full_us: self.psi_us / 2 }),
            ..Host::default()
        };
        let blind = self.gap.contains(&self.now_ms);
        let read = |p: &mut Process| {
            if blind { Workload { spec: p.spec.clone(), ..Workload::default() } } else { p.read(at) }
        };
        let workloads = self.processes.iter_mut().map(|(id, p)| (id.clone(), read(p))).collect();
        let outcomes = std::mem::take(&mut self.outcomes);
        Sample { at, trigger: Trigger::Timer, host, workloads, outcomes, gaps: Vec::new() }
    }
}
