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
