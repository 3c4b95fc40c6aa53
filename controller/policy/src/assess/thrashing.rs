//! Whether the protected thrash: a state, since a rate by itself is a burst or a catastrophe, and looks the same.
//!
//! healthy -> thrashing -> emergency -> panic, by the rates at which `constrained`, `critical` and `emergency` ask for their
//! tiers. Up after a dwell, which is short where something else says that memory is short, and long where nothing does: a
//! service that comes back after a good action faults a lot, and a model that is switched does, too. A panic that is
//! corroborated is believed at once. Back to healthy only after a while below the healthy rate; between that
//! and the first threshold nothing changes.

use serde::{Deserialize, Serialize};

use super::thrash::Rates;
use crate::config::HostThresholds;
use crate::plan::Tier;
use crate::units::{Monotonic, Share, Span};

/// How badly the protected fault their own pages back in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThrashState {
    /// Not worth mentioning.
    #[default]
    Healthy,
    /// At the rate of `constrained`, for some time.
    Thrashing,
    /// At the rate of `critical`.
    Emergency,
    /// At the rate of `emergency`: next to nothing else is done.
    Panic,
}

impl ThrashState {
    /// All states, the best first.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Thrashing, Self::Emergency, Self::Panic];

    /// The word used in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Thrashing => "thrashing",
            Self::Emergency => "emergency",
            Self::Panic => "panic",
        }
    }
}

impl std::fmt::Display for ThrashState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The state with its timers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrashTrack {
    /// The state in force.
    pub state: ThrashState,
    /// Since when the rate has been that of each state or worse: thrashing first.
    pub above: [Option<Monotonic>; 3],
    /// Since when the rate has been a healthy one.
    pub healthy: Option<Monotonic>,
}

/// What else is known of the shortage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// The tier before this pass.
    pub(crate) tier: Tier,
    pub(crate) used: Option<Share>,
}

/// Brings the state up to date. Rates that are not known move nothing.
pub(crate) fn advance(
    track: &mut ThrashTrack,
    host: &HostThresholds,
    rates: Option<Rates>,
    context: Context,
    at: Monotonic,
) -> ThrashState {
    let Some(rates) = rates else { return track.state };
    for (state, since) in ThrashState::ALL[1..].iter().zip(&mut track.above) {
        let reached = limit(host, *state).is_some_and(|limit| rates.worst() >= limit);
        *since = reached.then(|| since.unwrap_or(at).min(at));
    }
    let held = |(&state, since): (&ThrashState, &Option<Monotonic>)| {
        let held = at.since((*since)?) >= dwell(host, state, rates, context);
        (held && state > track.state).then_some(state)
    };
    if let Some(worse) = ThrashState::ALL[1..].iter().zip(&track.above).filter_map(held).max() {
        track.state = worse;
    } else {
        recover(track, host, rates.worst(), at);
    }
    track.state
}

/// The rate at which a state begins.
fn limit(host: &HostThresholds, state: ThrashState) -> Option<u64> {
    match state {
        ThrashState::Healthy => None,
        ThrashState::Thrashing => host.constrained.thrash,
        ThrashState::Emergency => host.critical.thrash,
        ThrashState::Panic => host.emergency.thrash,
    }
}

fn dwell(host: &HostThresholds, state: ThrashState, rates: Rates, context: Context) -> Span {
    let scarce = context.used.is_some_and(|used| used >= host.constrained.leave);
    let mean_agrees =
        host.critical.thrash.is_some_and(|limit| rates.mean >= host.thrash.panic_mean.of_number(limit));
    match state {
        ThrashState::Panic if scarce || mean_agrees || context.tier >= Tier::Critical => Span::ZERO,
        ThrashState::Panic => host.thrash.sustained,
        _ if scarce || context.tier > Tier::Normal => host.dwell.thrash,
        _ => host.thrash.sustained,
    }
}

/// Panic and emergency end below the leave value of their rate, thrashing only in good health.
fn recover(track: &mut ThrashTrack, host: &HostThresholds, rate: u64, at: Monotonic) {
    let lasts =
        |state: &ThrashState| limit(host, *state).is_some_and(|l| rate >= host.leave.thrash.of_number(l));
    if track.state > ThrashState::Thrashing {
        let serious = [ThrashState::Panic, ThrashState::Emergency].into_iter();
        track.state = serious.filter(|s| *s <= track.state).find(lasts).unwrap_or(ThrashState::Thrashing);
    }
    track.healthy = (rate < host.thrash.healthy).then(|| track.healthy.unwrap_or(at).min(at));
    if track.healthy.is_some_and(|since| at.since(since) >= host.thrash.recovery) {
        track.state = ThrashState::Healthy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ThrashState::{Emergency, Healthy, Panic, Thrashing};

    const NOBODY_ELSE: Context = Context { tier: Tier::Normal, used: Some(Share::percent(50)) };
    const SCARCE: Context = Context { tier: Tier::Elevated, used: Some(Share::percent(86)) };

    /// Feeds `(ms, rate)`, the mean being `mean`, and expects the states.
    fn check(context: Context, mean: u64, steps: &[(u64, u64, ThrashState)]) {
        let (mut track, host) = (ThrashTrack::default(), HostThresholds::default());
        for &(ms, rate, expected) in steps {
            let rates = Some(Rates { now: rate, mean });
            let state = advance(&mut track, &host, rates, context, Monotonic(ms * 1_000_000));
            assert_eq!(state, expected, "{rate}/s after {ms} ms");
        }
    }

    #[test]
    fn alone_it_has_to_last() {
        check(NOBODY_ELSE, 0, &[(0, 900, Healthy), (9999, 900, Healthy), (10_000, 900, Thrashing)]);
        check(NOBODY_ELSE, 0, &[(0, 900, Healthy), (5000, 90, Healthy), (10_000, 900, Healthy)]);
        check(NOBODY_ELSE, 0, &[(0, 3000, Healthy), (10_000, 3000, Emergency)]);
    }

    #[test]
    fn where_memory_is_short_it_is_believed() {
        check(
            SCARCE,
            0,
            &[(0, 900, Healthy), (100, 900, Thrashing), (150, 2500, Thrashing), (250, 2500, Emergency)],
        );
    }

    #[test]
    fn a_panic_is_believed_at_once_if_anything_agrees() {
        check(SCARCE, 0, &[(0, 8000, Panic)]);
        check(NOBODY_ELSE, 1400, &[(0, 8000, Panic)]);
        check(Context { tier: Tier::Critical, used: None }, 0, &[(0, 8000, Panic)]);
        check(NOBODY_ELSE, 1399, &[(0, 8000, Healthy), (10_000, 8000, Panic)]);
    }

    #[test]
    fn it_ends_step_by_step_and_in_good_health_only() {
        let steps = [
            (0, 9000, Panic),
            (50, 5600, Panic),
            (100, 5599, Emergency),
            (150, 1400, Emergency),
            (200, 1399, Thrashing),
            (250, 100, Thrashing),
            (60_000, 499, Thrashing),
            (60_050, 99, Thrashing),
            (70_049, 99, Thrashing),
            (70_050, 99, Healthy),
        ];
        check(SCARCE, 0, &steps);
        check(SCARCE, 0, &[(0, 9000, Panic), (50, 0, Thrashing), (10_050, 0, Healthy)]);
    }

    #[test]
    fn what_is_not_known_moves_nothing() {
        let (mut track, host) = (ThrashTrack::default(), HostThresholds::default());
        advance(&mut track, &host, Some(Rates { now: 9000, mean: 9000 }), SCARCE, Monotonic(0));
        for second in [1, 20, 60] {
            let at = Monotonic(second * 1_000_000_000);
            assert_eq!(advance(&mut track, &host, None, SCARCE, at), Panic);
        }
    }

    #[test]
    fn a_rate_that_is_no_signal_leads_nowhere() {
        let mut host = HostThresholds::default();
        for tier in [&mut host.constrained, &mut host.critical, &mut host.emergency] {
            tier.thrash = None;
        }
        let rates = Some(Rates { now: u64::MAX, mean: u64::MAX });
        assert_eq!(advance(&mut ThrashTrack::default(), &host, rates, SCARCE, Monotonic(0)), Healthy);
    }
}
