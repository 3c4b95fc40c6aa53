//! One tick: what the processes want, what they get, and what it costs them. What is allocated was free or has been taken
//! from somebody.

use plimsoll_policy::concession::Concession;
use plimsoll_policy::plan::Outcome;

use super::habit::Habit;
use super::hardware::{Hardware, Marks, per_tick};
use super::process::Process;
use super::{PAGE, TICK_MS};

/// Microseconds in a tick.
pub(crate) const TICK_US: u64 = TICK_MS * 1000;

/// Memory of a NUMA node.
const NODE: u64 = 128 << 30;

/// The machine during one tick, with all processes side by side.
pub(crate) struct Tick<'a> {
    pub(crate) hardware: &'a Hardware,
    pub(crate) marks: Marks,
    pub(crate) now: u64,
    pub(crate) all: Vec<&'a mut Process>,
    /// RAM and swap that nobody holds.
    pub(crate) free: u64,
    pub(crate) swap_free: u64,
    /// Bytes that swap takes in a tick when one cgroup is reclaimed.
    pub(crate) swap_step: u64,
    /// Bytes that whoever reclaims may still drop in this tick, and that all together may still swap.
    pub(crate) may_drop: u64,
    pub(crate) may_swap: u64,
    /// Whether somebody had to reclaim for himself.
    pub(crate) direct: bool,
    pub(crate) outcomes: &'a mut Vec<Outcome>,
    /// Answers of those who were asked.
    pub(crate) conceded: &'a mut Vec<Concession>,
    /// Names of what the kernel killed.
    pub(crate) oom: &'a mut Vec<String>,
    pub(crate) total: u64,
}

impl Tick<'_> {
    pub(crate) fn run(&mut self) {
        for i in 0..self.all.len() {
            if self.all[i].runs() {
                self.live(i);
            }
        }
        if self.hardware.kswapd && self.free < self.marks.low {
            // There is one for each node of the machine.
            self.may_drop = per_tick(self.hardware.drop) * (self.total / NODE).max(1);
            self.reclaim(self.marks.high - self.free);
        }
    }

    fn live(&mut self, i: usize) {
        let begun = self.all[i].psi_us;
        self.may_drop = per_tick(self.hardware.drop);
        if self.all[i].drops(self.now) {
            let start = self.all[i].start;
            self.give_back(i, start);
        }
        let wants = self.all[i].appetite(self.now);
        if wants.back > 0 {
            let keep = (self.all[i].anon + self.all[i].swap).saturating_sub(wants.back);
            self.give_back(i, keep);
        }
        let anon = self.throttled(i, wants.anon);
        self.all[i].anon += self.allocate(i, anon);
        let file = self.charged(i, wants.file);
        let got = self.allocate(i, file);
        let process = &mut *self.all[i];
        process.file += got;
        if matches!(process.habit, Habit::Load { .. }) {
            process.model += got;
            process.major_faults += got / PAGE / 16;
        }
        self.refault(i);
        self.swap_in(i);
        let process = &mut *self.all[i];
        // Nobody waits longer than the time that passes.
        process.psi_us = process.psi_us.min(begun + TICK_US);
        process.work_us += begun + TICK_US - process.psi_us;
    }

    /// Leaves `keep` bytes of anon; what is in swap goes first.
    pub(crate) fn give_back(&mut self, i: usize, keep: u64) {
        let process = &mut *self.all[i];
        let back = (process.anon + process.swap).saturating_sub(keep);
        let from_swap = back.min(process.swap);
        let from_ram = back - from_swap;
        process.anon -= from_ram;
        self.free += from_ram;
        let left = process.swap - from_swap;
        self.swap_to(i, left);
    }

    /// Changes what a process has in swap, and what that takes of swap and RAM.
    pub(crate) fn swap_to(&mut self, i: usize, swap: u64) {
        let process = &mut *self.all[i];
        self.free = self.free + self.hardware.in_ram(process.swap) - self.hardware.in_ram(swap);
        self.swap_free = self.swap_free + process.swap - swap;
        process.swap = swap;
    }

    /// The mapped model is touched over and over: what was evicted comes back, at the pace of a disk.
    fn refault(&mut self, i: usize) {
        let missing = self.all[i].model.saturating_sub(self.all[i].file);
        let pace = per_tick(self.hardware.read);
        let wanted = missing.min(pace);
        if wanted == 0 {
            return;
        }
        let charged = self.charged(i, wanted);
        let got = self.allocate(i, charged);
        let process = &mut *self.all[i];
        process.file += got;
        process.refaults += got;
        process.major_faults += got / PAGE / 4;
        process.psi_us += TICK_US * wanted / pace / 2;
    }

    /// Anon in use comes back from swap, and its owner waits for it.
    fn swap_in(&mut self, i: usize) {
        let pace = per_tick(self.hardware.swap_in);
        let wanted = self.all[i].lacking().min(pace);
        if wanted == 0 {
            return;
        }
        let charged = self.charged(i, wanted);
        let got = self.allocate(i, charged);
        let process = &mut *self.all[i];
        process.anon += got;
        process.refaults_anon += got;
        process.major_faults += got / PAGE / 8;
        process.psi_us += TICK_US * wanted / pace;
        let left = process.swap.saturating_sub(got);
        self.swap_to(i, left);
    }

    /// Above `memory.high` a workload reclaims from itself where it can, and sleeps where it can't.
    fn throttled(&mut self, i: usize, wanted: u64) -> u64 {
        let Some(high) = self.all[i].high else { return wanted };
        let over = (self.all[i].resident() + wanted).saturating_sub(high);
        if over == 0 {
            return wanted;
        }
        let dropped = if self.hardware.balanced { self.drop_file(i, over, 0) } else { 0 };
        let freed = dropped + self.swap_out(i, (over - dropped).min(self.swap_step));
        let process = &mut *self.all[i];
        if wanted > 0 || freed > 0 {
            process.high_events += 1;
            process.psi_us += TICK_MS * 900;
            process.scan += 1000;
            process.steal += freed / PAGE;
        }
        wanted.min(freed.max(128 * 1024 * TICK_MS / 1000))
    }

    /// What comes back to a workload counts against its limit too.
    fn charged(&mut self, i: usize, wanted: u64) -> u64 {
        if wanted > 0 && self.hardware.balanced { self.throttled(i, wanted) } else { wanted }
    }

    /// Takes up to `wanted` bytes, of what is free or by reclaim.
    pub(crate) fn allocate(&mut self, i: usize, wanted: u64) -> u64 {
        if wanted == 0 {
            return 0;
        }
        let lacking = (wanted + self.marks.direct).saturating_sub(self.free);
        if lacking > 0 {
            self.direct_reclaim(i, lacking, wanted);
        }
        let got = wanted.min(self.free.saturating_sub(self.marks.min));
        self.free -= got;
        got
    }

    fn direct_reclaim(&mut self, i: usize, lacking: u64, wanted: u64) {
        let taken = self.reclaim(lacking);
        let short = taken.freed < lacking && self.free < wanted + self.marks.min;
        let waited = if self.hardware.balanced {
            taken.took_us.max(if short { TICK_US } else { 0 })
        } else if taken.hard {
            TICK_US / 2
        } else {
            0
        };
        self.direct |= self.hardware.balanced || taken.hard;
        self.all[i].psi_us += waited;
        self.all[i].direct_us += waited.min(TICK_US);
        if short && taken.dry {
            self.oom_kill();
        }
    }
}

/// Where a process died, how its memory is gone.
impl Tick<'_> {
    pub(crate) fn die(&mut self, i: usize) {
        self.swap_to(i, 0);
        self.free += self.all[i].resident();
        let process = &mut *self.all[i];
        process.dead = true;
        process.reclaim = None;
        (process.anon, process.file, process.model) = (0, 0, 0);
    }

    /// Badness as the kernel has it: what it holds in RAM and swap, plus `oom_score_adj` thousandths of the memory.
    fn oom_kill(&mut self) {
        let total = i128::from(self.total);
        let badness = |p: &Process| {
            i128::from(p.anon + p.swap + p.file / 16) + total * i128::from(p.oom_score_adj) / 1000
        };
        let worst = (0..self.all.len())
            .filter(|&i| !self.all[i].dead && self.all[i].oom_score_adj > -1000)
            .max_by_key(|&i| badness(self.all[i]));
        if let Some(i) = worst {
            self.oom.push(self.all[i].spec.name.clone());
            self.die(i);
        }
    }
}
