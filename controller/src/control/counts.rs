//! What is counted at the control socket, for metrics. Written by many tasks, read by a scrape.

use std::sync::atomic::{AtomicU64, Ordering};

/// What kind of CUDA error was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CudaError {
    /// A lack of memory.
    OutOfMemory,
    /// The context is lost.
    Sticky,
    /// Any other.
    Other,
}

impl CudaError {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OutOfMemory, Self::Sticky, Self::Other];

    /// The word used in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::Sticky => "sticky",
            Self::Other => "other",
        }
    }
}

/// All counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Clients that are connected.
    pub clients: AtomicU64,
    /// Clients that were not let in.
    pub turned_away: AtomicU64,
    /// Programs that can be asked.
    pub sessions: AtomicU64,
    /// Streams of notices.
    pub streams: AtomicU64,
    cuda: [AtomicU64; CudaError::ALL.len()],
}

impl Counts {
    /// One more of them.
    pub(super) fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(super) fn take(count: &AtomicU64) {
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// One of them as long as the value lives.
    pub(super) fn hold(count: &AtomicU64) -> Held<'_> {
        Self::add(count);
        Held(count)
    }

    /// A CUDA error was reported.
    pub(super) fn failed(&self, kind: CudaError) {
        Self::add(&self.cuda[kind as usize]);
    }

    /// CUDA errors of a kind that were reported since the start.
    #[must_use]
    pub fn cuda(&self, kind: CudaError) -> u64 {
        self.cuda[kind as usize].load(Ordering::Relaxed)
    }
}

/// Counted until it is dropped.
pub(super) struct Held<'a>(&'a AtomicU64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        Counts::take(self.0);
    }
}
