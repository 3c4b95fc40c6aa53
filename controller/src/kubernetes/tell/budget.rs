//! How much may be said: tokens that come back at a steady rate.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of tokens.
#[derive(Debug)]
pub(super) struct Budget {
    most: u32,
    every: Duration,
    left: u32,
    filled: Instant,
}

impl Budget {
    /// Full with `most`; one comes back after each `every`.
    pub(super) fn new(most: u32, every: Duration, now: Instant) -> Self {
        Self { most, every, left: most, filled: now }
    }

    /// When a token can be taken so that `keep` are left for what matters more.
    pub(super) fn ready(&mut self, keep: u32, now: Instant) -> Instant {
        self.fill(now);
        match (keep + 1).saturating_sub(self.left) {
            0 => now,
            missing => self.filled + self.every * missing,
        }
    }

    /// Takes one, where [`Budget::ready`] says so.
    pub(super) fn take(&mut self, now: Instant) {
        self.fill(now);
        self.left = self.left.saturating_sub(1);
    }

    /// Whether nothing has been taken for so long that a new one would be the same.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left == self.most
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_nanos() / self.every.as_nanos().max(1);
        let come = u32::try_from(passed).unwrap_or(u32::MAX).min(self.most - self.left);
        self.left += come;
        // What is full loses what comes meanwhile.
        self.filled = if self.left == self.most { now } else { self.filled + self.every * come };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_course_gets_more_than_the_bucket_and_what_came_back(
            waits in prop::collection::vec(0_u64..20_000, 1..400), keep in 0_u32..5,
        ) {
            let start = Instant::now();
            let (mut now, mut taken) = (start, 0_u64);
            let mut budget = Budget::new(10, Duration::from_secs(5), start);
            for wait in waits {
                now += Duration::from_millis(wait);
                if budget.ready(keep, now) <= now {
                    budget.take(now);
                    taken += 1;
                }
            }
            prop_assert!(taken <= 10 + (now - start).as_secs() / 5);
        }

        #[test]
        fn a_token_is_there_when_it_was_promised(
            takes in 0_u32..30, keep in 0_u32..5, after in 0_u64..60_000,
        ) {
            let start = Instant::now();
            let mut budget = Budget::new(10, Duration::from_secs(5), start);
            (0..takes).for_each(|_| budget.take(start));
            let now = start + Duration::from_millis(after);
            let ready = budget.ready(keep, now);
            prop_assert_eq!(budget.ready(keep, ready), ready);
        }
    }
}
