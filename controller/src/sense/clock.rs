//! The only place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use plimsoll_policy::units::Monotonic;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns` too.
#[must_use]
pub fn now() -> Monotonic {
    let time = clock_gettime(ClockId::Monotonic);
    let secs = u64::try_from(time.tv_sec).expect("the monotonic clock starts at boot");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds are never negative");
    Monotonic(secs * 1_000_000_000 + nanos)
}

/// Milliseconds since 1970, UTC: what people call a time. Nothing is decided by it, since it may jump.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
