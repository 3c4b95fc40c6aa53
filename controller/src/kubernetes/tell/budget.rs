//! How much may be said: tokens that come back at a steady rate, and the pause after a refusal.

use std::hash::{BuildHasher, RandomState};
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

/// The pause after the API server failed or refused: twice as long each time, never the same on two nodes.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// The first pause.
    const FIRST: Duration = Duration::from_secs(1);
    /// The longest. A server that comes back after an hour hears from every node within this time, not from all at once.
    const LONGEST: Duration = Duration::from_secs(120);
    /// A server may ask for so much and no more: what it says is not trusted to silence a node.
    const ASKED_AT_MOST: Duration = Duration::from_secs(300);

    pub(super) const fn new() -> Self {
        Self { failures: 0, until: None }
    }

    /// The end of the pause, where there is one.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// A request came through.
    pub(super) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// A request did not. `asked` is what the server wants to be left alone for.
    pub(super) fn failed(&mut self, asked: Option<Duration>, now: Instant, dice: &mut Dice) {
        let pause = (Self::FIRST * 2_u32.saturating_pow(self.failures.min(10))).min(Self::LONGEST);
        let asked = asked.unwrap_or_default().min(Self::ASKED_AT_MOST);
        self.failures += 1;
        self.until = Some(now + asked + pause / 2 + dice.below(pause / 2));
    }
}

/// Chance, so that nodes that see the same at once do not say it at once. Nothing secret rests on it.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Seeded by the system.
    pub(super) fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    #[cfg(test)]
    pub(super) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A time below `end`.
    pub(super) fn below(&mut self, end: Duration) -> Duration {
        let nanos = u64::try_from(end.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.next() % nanos)
    }

    /// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
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

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_a_success() {
        let (mut dice, mut now, mut backoff) = (Dice::seeded(1), Instant::now(), Backoff::new());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            backoff.failed(None, now, &mut dice);
            let until = backoff.until(now).unwrap();
            pauses.push((until - now).as_secs_f64());
            now = until;
        }
        for (n, pause) in pauses.iter().enumerate() {
            let whole = f64::from(1_u32 << n.min(10)).min(120.0);
            assert!((whole / 2.0..=whole).contains(pause), "pause {n} was {pause} s");
        }
        backoff.succeeded();
        assert_eq!(backoff.until(now), None);
    }

    #[test]
    fn a_server_may_ask_for_five_minutes_and_no_more() {
        let (mut dice, now, mut backoff) = (Dice::seeded(1), Instant::now(), Backoff::new());
        backoff.failed(Some(Duration::from_secs(30)), now, &mut dice);
        assert!(backoff.until(now).unwrap() - now >= Duration::from_secs(30));
        backoff.failed(Some(Duration::MAX), now, &mut dice);
        assert!(backoff.until(now).unwrap() - now <= Duration::from_secs(302));
    }
}
