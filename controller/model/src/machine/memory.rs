//! One tick: appetites, reclaim, exits. What is allocated was free or has been taken from somebody.

use plimsoll_policy::sample::WorkloadId;

use super::process::Habit;
use super::{MIB, Machine, PAGE, TICK_MS};

/// Bytes in a tick, from bytes per second.
fn per_tick(rate: u64) -> u64 {
    rate * TICK_MS / 1000
}

impl Machine {
    pub(crate) fn tick(&mut self) {
        self.act();
        let ids: Vec<_> = self.processes.keys().cloned().collect();
        let before = self.processes.values().map(|p| p.psi_us).sum::<u64>();
        for id in &ids {
            if !self.processes[id].dead && !self.processes[id].frozen {
                self.live(id);
            }
        }
        let after = self.processes.values().map(|p| p.psi_us).sum::<u64>();
        self.psi_us += (after - before).min(TICK_MS * 1000);
        assert!(
            self.processes.values().map(super::Process::resident).sum::<u64>() + self.system <= self.total
        );
        assert!(self.processes.values().map(|p| p.swap).sum::<u64>() <= self.swap_total);
    }

    fn live(&mut self, id: &WorkloadId) {
        let now = self.now_ms;
        if self.processes[id].drops(now) {
            self.give_back(id);
        }
        let (anon, file) = self.processes[id].appetite(now);
        let anon = self.throttled(id, anon);
        let got = self.allocate(id, anon);
        self.entry(id).anon += got;
        let got = self.allocate(id, file);
        let process = self.entry(id);
        process.file += got;
        if matches!(process.habit, Habit::Load { .. }) {
            process.model += got;
            process.major_faults += got / PAGE / 16;
        }
        self.refault(id);
    }

    fn give_back(&mut self, id: &WorkloadId) {
        let process = self.entry(id);
        process.swap = 0;
        process.anon = process.anon.min(process.start);
    }

    /// The mapped model is touched over and over: what was evicted comes back, at the pace of a disk.
    fn refault(&mut self, id: &WorkloadId) {
        let missing = self.processes[id].model.saturating_sub(self.processes[id].file);
        let wanted = missing.min(per_tick(100 * MIB));
        if wanted == 0 {
            return;
        }
        let got = self.allocate(id, wanted);
        let process = self.entry(id);
        process.file += got;
        process.refaults += got;
        process.major_faults += got / PAGE / 4;
        process.psi_us += TICK_MS * 1000 * wanted / per_tick(100 * MIB) / 2;
    }

    /// Above `memory.high` a workload reclaims from itself where it can, and sleeps where it can't.
    fn throttled(&mut self, id: &WorkloadId, wanted: u64) -> u64 {
        let Some(high) = self.processes[id].high else { return wanted };
        let over = (self.processes[id].resident() + wanted).saturating_sub(high);
        if over == 0 {
            return wanted;
        }
        let freed = self.swap_out(id, over.min(per_tick(self.swap_speed)));
        let process = self.entry(id);
        if wanted > 0 || freed > 0 {
            process.high_events += 1;
            process.psi_us += TICK_MS * 900;
            process.scan += 1000;
            process.steal += freed / PAGE;
        }
        wanted.min(freed.max(128 * 1024 * TICK_MS / 1000))
    }

    /// Up to `wanted` bytes, from what is free or by reclaim.
    fn allocate(&mut self, id: &WorkloadId, wanted: u64) -> u64 {
        let low = self.total / 100;
        let lacking = (wanted + low).saturating_sub(self.free());
        if wanted > 0 && lacking > 0 {
            let (freed, hard) = self.reclaim(lacking);
            if hard {
                self.entry(id).psi_us += TICK_MS * 500;
            }
            if freed < lacking && self.free() < wanted {
                self.oom_kill();
            }
        }
        wanted.min(self.free())
    }

    /// Global reclaim: caches, unprotected models, swap, protected models. Says whether it was hard.
    fn reclaim(&mut self, lacking: u64) -> (u64, bool) {
        let mut freed = 0;
        for pass in 0..4 {
            let ids: Vec<_> = self.processes.keys().cloned().collect();
            for id in ids {
                let left = lacking.saturating_sub(freed);
                let process = self.entry(&id);
                let spare = process.resident().saturating_sub(process.low);
                freed += match pass {
                    0 => take(&mut process.file, left, process.model),
                    1 => take_file(&mut process.file, left.min(spare)),
                    2 => self.swap_out(&id, left.min(spare)),
                    _ => take_file(&mut process.file, left),
                };
            }
            if freed >= lacking {
                return (freed, pass > 0);
            }
        }
        (freed, true)
    }

    /// Moves anon to swap, as far as there is some.
    pub(crate) fn swap_out(&mut self, id: &WorkloadId, wanted: u64) -> u64 {
        let room = self.swap_free();
        let process = self.entry(id);
        let moved = wanted.min(process.anon).min(room);
        process.anon -= moved;
        process.swap += moved;
        moved
    }

    fn oom_kill(&mut self) {
        let largest = self.processes.iter().filter(|(_, p)| !p.dead).max_by_key(|(_, p)| p.anon);
        if let Some(id) = largest.map(|(id, _)| id.clone()) {
            self.oom.push(self.processes[&id].spec.name.clone());
            self.die(&id);
        }
    }

    pub(crate) fn die(&mut self, id: &WorkloadId) {
        let process = self.entry(id);
        process.dead = true;
        (process.anon, process.file, process.swap, process.model) = (0, 0, 0, 0);
    }

    /// The process of an id that `add` gave.
    ///
    /// # Panics
    /// Where there is none.
    pub fn entry(&mut self, id: &WorkloadId) -> &mut super::Process {
        self.processes.get_mut(id).expect("an id of the machine's own")
    }
}

fn take(from: &mut u64, wanted: u64, keep: u64) -> u64 {
    let taken = wanted.min(from.saturating_sub(keep));
    *from -= taken;
    taken
}

fn take_file(from: &mut u64, wanted: u64) -> u64 {
    take(from, wanted, 0)
}
