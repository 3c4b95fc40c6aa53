//! How long we wait before we write again what somebody else has overwritten: a moment at first, minutes where it goes on.

use plimsoll_policy::units::{Monotonic, Span};

/// After the first time. A `systemctl daemon-reload` sets every file of a unit back once, and does not come back soon; and the
/// pass has other rungs meanwhile.
const FIRST: Span = Span::secs(1);
/// It doubles so many times: to 256 s.
const DOUBLINGS: u32 = 8;
/// For each such time that ours stood, one repetition is forgotten.
const QUIET: Span = Span::secs(60);

/// The patience for one file of one workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Patience {
    repetitions: u32,
    /// Since when ours stands.
    stands: Monotonic,
    /// Hands off until then.
    until: Monotonic,
}

impl Patience {
    /// Whether ours may be written (again).
    pub(super) fn is_over(&self, now: Monotonic) -> bool {
        now >= self.until
    }

    /// Ours is written where somebody else's stood.
    pub(super) fn stands(&mut self, now: Monotonic) {
        self.stands = now;
    }

    /// Ours was overwritten: how long it is theirs.
    pub(super) fn overwritten(&mut self, now: Monotonic) -> Span {
        let forgotten = u32::try_from(now.since(self.stands).0 / QUIET.0).unwrap_or(u32::MAX);
        let doublings = self.repetitions.saturating_sub(forgotten).min(DOUBLINGS);
        self.repetitions = doublings + 1;
        let wait = Span(FIRST.0 << doublings);
        self.until = now + wait;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Monotonic = Monotonic(3_000_000_000);

    /// How often ours is written within `seconds`, where somebody overwrites it after `ms` each time.
    fn writes(seconds: u64, ms: u64) -> u32 {
        let (mut patience, mut now, mut count) = (Patience::default(), START, 0);
        while now.since(START) < Span::secs(seconds) {
            assert!(patience.is_over(now));
            patience.stands(now);
            count += 1;
            now = now + Span::millis(ms);
            now = now + patience.overwritten(now);
        }
        count
    }

    #[test]
    fn whoever_writes_all_the_time_is_left_alone_ever_longer() {
        assert_eq!(writes(60, 100), 6);
        assert_eq!(writes(3600, 100), 22);
    }

    #[test]
    fn whoever_comes_once_an_hour_costs_a_second() {
        let mut patience = Patience::default();
        for hour in 0..5 {
            let now = START + Span::secs(3600 * hour);
            patience.stands(now);
            assert_eq!(patience.overwritten(now + Span::secs(3599)), FIRST);
        }
    }
}
