//! How long a container may be frozen before whoever watches whether it lives has it killed.

use plimsoll_policy::units::Span;

use super::object::{Container, ContainerStatus, Probe};

/// What the API server fills in.
const PERIOD: u32 = 10;
const TIMEOUT: u32 = 1;
const FAILURES: u32 = 3;
/// Left for the thaw and the answer.
const ANSWER: Span = Span::secs(1);
/// No freeze frees anything to speak of in less.
const WORTH: Span = Span::secs(2);

/// What probes leave of the rung freeze.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freeze {
    /// Nobody watches whether it lives.
    Unbound,
    /// So long.
    Within(Span),
    /// Not at all.
    Never,
}

/// A frozen container answers no probe: HTTP and gRPC run into their timeout, and what is executed in it is frozen with it. A TCP probe
/// succeeds, since the kernel answers it, and is counted all the same. Readiness is not: it takes a frozen pod out of its Service, and
/// that is right.
pub(super) fn freeze(container: &Container, status: Option<&ContainerStatus>) -> Freeze {
    let started = status.and_then(|status| status.started) == Some(true);
    // Until it has started only the startup probe runs; when that ends is seen late, so both count.
    let startup = container.startup_probe.as_ref().filter(|_| !started);
    let shortest = startup.into_iter().chain(&container.liveness_probe).map(budget).min();
    match shortest {
        None => Freeze::Unbound,
        Some(within) if within < WORTH => Freeze::Never,
        Some(within) => Freeze::Within(within),
    }
}

/// A probe that begins right after the freeze is the first to fail; with the last of those that may, it is killed.
fn budget(probe: &Probe) -> Span {
    let or = |given: Option<u32>, default| u64::from(given.filter(|n| *n > 0).unwrap_or(default));
    let (period, timeout) = (or(probe.period_seconds, PERIOD), or(probe.timeout_seconds, TIMEOUT));
    let seconds = (or(probe.failure_threshold, FAILURES) - 1).saturating_mul(period).saturating_add(timeout);
    Span(seconds.saturating_mul(1_000_000_000).saturating_sub(ANSWER.0))
}
