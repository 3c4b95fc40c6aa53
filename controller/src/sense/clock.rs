//! The only place that asks what time it is.

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
