//! Hysteresis of the tier: up as soon as a signal has held for its dwell, over several tiers at once if need be;
//! down one tier at a time after a longer calm. A gap moves nothing: it is neither pressure nor calm.

use serde::{Deserialize, Serialize};

use super::signals::Signals;
use crate::config::HostThresholds;
use crate::plan::{Evidence, Tier};
use crate::units::{Monotonic, Span};

/// Thrash that the used share does not corroborate must last this long: a burst of refaults after a
/// good action is the sign of a recovery.
const THRASH_SUSTAINED: Span = Span::secs(10);

/// The tier and its timers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TierState {
    /// The tier in force.
    pub tier: Tier,
    /// What put it there.
    pub because: Option<Evidence>,
    /// Since when signals have asked for at least each tier: elevated first.
    pub above: [Option<Monotonic>; 4],
    /// Since when nothing keeps it in this tier.
    pub below: Option<Monotonic>,
    /// Since when the tier has been at most elevated.
    pub calm: Option<Monotonic>,
}

/// Brings the tier up to date.
pub(crate) fn advance(
    state: &mut TierState,
    host: &HostThresholds,
    signals: &Signals,
    at: Monotonic,
) -> (Tier, Option<Evidence>) {
    if signals.used.is_some() {
        let (asked, evidence) = signals.tier(host);
        count(state, asked, at);
        if !up(state, host, asked, evidence, at) {
            down(state, host, signals, at);
        }
        state.calm = (state.tier <= Tier::Elevated).then(|| state.calm.unwrap_or(at).min(at));
    }
    (state.tier, state.because.clone())
}

fn count(state: &mut TierState, asked: Tier, at: Monotonic) {
    for (tier, since) in Tier::ALL[1..].iter().zip(&mut state.above) {
        *since = (asked >= *tier).then(|| since.unwrap_or(at).min(at));
    }
}

/// Enters the highest tier whose dwell is over.
fn up(
    state: &mut TierState,
    host: &HostThresholds,
    asked: Tier,
    evidence: Option<Evidence>,
    at: Monotonic,
) -> bool {
    let Some(evidence) = evidence.filter(|_| asked > state.tier) else { return false };
    let dwell = dwell(host, asked, &evidence, state.tier);
    let held = |(tier, since): (&Tier, &Option<Monotonic>)| {
        since.filter(|&s| *tier > state.tier && at.since(s) >= dwell).map(|_| *tier)
    };
    let Some(tier) = Tier::ALL[1..].iter().zip(&state.above).filter_map(held).max() else { return false };
    state.tier = tier;
    state.because = Some(evidence);
    state.below = None;
    true
}

/// What can't wait does not: exhaustion within the second, or next to nothing left.
fn dwell(host: &HostThresholds, asked: Tier, evidence: &Evidence, now: Tier) -> Span {
    match evidence {
        Evidence::Used { .. } | Evidence::Forecast { .. } if asked == Tier::Emergency => Span::ZERO,
        Evidence::Thrash { .. } if now == Tier::Normal => THRASH_SUSTAINED,
        _ => host.dwell_up,
    }
}

fn down(state: &mut TierState, host: &HostThresholds, signals: &Signals, at: Monotonic) {
    if state.tier == Tier::Normal || !signals.leaves(host, state.tier) {
        state.below = None;
        return;
    }
    let since = state.below.unwrap_or(at).min(at);
    state.below = Some(since);
    if at.since(since) < host.dwell_down {
        return;
    }
    state.tier = Tier::ALL.into_iter().rev().find(|t| *t < state.tier).unwrap_or_default();
    state.because = signals.tier(host).1.filter(|_| state.tier > Tier::Normal);
    state.below = Some(at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assess::forecast::{Forecast, Source};
    use crate::units::Share;

    fn used(percent: u32) -> Signals {
        Signals { used: Some(Share::percent(percent)), ..Signals::default() }
    }

    /// Feeds `(ms, signals)` and gives the tiers.
    fn run(steps: &[(u64, Signals)]) -> Vec<Tier> {
        let (mut state, host) = (TierState::default(), HostThresholds::default());
        steps.iter().map(|(ms, s)| advance(&mut state, &host, s, Monotonic(ms * 1_000_000)).0).collect()
    }

    #[test]
    fn up_after_the_dwell_and_over_several_tiers() {
        use Tier::{Critical, Elevated, Normal};
        assert_eq!(run(&[(0, used(96)), (50, used(96)), (100, used(96))]), [Normal, Normal, Critical]);
        let spike = [(0, used(81)), (60, used(96)), (110, used(96)), (160, used(96))];
        assert_eq!(run(&spike), [Normal, Normal, Elevated, Critical]);
        assert_eq!(run(&[(0, used(96)), (50, used(50)), (100, used(96))]), [Normal; 3]);
    }

    #[test]
    fn exhaustion_within_the_second_does_not_wait() {
        assert_eq!(run(&[(0, used(98))]), [Tier::Emergency]);
        let forecast = Forecast::In { left: Span::millis(900), source: Source::Available };
        let soon = Signals { forecast, ..used(70) };
        assert_eq!(run(&[(0, soon)]), [Tier::Emergency]);
    }

    #[test]
    fn down_one_at_a_time() {
        use Tier::{Constrained, Critical, Elevated, Emergency, Normal};
        let steps =
            [0, 1000, 5999, 6000, 11_000, 16_000, 21_000].map(|ms| (ms, used(if ms == 0 { 99 } else { 10 })));
        assert_eq!(run(&steps), [Emergency, Emergency, Emergency, Critical, Constrained, Elevated, Normal]);
    }

    #[test]
    fn a_gap_moves_nothing() {
        let gap = Signals::default();
        assert_eq!(run(&[(0, used(99)), (9000, gap), (30_000, gap)]), [Tier::Emergency; 3]);
        assert_eq!(run(&[(0, gap), (9000, gap)]), [Tier::Normal; 2]);
    }
}
