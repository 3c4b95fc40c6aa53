//! What is shown of something that moves quickly: it has to hold for a while to be shown, and to be over for longer to be gone.

use std::time::Duration;

use tokio::time::Instant;

use crate::kubernetes::backoff::Dice;

/// How long a signal has to hold, and to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds {
    /// Before it is shown.
    pub(super) up: Duration,
    /// Before it is shown no more. Doubles with each time that it comes back soon, up to sixteen times as long.
    pub(super) down: Duration,
}

/// One yes or no.
#[derive(Debug)]
pub(super) struct Steady {
    holds: Holds,
    shown: bool,
    signal: bool,
    /// When what is shown follows the signal.
    follows: Instant,
    /// Times that it came back soon after it had gone.
    returns: u32,
    went: Option<Instant>,
}

impl Steady {
    /// What comes back within this time has not really been gone.
    const SOON: Duration = Duration::from_secs(1800);
    /// Doublings.
    const MOST_RETURNS: u32 = 4;

    /// `shown` is what stands already. It is taken for a signal that has just ended, where there is none.
    pub(super) fn new(holds: Holds, shown: bool, now: Instant, dice: &mut Dice) -> Self {
        let mut steady = Self { holds, shown, signal: shown, follows: now, returns: 0, went: None };
        steady.look(false, now, dice);
        steady
    }

    /// Takes the signal as it is now; returns what is to be shown.
    pub(super) fn look(&mut self, signal: bool, now: Instant, dice: &mut Dice) -> bool {
        // What was due before this look happened before it.
        self.follow(now);
        if self.signal != signal {
            self.signal = signal;
            let wait = if signal { self.holds.up } else { self.holds.down * (1 << self.returns) };
            // A whole cluster under pressure is not to speak at once.
            self.follows = now + wait + dice.below(wait / 2);
            self.follow(now);
        }
        self.shown
    }

    /// When what is shown changes if the signal does not.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.shown != self.signal).then_some(self.follows)
    }

    fn follow(&mut self, now: Instant) {
        if self.shown == self.signal || self.follows > now {
            return;
        }
        self.shown = self.signal;
        if self.shown {
            let soon = self.went.is_some_and(|went| now - went < Self::SOON);
            self.returns = if soon { (self.returns + 1).min(Self::MOST_RETURNS) } else { 0 };
        } else {
            self.went = Some(now);
        }
    }
}

/// The highest of several levels, each of which is shown by itself.
#[derive(Debug)]
pub(super) struct Levels<T>(Vec<(T, Steady)>);

impl<T: Copy + Ord> Levels<T> {
    /// `levels` from low to high, with how long each has to hold; `shown` stands already.
    pub(super) fn new(levels: &[(T, Holds)], shown: Option<T>, now: Instant, dice: &mut Dice) -> Self {
        let level = |(level, holds): &(T, Holds)| {
            (*level, Steady::new(*holds, shown.is_some_and(|shown| shown >= *level), now, dice))
        };
        Self(levels.iter().map(level).collect())
    }

    /// Takes the level as it is now; returns the one to be shown. `None` is below the lowest.
    pub(super) fn look(&mut self, signal: Option<T>, now: Instant, dice: &mut Dice) -> Option<T> {
        let mut shown = None;
        for (level, steady) in &mut self.0 {
            // The same chance for all: what jumps over a level does not stop at it.
            if steady.look(signal.is_some_and(|signal| signal >= *level), now, &mut dice.clone()) {
                shown = Some(*level);
            }
        }
        dice.below(Duration::ZERO);
        shown
    }

    /// When what is shown changes if the signal does not.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter_map(|(_, steady)| steady.due()).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLDS: Holds = Holds { up: Duration::from_secs(4), down: Duration::from_secs(60) };

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn what_does_not_hold_is_not_shown() {
        let (start, mut dice) = (Instant::now(), Dice::seeded(3));
        let mut steady = Steady::new(HOLDS, false, start, &mut dice);
        assert!(!steady.look(true, start, &mut dice));
        assert!(!steady.look(true, start + second(3), &mut dice));
        assert!(!steady.look(false, start + second(3), &mut dice));
        assert!(!steady.look(true, start + second(5), &mut dice));
        assert!(!steady.look(true, start + second(8), &mut dice));
        assert!(steady.look(true, start + second(11), &mut dice));
    }

    #[test]
    fn what_is_found_goes_after_a_calm_and_not_before() {
        let (start, mut dice) = (Instant::now(), Dice::seeded(3));
        let mut steady = Steady::new(HOLDS, true, start, &mut dice);
        assert!(steady.look(false, start + second(59), &mut dice));
        assert!(!steady.look(false, start + second(91), &mut dice));
    }

    #[test]
    fn what_comes_back_again_and_again_stays_longer() {
        let (mut now, mut dice) = (Instant::now(), Dice::seeded(3));
        let mut steady = Steady::new(HOLDS, false, now, &mut dice);
        let mut stays = Vec::new();
        for _ in 0..7 {
            steady.look(true, now, &mut dice);
            now += second(6);
            assert!(steady.look(true, now, &mut dice));
            let from = now;
            while steady.look(false, now, &mut dice) {
                now += second(1);
            }
            stays.push((now - from).as_secs() / 60);
            now += second(1);
        }
        let least = [1, 2, 4, 8, 16, 16, 16];
        assert!(
            stays.iter().zip(least).all(|(stay, least)| (least..=least * 3 / 2 + 1).contains(stay)),
            "{stays:?}"
        );
    }

    #[test]
    fn the_highest_level_that_holds_is_shown() {
        let (start, mut dice) = (Instant::now(), Dice::seeded(3));
        let mut levels = Levels::new(&[(1, HOLDS), (2, HOLDS)], None, start, &mut dice);
        levels.look(Some(2), start, &mut dice);
        assert_eq!(levels.look(Some(2), start + second(7), &mut dice), Some(2));
        // From two to one to nothing, each in its own time.
        levels.look(Some(1), start + second(8), &mut dice);
        assert_eq!(levels.look(Some(1), start + second(100), &mut dice), Some(1));
        levels.look(None, start + second(100), &mut dice);
        assert_eq!(levels.look(None, start + second(192), &mut dice), None);
    }

    proptest! {
        /// The taint and the condition write once for each change of what is shown.
        #[test]
        fn in_an_hour_it_changes_a_few_times_at_most(
            waits in prop::collection::vec((any::<bool>(), 0_u64..40_000), 1..2000), seed in any::<u64>(),
        ) {
            let start = Instant::now();
            let (mut now, mut dice) = (start, Dice::seeded(seed));
            let mut steady = Steady::new(HOLDS, false, now, &mut dice);
            let (mut shown, mut changes) = (false, 0);
            for (signal, wait) in waits {
                now += Duration::from_millis(wait);
                if now - start > second(3600) {
                    break;
                }
                if steady.look(signal, now, &mut dice) != shown {
                    shown = !shown;
                    changes += 1;
                }
            }
            // 64 + 124 + 244 + 484 + 964 * 3 s: seven times there and gone.
            prop_assert!(changes <= 14, "{} changes", changes);
        }
    }
}
