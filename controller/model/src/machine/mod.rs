//! A machine of a few lines: memory is conserved, reclaim takes time, brakes brake. Time is simulated.

mod acts;
mod giver;
mod habit;
mod hardware;
mod memory;
mod process;
mod quiet;
mod reclaim;

use std::collections::BTreeMap;

use plimsoll_policy::concession::Concession;
use plimsoll_policy::config::Config;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::Outcome;
use plimsoll_policy::sample::{Host, Meminfo, Psi, Sample, Spec, Trigger, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Span};

pub use giver::{Giver, Manner};
pub use habit::Habit;
pub use hardware::{Hardware, Marks, Swap};
pub use process::Process;

use memory::Tick;

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
/// Size of a page.
pub(crate) const PAGE: u64 = 4096;
/// The step of the simulation.
pub(crate) const TICK_MS: u64 = 10;

/// The whole machine with the policy that watches it.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// What the policy goes by.
    pub config: Config,
    /// Whether there is a policy at all; without one the kernel is alone.
    pub watched: bool,
    /// What it is made of.
    pub hardware: Hardware,
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
    /// What those who were asked answered since the last sample.
    pub conceded: Vec<Concession>,
    /// Names of what the kernel killed.
    pub oom: Vec<String>,
    /// Names of what we killed.
    pub killed: Vec<String>,
    /// Cumulative stall of the host, in microseconds.
    pub psi_us: u64,
    /// Nothing can be read in these milliseconds.
    pub gap: std::ops::Range<u64>,
    /// Whether quiet ticks are taken at once; the result is the same.
    pub skips: bool,
    /// Whom the gate would stop.
    gate: Vec<WorkloadId>,
    next_inode: u64,
    next_ms: u64,
    /// Time and stall at the last pass.
    last_pass: (u64, u64),
}

impl Machine {
    /// A plain machine with nothing on it but the system's own twelfth. Priority 100 and above is protected.
    #[must_use]
    pub fn new(total_mib: u64, swap_mib: u64) -> Self {
        let config = Config { protect_priority: 100, ..Config::default() };
        Self {
            config,
            watched: true,
            hardware: Hardware::plain(),
            total: total_mib * MIB,
            system: total_mib * MIB / 12,
            swap_total: swap_mib * MIB,
            swap_speed: 150 * MIB,
            processes: BTreeMap::new(),
            now_ms: 0,
            state: State::default(),
            outcomes: Vec::new(),
            conceded: Vec::new(),
            oom: Vec::new(),
            killed: Vec::new(),
            psi_us: 0,
            gap: 0..0,
            skips: true,
            gate: Vec::new(),
            next_inode: 100,
            next_ms: 0,
            last_pass: (0, 0),
        }
    }

    /// Adds a workload that has `anon` MiB and a mapped file of `file` MiB.
    pub fn add(&mut self, name: &str, priority: i32, anon: u64, file: u64, habit: Habit) -> WorkloadId {
        let id = WorkloadId { path: format!("models/{name}").into(), inode: self.next_inode };
        self.next_inode += 1;
        let spec = Spec { name: name.into(), priority, ..Spec::default() };
        self.processes.insert(id.clone(), Process::new(spec, anon * MIB, file * MIB, habit));
        id
    }

    /// The process of an id that `add` gave.
    ///
    /// # Panics
    /// Where there is none.
    pub fn entry(&mut self, id: &WorkloadId) -> &mut Process {
        self.processes.get_mut(id).expect("an id of the machine's own")
    }

    /// Runs for `ms`, giving every pass with its sample to `look`.
    pub fn run(&mut self, ms: u64, look: impl FnMut(&Sample, &Pass)) {
        self.run_with(ms, |_, _| {}, look);
    }

    /// The same with somebody who may change every sample before the policy sees it, and the machine with it.
    pub fn run_with(
        &mut self,
        ms: u64,
        mut alter: impl FnMut(&mut Self, &mut Sample),
        mut look: impl FnMut(&Sample, &Pass),
    ) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            if self.watched && self.now_ms >= self.next_ms {
                self.pass(&mut alter, &mut look);
            }
            let event = if self.watched { end.min(self.next_ms) } else { end };
            let most = event.saturating_sub(self.now_ms).div_ceil(TICK_MS).max(1);
            match if self.skips { self.quiet(most) } else { 0 } {
                0 => self.tick(),
                ticks => self.skip(ticks),
            }
        }
    }

    /// The daemon ends and another one begins with `state`: what was held has been released in between.
    pub fn restart(&mut self, state: State) {
        self.state = state;
        self.gate.clear();
        self.outcomes.clear();
        self.conceded.clear();
        for process in self.processes.values_mut() {
            (process.high, process.low, process.reclaim) = (None, 0, None);
            (process.frozen_at, process.frozen) = (None, false);
        }
    }

    fn pass(
        &mut self,
        alter: &mut impl FnMut(&mut Self, &mut Sample),
        look: &mut impl FnMut(&Sample, &Pass),
    ) {
        let mut sample = self.sample();
        alter(self, &mut sample);
        let pass = step(&self.config, std::mem::take(&mut self.state), &sample);
        look(&sample, &pass);
        self.next_ms = self.now_ms + (pass.plan.next.0 / 1_000_000).max(TICK_MS) + self.lag();
        self.last_pass = (self.now_ms, self.psi_us);
        self.apply(&pass.plan);
        self.state = pass.state;
    }

    /// The controller has to wait for a processor too: the more of the time is stall, the longer.
    fn lag(&self) -> u64 {
        let (passed_us, stalled_us) =
            ((self.now_ms - self.last_pass.0) * 1000, self.psi_us - self.last_pass.1);
        (stalled_us * self.hardware.lag_ms).checked_div(passed_us).unwrap_or(0)
    }

    fn tick(&mut self) {
        let free = self.free();
        let swap_free = self.swap_free();
        let swap_step = hardware::per_tick(self.swap_speed);
        let (ids, all): (Vec<_>, Vec<_>) = self.processes.iter_mut().unzip();
        let before: u64 = all.iter().map(|p| p.psi_us).sum();
        let mut tick = Tick {
            hardware: &self.hardware,
            marks: self.hardware.marks(self.total),
            now: self.now_ms,
            all,
            free,
            swap_free,
            swap_step,
            may_drop: hardware::per_tick(self.hardware.drop),
            may_swap: if self.hardware.balanced { swap_step } else { u64::MAX },
            direct: false,
            outcomes: &mut self.outcomes,
            conceded: &mut self.conceded,
            oom: &mut self.oom,
            total: self.total,
        };
        tick.act(&ids);
        tick.run();
        let (direct, free, swap_free) = (tick.direct, tick.free, tick.swap_free);
        let after: u64 = tick.all.iter().map(|p| p.psi_us).sum();
        self.psi_us += (after - before).min(memory::TICK_US);
        assert_eq!((free, swap_free), (self.free(), self.swap_free()), "memory is conserved");
        if direct && self.hardware.probes {
            self.stop_targets();
        }
        self.now_ms += TICK_MS;
    }

    /// The moment that a sample taken now would bear.
    #[must_use]
    pub fn at(&self) -> Monotonic {
        moment(self.now_ms)
    }

    /// Bytes of RAM that nobody holds.
    ///
    /// # Panics
    /// Where more is held than there is: that would be a mistake in the model.
    #[must_use]
    pub fn free(&self) -> u64 {
        let used: u64 = self.processes.values().map(|p| p.resident() + self.hardware.in_ram(p.swap)).sum();
        self.total.checked_sub(used + self.system).expect("no more is held than there is")
    }

    /// Bytes of swap that nobody holds.
    ///
    /// # Panics
    /// Where more is held than there is: that would be a mistake in the model.
    #[must_use]
    pub fn swap_free(&self) -> u64 {
        let used: u64 = self.processes.values().map(|p| p.swap).sum();
        self.swap_total.checked_sub(used).expect("no more is swapped than there is room for")
    }

    fn meminfo(&self) -> Meminfo {
        let file: u64 = self.processes.values().map(|p| p.file).sum();
        let marks = self.hardware.marks(self.total);
        let (free, available) = if self.hardware.kswapd {
            // As the kernel estimates it: half of the cache, but no more than the low watermark, stays.
            let cache = file - (file / 2).min(marks.low);
            (self.free(), (self.free() + cache).saturating_sub(marks.high))
        } else {
            (self.free(), (self.free() + file).saturating_sub(marks.direct))
        };
        Meminfo {
            total: Bytes(self.total),
            free: Bytes(free),
            available: Bytes(available),
            file: Bytes(file),
            reserved: Bytes(marks.high),
            shmem: Bytes::ZERO,
            swap_total: Bytes(self.swap_total),
            swap_free: Bytes(self.swap_free()),
        }
    }

    fn sample(&mut self) -> Sample {
        let at = self.at();
        let blind = self.gap.contains(&self.now_ms);
        let host = Host {
            meminfo: (!blind).then(|| self.meminfo()),
            psi: (!blind).then_some(Psi { some_us: self.psi_us, full_us: self.psi_us / 2 }),
            ..Host::default()
        };
        let hardware = &self.hardware;
        let read = |p: &mut Process| if blind { p.gap() } else { p.read(at, hardware) };
        let workloads: BTreeMap<_, Workload> =
            self.processes.iter_mut().map(|(id, p)| (id.clone(), read(p))).collect();
        let outcomes = std::mem::take(&mut self.outcomes);
        let conceded = std::mem::take(&mut self.conceded);
        Sample { at, trigger: Trigger::Timer, host, workloads, outcomes, conceded, ..Sample::default() }
    }
}

/// Virtual milliseconds as a moment since boot: ten seconds are for booting.
fn moment(ms: u64) -> Monotonic {
    Monotonic(0) + Span::millis(10_000 + ms)
}
