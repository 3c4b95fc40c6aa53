//! What is counted of telling, for metrics. Written by the pass and by the task that speaks, read by a scrape.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a request to the API server is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An Event.
    Event,
    /// The node's condition.
    Condition,
    /// The node's taint: looked at, and changed.
    Taint,
    /// An eviction.
    Evict,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Event, Self::Condition, Self::Taint, Self::Evict];

    /// The word used in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Condition => "condition",
            Self::Taint => "taint",
            Self::Evict => "evict",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Done.
    Done,
    /// Somebody else was quicker, or what it is about is gone or there already.
    Conflict,
    /// 429: too many requests, or a disruption budget.
    Busy,
    /// It may not, or makes no sense to the server.
    Refused,
    /// The server failed.
    Failed,
    /// No answer in time, or nobody there.
    Away,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Conflict, Self::Busy, Self::Refused, Self::Failed, Self::Away];

    /// The word used in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Away => "away",
        }
    }
}

/// What became of something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An Event of its own.
    Told,
    /// One more of a series.
    Counted,
    /// Not told: too many.
    Suppressed,
    /// Not told: too late, since the API server was away or refused, or too many at once.
    Dropped,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Told, Self::Counted, Self::Suppressed, Self::Dropped];

    /// The word used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Counted => "counted",
            Self::Suppressed => "suppressed",
            Self::Dropped => "dropped",
        }
    }
}

/// All counts.
#[derive(Debug, Default)]
pub struct Counts {
    requests: [[AtomicU64; Ending::ALL.len()]; What::ALL.len()],
    fates: [AtomicU64; Fate::ALL.len()],
    /// Mistakes in annotations of pods that are there.
    problems: AtomicU64,
    /// What the taint does: 0 nothing, 1 PreferNoSchedule, 2 NoSchedule.
    taint: AtomicU64,
    /// When the condition was last written, in seconds since 1970; 0 before that.
    condition: AtomicU64,
    restarts: AtomicU64,
}

impl Counts {
    /// Requests that ended like this since the start.
    #[must_use]
    pub fn requests(&self, what: What, how: Ending) -> u64 {
        self.requests[what as usize][how as usize].load(Ordering::Relaxed)
    }

    /// What there was to tell and ended like this.
    #[must_use]
    pub fn fates(&self, fate: Fate) -> u64 {
        self.fates[fate as usize].load(Ordering::Relaxed)
    }

    /// Mistakes in annotations.
    #[must_use]
    pub fn problems(&self) -> u64 {
        self.problems.load(Ordering::Relaxed)
    }

    /// 0 no taint, 1 `PreferNoSchedule`, 2 `NoSchedule`.
    #[must_use]
    pub fn taint(&self) -> u64 {
        self.taint.load(Ordering::Relaxed)
    }

    /// When the condition was written, in seconds since 1970.
    #[must_use]
    pub fn condition(&self) -> Option<u64> {
        Some(self.condition.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }

    /// How often the task that speaks panicked and was begun again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(super) fn fell(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, what: What, how: Ending) {
        self.requests[what as usize][how as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fared(&self, fate: Fate, count: u64) {
        self.fates[fate as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn set_problems(&self, count: usize) {
        self.problems.store(count as u64, Ordering::Relaxed);
    }

    pub(super) fn set_taint(&self, effect: u64) {
        self.taint.store(effect, Ordering::Relaxed);
    }

    pub(super) fn set_condition(&self, at: i64) {
        self.condition.store(at.unsigned_abs(), Ordering::Relaxed);
    }
}
