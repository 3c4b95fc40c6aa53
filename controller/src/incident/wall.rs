//! Moments of the kernel's clock as people call them.

use std::time::{Duration, UNIX_EPOCH};

use plimsoll_policy::journal::{Clock, Head};
use plimsoll_policy::units::Monotonic;

/// What the last head says of the clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wall(Option<Clock>);

impl Wall {
    /// Takes over what a head says.
    pub fn head(&mut self, head: &Head) {
        self.0 = head.clock;
    }

    /// `2026-11-22T03:58:28.123Z`, or the time since boot where no head says better.
    #[must_use]
    pub fn say(&self, at: Monotonic) -> String {
        match self.unix_ms(at) {
            Some(ms) => humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
            None => format!("{} after boot", at.since(Monotonic(0))),
        }
    }

    fn unix_ms(&self, at: Monotonic) -> Option<u64> {
        let clock = self.0?;
        let ms = |from: Monotonic, to: Monotonic| to.since(from).0 / 1_000_000;
        let late = clock.unix_ms.saturating_add(ms(clock.at, at)).checked_sub(ms(at, clock.at))?;
        // The year 9999 is the last that can be written.
        (late < 253_402_300_800_000).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::units::Span;

    use super::*;

    #[test]
    fn times_are_those_of_people() {
        let at = Monotonic(50_000_000_000);
        let wall = Wall(Some(Clock { at, unix_ms: 1_795_319_908_123 }));
        assert_eq!(wall.say(at), "2026-11-22T03:58:28.123Z");
        assert_eq!(wall.say(at + Span::millis(2000)), "2026-11-22T03:58:30.123Z");
        assert_eq!(wall.say(at - Span::millis(123)), "2026-11-22T03:58:28.000Z");
        assert_eq!(Wall::default().say(at), "50.0s after boot");
        let silly = Wall(Some(Clock { at, unix_ms: u64::MAX }));
        assert_eq!(silly.say(at), "50.0s after boot");
    }
}
