//! The pause after a failure, and chance, so that nodes do not all come back at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

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
    use super::*;

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
