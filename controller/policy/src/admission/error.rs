//! The learned error of a workload's estimates: it grows with each OOM and is forgotten step by step.

use serde::{Deserialize, Serialize};

use crate::units::{Monotonic, Share, Span};

/// What each OOM adds.
const STEP: u32 = 8;
/// A workload that still fails with 40 % more than it asked for does not know what it needs.
const STEPS: u32 = 5;
/// One step is forgotten after so long: the next model of the same server may be another one.
const FORGOTTEN: Span = Span::secs(3600);

/// How much more than it asks for a workload is promised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorMargin {
    /// OOMs that still count.
    pub steps: u32,
    /// When the last one counted.
    pub at: Monotonic,
}

impl ErrorMargin {
    /// The share of what is asked that is added to it.
    pub(super) fn share(&self, at: Monotonic) -> Share {
        Share::percent(self.left(at) * STEP)
    }

    pub(super) fn grow(&mut self, times: u64, at: Monotonic) -> Share {
        let times = u32::try_from(times).unwrap_or(STEPS).min(STEPS);
        self.steps = (self.left(at) + times).min(STEPS);
        self.at = at;
        self.share(at)
    }

    fn left(&self, at: Monotonic) -> u32 {
        let quiet = at.since(self.at).0 / FORGOTTEN.0;
        self.steps.min(STEPS).saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_is_bounded_and_forgotten() {
        let minute = |n: u64| Monotonic(n * 60_000_000_000);
        let mut margin = ErrorMargin::default();
        assert_eq!(margin.share(minute(0)), Share::ZERO);
        assert_eq!(margin.grow(1, minute(0)), Share::percent(8));
        assert_eq!(margin.grow(1, minute(59)), Share::percent(16));
        assert_eq!(margin.share(minute(119)), Share::percent(8));
        assert_eq!(margin.grow(u64::MAX, minute(120)), Share::percent(40));
        assert_eq!(margin.share(minute(120 + 300)), Share::ZERO);
    }
}
