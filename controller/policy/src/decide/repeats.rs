//! How often a workload was braked. Holds grow with it; one that flaps, or that has used up its hour, is not let go for a while.

use crate::config::{Ladder, MOST_ACTIONS};
use crate::plan::Evidence;
use crate::state::Repeats;
use crate::units::{Monotonic, Span};

/// Repetitions are forgotten one by one after this long, and flapping is looked for within it.
const MEMORY: Span = Span::secs(600);
/// Hold times double at most this often.
const DOUBLINGS: u32 = 5;
/// This many times let go and braked again within [`MEMORY`] is flapping.
const CYCLES: u32 = 3;
/// What the budget is for.
const HOUR: Span = Span::secs(3600);

/// What follows from one more brake.
pub(crate) struct Brake {
    /// How long the rung is held at least.
    pub(crate) hold: Span,
    /// Not let go before this, however calm; in the past where there is no reason for it.
    pub(crate) held_off: Monotonic,
    /// Why it is held off.
    pub(crate) evidence: Vec<Evidence>,
}

impl Repeats {
    /// Counts a brake.
    pub(crate) fn brake(&mut self, ladder: &Ladder, at: Monotonic) -> Brake {
        let hold = self.hold(ladder.hold, at);
        // The clock may be another one than before.
        self.brakes.retain(|&brake| brake <= at && at.since(brake) < HOUR);
        self.brakes.push(at);
        if self.brakes.len() > MOST_ACTIONS as usize {
            self.brakes.remove(0);
        }
        let evidence: Vec<_> =
            self.oscillation(ladder, at).into_iter().chain(self.budget(ladder, at)).collect();
        let held_off = evidence.iter().filter_map(until).max().unwrap_or_default();
        Brake { hold, held_off, evidence }
    }

    /// The brakes of the hour, where the budget has no room for another one.
    pub(crate) fn spent(&self, ladder: &Ladder, at: Monotonic) -> Option<u32> {
        let brakes = self.within(HOUR, at);
        (brakes >= ladder.actions_per_hour).then_some(brakes)
    }

    /// Twice as long as the last time within ten minutes.
    fn hold(&mut self, base: Span, at: Monotonic) -> Span {
        let quiet = at.since(self.at).0 / MEMORY.0;
        self.times = self.times.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX));
        let span = Span(base.0.saturating_mul(1 << self.times.min(DOUBLINGS)));
        self.times = (self.times + 1).min(DOUBLINGS);
        self.at = at;
        span
    }

    fn oscillation(&self, ladder: &Ladder, at: Monotonic) -> Option<Evidence> {
        let first = self.brakes.iter().find(|brake| at.since(**brake) < MEMORY)?;
        let cycles = self.within(MEMORY, at).saturating_sub(1);
        let until = at + ladder.hold_off;
        (cycles >= CYCLES && until > at).then(|| Evidence::Oscillation {
            cycles,
            within: at.since(*first),
            until,
        })
    }

    fn budget(&self, ladder: &Ladder, at: Monotonic) -> Option<Evidence> {
        let brakes = self.spent(ladder, at)?;
        let most = usize::try_from(ladder.actions_per_hour).unwrap_or(usize::MAX);
        let oldest = self.brakes.len().checked_sub(most).and_then(|n| self.brakes.get(n))?;
        Some(Evidence::Budget { brakes, until: *oldest + HOUR })
    }

    fn within(&self, span: Span, at: Monotonic) -> u32 {
        let recent = self.brakes.iter().filter(|brake| at.since(**brake) < span).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }
}

fn until(evidence: &Evidence) -> Option<Monotonic> {
    match evidence {
        Evidence::Oscillation { until, .. } | Evidence::Budget { until, .. } => Some(*until),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    #[test]
    fn holds_double_within_ten_minutes_and_are_forgotten() {
        let mut repeats = Repeats::default();
        let mut hold =
            |minutes: u64| repeats.hold(Span::secs(5), Monotonic(minutes * MINUTE)).0 / 1_000_000_000;
        assert_eq!([hold(1), hold(2), hold(3), hold(4)], [5, 10, 20, 40]);
        assert_eq!(hold(25), 20, "two of them are forgotten");
        assert_eq!(hold(500), 5);
        assert_eq!(
            [hold(500), hold(500), hold(500), hold(500), hold(500), hold(500)],
            [10, 20, 40, 80, 160, 160]
        );
    }

    #[test]
    fn the_third_time_that_it_comes_back_it_is_held_off() {
        let (mut repeats, ladder) = (Repeats::default(), Ladder::default());
        let mut brake = |minute: u64| repeats.brake(&ladder, Monotonic(minute * MINUTE));
        for minute in [100, 101, 102] {
            assert_eq!(brake(minute).evidence, []);
        }
        let fourth = brake(103);
        let until = Monotonic(108 * MINUTE);
        assert_eq!(fourth.evidence, [Evidence::Oscillation { cycles: 3, within: Span::secs(180), until }]);
        assert_eq!(fourth.held_off, until);
        assert_eq!(brake(130).evidence, [], "half an hour later it starts over");
    }

    #[test]
    fn a_spent_hour_lasts_until_there_is_room() {
        let (mut repeats, ladder) = (Repeats::default(), Ladder { actions_per_hour: 3, ..Ladder::default() });
        let at = |minute: u64| Monotonic(minute * MINUTE);
        repeats.brake(&ladder, at(100));
        repeats.brake(&ladder, at(115));
        assert_eq!(repeats.spent(&ladder, at(129)), None);
        let third = repeats.brake(&ladder, at(130));
        assert_eq!(third.evidence, [Evidence::Budget { brakes: 3, until: at(160) }]);
        assert_eq!(repeats.spent(&ladder, at(159)), Some(3));
        assert_eq!(repeats.spent(&ladder, at(160)), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut repeats, ladder) = (Repeats::default(), Ladder::default());
        for second in 0..1000 {
            repeats.brake(&ladder, Monotonic(0) + Span::secs(second));
        }
        assert_eq!(repeats.brakes.len(), MOST_ACTIONS as usize);
        repeats.brake(&ladder, Monotonic(7));
        assert!(repeats.brakes.len() <= 8, "another clock");
    }
}
