//! Skipping ahead: ticks in which nothing happens but growth by equal steps are taken at once, with the same result
//! to the byte as one by one.

use super::giver::Giver;
use super::habit::{Appetite, Habit};
use super::memory::TICK_US;
use super::process::Process;
use super::{Machine, PAGE, TICK_MS};

impl Machine {
    /// How many of the next `most` ticks are quiet.
    pub(super) fn quiet(&self, most: u64) -> u64 {
        let mut ticks = most;
        let mut grows = 0_u64;
        for process in self.processes.values() {
            let Some(wants) = steady(process, self.now_ms) else { return 0 };
            ticks = ticks.min(wants.ticks);
            grows += wants.anon + wants.file;
        }
        let marks = self.hardware.marks(self.total);
        let keep = marks.direct.max(marks.low);
        let room = self.free().saturating_sub(keep);
        ticks.min(room.checked_div(grows).unwrap_or(if self.free() >= keep { ticks } else { 0 }))
    }

    /// Takes so many quiet ticks at once.
    pub(super) fn skip(&mut self, ticks: u64) {
        for process in self.processes.values_mut().filter(|p| p.runs()) {
            let wants = process.appetite(self.now_ms);
            process.anon = process.anon + wants.anon * ticks - wants.back * ticks;
            process.file += wants.file * ticks;
            if matches!(process.habit, Habit::Load { .. }) {
                process.model += wants.file * ticks;
                process.major_faults += wants.file / PAGE / 16 * ticks;
            }
            process.work_us += TICK_US * ticks;
        }
        self.now_ms += ticks * TICK_MS;
    }
}

/// What a process does in each of the next ticks; `None` where something is under way.
fn steady(process: &Process, now: u64) -> Option<Appetite> {
    let settled = process.reclaim.is_none()
        && process.giver.as_ref().is_none_or(Giver::rests)
        && (process.dies_at.is_none() || process.dead || process.immortal)
        && process.frozen == process.frozen_at.is_some();
    if !settled {
        return None;
    }
    if !process.runs() {
        return Some(Appetite::NONE);
    }
    if process.drops(now) || process.model > process.file || process.lacking() > 0 {
        return None;
    }
    let wants = process.appetite(now);
    // Shrinking what is partly swapped, or growing into the share that is hot, is for single ticks.
    if process.swap > 0 && (wants.back > 0 || (wants.anon > 0 && process.hot > 0)) {
        return None;
    }
    let Some(high) = process.high else { return Some(wants) };
    let room = high.saturating_sub(process.resident());
    match room.checked_div(wants.anon + wants.file) {
        Some(0) => None,
        Some(fits) => Some(Appetite { ticks: wants.ticks.min(fits), ..wants }),
        None if process.resident() > high => None,
        None => Some(wants),
    }
}
