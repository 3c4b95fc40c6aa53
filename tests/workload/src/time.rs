//! The monotonic clock, absolute sleeps, and lengths of time on the command line.

use std::time::Duration;

use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::{Timespec, clock_gettime};

/// Nanoseconds since boot on `CLOCK_MONOTONIC`: the clock that all records share.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Sleeps until a moment of the monotonic clock; returns at once where it has passed.
pub(crate) fn sleep_until_ns(at: u64) {
    let request = Timespec { tv_sec: (at / 1_000_000_000).cast_signed(), tv_nsec: (at % 1_000_000_000) as _ };
    while clock_nanosleep_absolute(ClockId::Monotonic, &request) == Err(rustix::io::Errno::INTR) {}
}

/// Nanoseconds of a length of time, for arithmetic with [`now_ns`].
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads `20ms`, `1.5s`, `2min`; a bare number is in seconds.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("us", 1e-6), ("min", 60.0), ("s", 1.0)];
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().map_err(|_| format!("not a length of time: {text:?}"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::parse_span;
    use std::time::Duration;

    #[test]
    fn reads_lengths_of_time() {
        assert_eq!(parse_span("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_span("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_span("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_span("3"), Ok(Duration::from_secs(3)));
        assert!(parse_span("soon").is_err());
        assert!(parse_span("-1s").is_err());
    }
}
