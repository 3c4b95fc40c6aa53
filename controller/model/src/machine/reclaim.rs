//! How memory is taken: caches, unprotected models, swap, protected models.

use super::memory::{TICK_US, Tick};

/// What one reclaim gave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) freed: u64,
    /// More than clean caches had to go.
    pub(crate) hard: bool,
    /// There is nothing left to take, however long one tries.
    pub(crate) dry: bool,
    /// How long it took.
    pub(crate) took_us: u64,
}

impl Tick<'_> {
    /// The kernel's own reclaim.
    pub(crate) fn reclaim(&mut self, lacking: u64) -> Taken {
        let (drop_budget, swap_budget) = (self.may_drop, self.may_swap);
        let mut freed = 0;
        let mut stage = 0;
        while stage < 4 && freed < lacking && self.may_drop > 0 {
            let (left, from) = (lacking - freed, self.spare(stage));
            for i in 0..self.all.len() {
                let still = lacking.saturating_sub(freed);
                // The lists of all are scanned in proportion to their length.
                let fair = from.map_or(still, |from| part(left, self.all[i].spare(), from).min(still));
                freed += self.take(i, fair, stage);
            }
            stage += 1;
        }
        let dropped = drop_budget - self.may_drop;
        let swapped = swap_budget - self.may_swap;
        // A kernel that gets on, however slowly, goes on trying; and so it evicts what is in use rather than to kill.
        let stuck = if self.hardware.balanced { freed == 0 } else { freed < lacking };
        let dry = stuck && self.may_drop > 0 && (self.may_swap > 0 || self.swap_free == 0);
        let took_us = share_us(dropped, self.pace_drop()) + share_us(swapped, self.swap_step);
        Taken { freed, hard: stage > 1, dry, took_us: took_us.min(TICK_US) }
    }

    fn pace_drop(&self) -> u64 {
        super::hardware::per_tick(self.hardware.drop)
    }

    /// What all have beyond their protection, where that matters.
    fn spare(&self, stage: u8) -> Option<u64> {
        let fair = self.hardware.balanced && stage == 1;
        fair.then(|| self.all.iter().map(|p| p.spare()).sum())
    }

    fn take(&mut self, i: usize, left: u64, stage: u8) -> u64 {
        let spare = self.all[i].spare();
        match stage {
            0 => self.drop_file(i, left, self.all[i].model),
            1 if self.hardware.balanced && self.swap_free > 0 => {
                // The two lists are scanned side by side.
                let both = left.min(spare);
                let anon = self.swap_kernel(i, both / 2);
                anon + self.drop_file(i, both - both / 2, 0)
            }
            1 => self.drop_file(i, left.min(spare), 0),
            2 => self.swap_kernel(i, left.min(spare)),
            _ => self.drop_file(i, left, 0),
        }
    }

    pub(crate) fn drop_file(&mut self, i: usize, wanted: u64, keep: u64) -> u64 {
        let process = &mut *self.all[i];
        let taken = wanted.min(process.file.saturating_sub(keep)).min(self.may_drop);
        process.file -= taken;
        self.may_drop -= taken;
        self.free += taken;
        taken
    }

    fn swap_kernel(&mut self, i: usize, wanted: u64) -> u64 {
        let freed_before = self.free;
        let moved = self.swap_out(i, wanted.min(self.may_swap));
        self.may_swap -= moved;
        self.free - freed_before
    }

    /// Moves anon to swap, as far as there is some; gives how much was moved.
    pub(crate) fn swap_out(&mut self, i: usize, wanted: u64) -> u64 {
        let process = &mut *self.all[i];
        let moved = wanted.min(process.anon.saturating_sub(process.locked)).min(self.swap_free);
        process.anon -= moved;
        self.free += moved;
        let swap = process.swap + moved;
        self.swap_to(i, swap);
        moved
    }
}

/// The part of a tick that `bytes` take at so many bytes in a tick.
fn share_us(bytes: u64, per_tick: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(TICK_US) / u128::from(per_tick.max(1))).unwrap_or(TICK_US)
}

/// `of * share / whole`, rounded up.
fn part(of: u64, share: u64, whole: u64) -> u64 {
    let part = (u128::from(of) * u128::from(share)).div_ceil(u128::from(whole.max(1)));
    u64::try_from(part).unwrap_or(of)
}
