//! Hysteresis of the tier: up as soon as a signal has held for its dwell, over several tiers at once if need be;
//! down one tier at a time after a longer calm. A gap moves nothing: it is neither pressure nor calm.

use serde::{Deserialize, Serialize};

use super::signals::{Signal, Signals};
use crate::config::HostThresholds;
use crate::plan::{Evidence, Tier};
use crate::units::{Monotonic, Span};

/// Since when a signal has asked for at least each tier: elevated first.
pub type Asked = [Option<Monotonic>; 4];

/// The tier and its timers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TierState {
    /// The tier in force.
    pub tier: Tier,
    /// What put it there.
    pub because: Option<Evidence>,
    /// Every signal has a dwell of its own, in this order: used share, forecast, stall, thrash.
    pub asked: [Asked; 4],
    /// Since when nothing keeps it in this tier.
    pub below: Option<Monotonic>,
    /// Since when the tier has been below critical.
    pub eased: Option<Monotonic>,
    /// Since when the tier has been at most elevated.
    pub calm: Option<Monotonic>,
}

impl TierState {
    /// Since when the used share has been that of critical.
    pub(crate) fn critically_full(&self) -> Option<Monotonic> {
        let [used, ..] = self.asked;
        let [_, _, critical, _] = used;
        critical
    }
}

/// Brings the tier up to date.
pub(crate) fn advance(
    state: &mut TierState,
    host: &HostThresholds,
    signals: &Signals,
    at: Monotonic,
) -> (Tier, Option<Evidence>) {
    if signals.used.is_some() {
        if !up(state, host, signals, at) {
            down(state, host, signals, at);
        }
        state.eased = (state.tier < Tier::Critical).then(|| state.eased.unwrap_or(at).min(at));
        state.calm = (state.tier <= Tier::Elevated).then(|| state.calm.unwrap_or(at).min(at));
    }
    (state.tier, state.because.clone())
}

/// Enters the highest tier that any signal has asked for throughout its dwell.
fn up(state: &mut TierState, host: &HostThresholds, signals: &Signals, at: Monotonic) -> bool {
    let mut highest: Option<(Tier, Evidence)> = None;
    for (signal, asked) in Signal::ALL.into_iter().zip(&mut state.asked) {
        let claim = signals.asks(host, signal);
        count(asked, claim.as_ref().map_or(Tier::Normal, |(tier, _)| *tier), at);
        let Some((claimed, evidence)) = claim else { continue };
        let held = held(asked, signal.dwell(host, claimed), at);
        if held.is_some_and(|tier| tier > highest.as_ref().map_or(state.tier, |(tier, _)| *tier)) {
            highest = held.map(|tier| (tier, evidence));
        }
    }
    let Some((tier, evidence)) = highest else { return false };
    state.tier = tier;
    state.because = Some(evidence);
    state.below = None;
    true
}

fn count(asked: &mut Asked, claimed: Tier, at: Monotonic) {
    for (tier, since) in Tier::ALL[1..].iter().zip(asked) {
        *since = (claimed >= *tier).then(|| since.unwrap_or(at).min(at));
    }
}

fn held(asked: &Asked, dwell: Span, at: Monotonic) -> Option<Tier> {
    let lasted = |since: &Option<Monotonic>| since.is_some_and(|since| at.since(since) >= dwell);
    Tier::ALL[1..].iter().zip(asked).rfind(|(_, since)| lasted(since)).map(|(tier, _)| *tier)
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
    state.because = signals.worst(host).map(|(_, evidence)| evidence).filter(|_| state.tier > Tier::Normal);
    state.below = Some(at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assess::forecast::{Forecast, Source};
    use crate::units::Share;

    fn used(percent: u32) -> Signals {
        Signals { used: Some(Share::percent(percent)), forecast: Forecast::NotFilling, ..Signals::default() }
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
    fn every_signal_has_its_own_dwell() {
        let mut host = HostThresholds::default();
        host.dwell.forecast = Span::millis(300);
        let within = |ms| Forecast::In { left: Span::millis(ms), source: Source::Available };
        let tier = |state: &mut TierState, ms: u64, signals: Signals| {
            advance(state, &host, &signals, Monotonic(ms * 1_000_000)).0
        };
        let (mut state, soon) = (TierState::default(), Signals { forecast: within(2000), ..used(50) });
        assert_eq!(tier(&mut state, 0, soon), Tier::Normal);
        assert_eq!(tier(&mut state, 200, Signals { forecast: within(2000), ..used(85) }), Tier::Normal);
        assert_eq!(tier(&mut state, 299, Signals { forecast: within(2000), ..used(85) }), Tier::Normal);
        assert_eq!(tier(&mut state, 300, soon), Tier::Critical);
        assert!(matches!(state.because, Some(Evidence::Forecast { .. })));
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
