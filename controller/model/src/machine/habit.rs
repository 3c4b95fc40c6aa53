//! What a workload does by itself, and for how long it will go on doing just that.

use super::process::Process;
use super::{MIB, TICK_MS};

/// What a workload does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    Idle,
    /// Allocates anon from a moment on until it has enough.
    Grow {
        /// MiB/s.
        rate: u64,
        /// Milliseconds after the start.
        from_ms: u64,
        /// MiB.
        until: u64,
    },
    /// The same, and gives it all back.
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
    /// Grows, gives it all back, and begins anew.
    Saw {
        /// MiB/s.
        rate: u64,
        /// MiB.
        until: u64,
        /// Milliseconds.
        every_ms: u64,
    },
    /// Grows or shrinks to a size, as a KV cache does with its requests.
    Seek {
        /// MiB/s in either direction.
        rate: u64,
        /// MiB.
        to: u64,
    },
    /// Reads a file that is larger than the memory.
    Scan {
        /// MiB/s.
        rate: u64,
    },
    /// Maps a model file.
    Load {
        /// MiB/s.
        rate: u64,
        /// Milliseconds after the start.
        from_ms: u64,
        /// MiB.
        size: u64,
    },
}

/// What a workload wants in each of the next ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Appetite {
    /// Bytes of anon.
    pub(crate) anon: u64,
    /// Bytes of new file pages.
    pub(crate) file: u64,
    /// Bytes of anon that it gives back.
    pub(crate) back: u64,
    /// For so many ticks, if it gets all of it.
    pub(crate) ticks: u64,
}

/// Forever, as far as anybody asks.
const LONG: u64 = u64::MAX / (1 << 20);

impl Appetite {
    /// Nothing, and that for long.
    pub(crate) const NONE: Self = Self { anon: 0, file: 0, back: 0, ticks: LONG };

    fn none_until(ms: u64, now: u64) -> Self {
        Self { ticks: ticks_to(ms, now), ..Self::NONE }
    }

    fn at_most(self, ticks: u64) -> Self {
        Self { ticks: self.ticks.min(ticks), ..self }
    }

    /// Towards `goal` from `has`: whole steps, then what is left of one.
    fn toward(goal: u64, has: u64, step: u64) -> Self {
        let left = goal.saturating_sub(has);
        match left / step.max(1) {
            _ if left == 0 || step == 0 => Self::NONE,
            0 => Self { anon: left, ticks: 1, ..Self::NONE },
            whole => Self { anon: step, ticks: whole, ..Self::NONE },
        }
    }
}

/// Ticks that begin before `ms`.
fn ticks_to(ms: u64, now: u64) -> u64 {
    ms.saturating_sub(now).div_ceil(TICK_MS)
}

const fn step(rate: u64) -> u64 {
    rate * MIB * TICK_MS / 1000
}

impl Process {
    /// What it wants of the tick that begins now, and for how many ticks that holds.
    pub(crate) fn appetite(&self, now: u64) -> Appetite {
        let has = self.anon + self.swap;
        let grow = |rate, until: u64| Appetite::toward(until * MIB, has, step(rate));
        match self.habit {
            Habit::Idle => Appetite::NONE,
            Habit::Grow { from_ms, .. } | Habit::Burst { from_ms, .. } | Habit::Load { from_ms, .. }
                if now < from_ms =>
            {
                Appetite::none_until(from_ms, now)
            }
            Habit::Grow { rate, until, .. } => grow(rate, until),
            Habit::Burst { drop_ms, .. } if now >= drop_ms => Appetite::NONE,
            Habit::Burst { rate, until, drop_ms, .. } => grow(rate, until).at_most(ticks_to(drop_ms, now)),
            Habit::Saw { rate, until, every_ms } => {
                grow(rate, until).at_most(ticks_to((now / every_ms + 1) * every_ms, now))
            }
            Habit::Seek { rate, to } if has > to * MIB => {
                let back = Appetite::toward(has, to * MIB, step(rate));
                Appetite { anon: 0, back: back.anon, ..back }
            }
            Habit::Seek { rate, to } => grow(rate, to),
            Habit::Scan { rate } => Appetite { file: step(rate), ..Appetite::NONE },
            Habit::Load { rate, size, .. } => {
                let rest = Appetite::toward(size * MIB, self.model, step(rate));
                Appetite { anon: 0, file: rest.anon, ..rest }
            }
        }
    }

    /// Whether it gives back all that it took, now.
    pub(crate) fn drops(&self, now: u64) -> bool {
        match self.habit {
            Habit::Burst { drop_ms, .. } => now >= drop_ms && self.anon + self.swap > self.start,
            Habit::Saw { every_ms, .. } => now.is_multiple_of(every_ms),
            _ => false,
        }
    }
}
