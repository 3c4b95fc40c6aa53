//! A short memory of one reading, and the rates that may be taken from it.
//!
//! Samples come 50 ms apart when busy, 500 ms when calm, and now and then 1 ms after the last one because a
//! trigger fired. A rate over 1 ms is noise multiplied by a thousand, so points are kept apart and a rate is
//! taken over at least [`SHORTEST`].

mod course;

pub(crate) use course::Course;

use serde::{Deserialize, Serialize};

use crate::units::{Monotonic, Span};

/// Shorter intervals give no rate: `memory.current` is batched per CPU (64 pages), and so are the vmstat counters.
const SHORTEST: Span = Span::millis(40);
/// The window of bursts.
const SHORT: Span = Span::millis(150);
/// A window is long from here on: below, it would say what the short one says.
const LONG: Span = Span::secs(1);
/// Spacing of the points of the long window.
const LONG_SPACING: Span = Span::millis(500);
/// A reading older than this says nothing about the present.
const STALE: Span = Span::secs(6);
/// A clock that went back further than this is another clock: the memory starts over.
const OTHER_CLOCK: Span = Span::secs(10);
/// Equal readings no further apart than this are taken for one stretch of standing still: twice the default pace of calm.
const STILL: Span = Span::secs(1);
/// Points kept in each window.
const POINTS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    at: Monotonic,
    value: u64,
}

impl Point {
    fn rate_to(self, later: Self) -> i64 {
        let nanos = i128::from(later.at.since(self.at).0.max(1));
        let change = i128::from(later.value) - i128::from(self.value);
        clamp(change * 1_000_000_000 / nanos)
    }
}

/// Readings at least a given time apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Window(Vec<Point>);

impl Window {
    fn push(&mut self, point: Point, spacing: Span) {
        if self.0.last().is_some_and(|last| point.at.since(last.at) < spacing) {
            return;
        }
        if self.0.len() == POINTS {
            self.0.remove(0);
        }
        self.0.push(point);
    }

    /// The newest point at least `age` old, or else the oldest one that is old enough for a rate.
    fn base(&self, now: Monotonic, age: Span) -> Option<Point> {
        let fresh = || self.0.iter().filter(|p| now.since(p.at) <= STALE && now.since(p.at) >= SHORTEST);
        fresh().rfind(|p| now.since(p.at) >= age).or_else(|| fresh().next()).copied()
    }

    /// The points from a moment on, with the last reading at their end.
    fn line(&self, from: Monotonic, last: Point) -> Vec<Point> {
        let between = self.0.iter().filter(|p| p.at >= from && p.at < last.at);
        between.copied().chain([last]).collect()
    }
}

/// One reading over the last seconds, in a window for bursts and a longer one.
///
/// Of a thousand workloads nearly all stand still. Then only the time of the last reading moves; the points that the windows
/// would have are filled in when the value next changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trend {
    last: Option<Point>,
    /// Since when the reading has been what it was last.
    still: Monotonic,
    short: Window,
    long: Window,
}

impl Trend {
    /// Remembers a reading. One that is not newer than the last is ignored.
    pub(crate) fn push(&mut self, at: Monotonic, value: u64) {
        if let Some(last) = self.last {
            if at + OTHER_CLOCK < last.at {
                *self = Self::default();
            } else if at <= last.at {
                return;
            } else if value == last.value && at.since(last.at) <= STILL {
                self.last = Some(Point { at, value });
                return;
            } else {
                self.fill(last);
            }
        }
        let point = Point { at, value };
        (self.last, self.still) = (Some(point), at);
        self.short.push(point, SHORTEST);
        self.long.push(point, LONG_SPACING);
    }

    /// Gives the windows the points of the time for which the reading stood still.
    fn fill(&mut self, last: Point) {
        for (window, spacing) in [(&mut self.short, SHORTEST), (&mut self.long, LONG_SPACING)] {
            let points = (0..POINTS as u64).rev().map(|ago| last.at - Span(spacing.0 * ago));
            for at in points.filter(|at| *at > self.still) {
                window.push(Point { at, ..last }, spacing);
            }
        }
    }

    /// With the points that are not there while the reading stands still.
    fn complete(&self) -> Self {
        let mut complete = self.clone();
        complete.last.into_iter().for_each(|last| complete.fill(last));
        complete
    }

    /// Remembers a reading of a counter. One that fell has been reset: nothing before it counts.
    pub(crate) fn push_counter(&mut self, at: Monotonic, value: u64) {
        if self.last.is_some_and(|last| value < last.value && at > last.at) {
            *self = Self::default();
        }
        self.push(at, value);
    }

    /// Change per second over the last 150 ms or so; `None` where two readings far enough apart are missing, or
    /// the last one is no longer of the present.
    pub(crate) fn rate(&self, now: Monotonic) -> Option<i64> {
        let last = self.last.filter(|last| now.since(last.at) <= STALE)?;
        if last.at.since(self.still) >= SHORT {
            return Some(0);
        }
        Some(self.short.base(last.at, SHORT)?.rate_to(last))
    }

    /// Growth per second that is quick to see a burst and slow to believe that one is over: the short rate,
    /// or its mean with the long one where that is larger and the value still grows.
    pub(crate) fn growth(&self, now: Monotonic) -> Option<i64> {
        let last = self.last?;
        let short = self.rate(now)?;
        if short <= 0 {
            return Some(short);
        }
        let base = self.long.0.iter().find(|p| last.at.since(p.at) <= STALE && p.at < last.at);
        let long = base.map_or(short, |base| base.rate_to(last));
        Some(if long > short { short / 2 + long / 2 } else { short })
    }

    /// Where it has been going over the last 150 ms or so; `None` as for [`Self::rate`].
    pub(crate) fn lately(&self, now: Monotonic, noise: u64) -> Option<Course> {
        let last = self.last.filter(|last| now.since(last.at) <= STALE)?;
        let short = self.complete().short;
        let base = short.base(last.at, SHORT)?;
        course::course(&short.line(base.at, last), noise)
    }

    /// Where it has been going for some seconds; `None` where it has not been watched for long enough.
    pub(crate) fn for_long(&self, now: Monotonic, noise: u64) -> Option<Course> {
        let last = self.last.filter(|last| now.since(last.at) <= STALE)?;
        let long = self.complete().long;
        let base = long.0.iter().find(|p| last.at.since(p.at) <= STALE)?;
        let enough = last.at.since(base.at) >= LONG;
        enough.then(|| course::course(&long.line(base.at, last), noise)).flatten()
    }

    /// Whether the reading before the last one is no older than this: a rate across a longer gap is history.
    pub(crate) fn is_continuous(&self, within: Span) -> bool {
        let Some(last) = self.last else { return false };
        if within >= STILL && last.at > self.still {
            return true;
        }
        self.short.0.iter().rfind(|p| p.at < last.at).is_some_and(|p| last.at.since(p.at) <= within)
    }

    /// Whether there is nothing before the last reading.
    pub(crate) fn is_first(&self) -> bool {
        self.last.is_none_or(|last| self.short.0.iter().all(|p| p.at >= last.at))
    }

    /// How old the last reading is.
    pub(crate) fn age(&self, now: Monotonic) -> Option<Span> {
        self.last.map(|last| now.since(last.at))
    }

    /// The last reading.
    pub(crate) fn last(&self) -> Option<u64> {
        self.last.map(|p| p.value)
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(ms * 1_000_000)
    }

    #[test]
    fn samples_a_millisecond_apart_give_no_wild_rate() {
        let mut trend = Trend::default();
        trend.push(at(1000), 0);
        trend.push(at(1001), 1 << 20);
        assert_eq!(trend.rate(at(1001)), None);
        trend.push(at(1100), 1 << 20);
        assert_eq!(trend.rate(at(1100)), Some(10 << 20));
    }

    #[test]
    fn a_course_is_told_over_both_windows() {
        let mut trend = Trend::default();
        assert!(trend.is_first());
        for i in 0..60 {
            trend.push(at(i * 50), 1_000_000 - 500 * i);
        }
        let now = at(59 * 50);
        assert_eq!(trend.lately(now, 100), Some(Course::Falling(10_000)));
        assert_eq!(trend.for_long(now, 100), Some(Course::Falling(10_000)));
        assert_eq!(trend.for_long(at(20_000), 100), None, "that was long ago");
        for i in 60..66 {
            trend.push(at(i * 50), 970_500);
        }
        assert_eq!(trend.lately(at(65 * 50), 100), Some(Course::Level), "it has stopped");
        assert!(matches!(trend.for_long(at(65 * 50), 100), Some(Course::Falling(_))));
    }

    #[test]
    fn a_burst_is_seen_and_its_end_too() {
        let mut trend = Trend::default();
        for i in 0..20 {
            trend.push(at(i * 50), 0);
        }
        for i in 20..26 {
            trend.push(at(i * 50), (i - 19) * 1000);
        }
        assert_eq!(trend.growth(at(1250)), Some(20_000));
        for i in 26..40 {
            trend.push(at(i * 50), 6000);
        }
        assert_eq!(trend.growth(at(1950)), Some(0));
        assert_eq!(trend.growth(at(9000)), None, "old readings say nothing of the present");
    }

    #[test]
    fn standing_still_is_remembered_as_if_every_reading_had_been_kept() {
        let mut trend = Trend::default();
        for i in 0..100 {
            trend.push(at(i * 50), 7);
        }
        assert_eq!((trend.short.0.len(), trend.rate(at(4950))), (1, Some(0)));
        trend.push(at(5000), 1007);
        assert_eq!(trend.rate(at(5000)), Some(5882), "over 170 ms, not since the start");
        assert!(trend.is_continuous(Span::millis(50)));
        trend.push(at(8000), 1007);
        assert!(!trend.is_continuous(Span::secs(1)), "nobody knows what it was meanwhile");
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_is_survived() {
        let mut trend = Trend::default();
        trend.push(at(60_000), 5);
        trend.push(at(60_000), 500);
        trend.push(at(59_900), 900);
        assert_eq!(trend.last(), Some(5));
        trend.push(at(100), 7);
        assert_eq!((trend.last(), trend.rate(at(100))), (Some(7), None));
    }

    #[test]
    fn a_counter_that_was_reset_starts_over() {
        let mut trend = Trend::default();
        trend.push_counter(at(0), 100);
        trend.push_counter(at(100), 3);
        assert_eq!(trend.rate(at(100)), None);
    }
}
