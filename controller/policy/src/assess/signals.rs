//! What each signal says about the tier. They are never blended: the worst one decides and is named.

use super::forecast::{Forecast, Unknown};
use super::thrashing::ThrashState;
use crate::config::{HostThresholds, Threshold};
use crate::plan::{Evidence, Tier};
use crate::units::{Share, Span};

/// One of the signals. Those that corroborate themselves come first, and are named first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// How much memory there is.
    Used,
    /// For how long it lasts.
    Forecast,
    /// How long the protected wait for it.
    Stall,
    /// How much of it they lose and fault back in.
    Thrash,
}

impl Signal {
    pub(crate) const ALL: [Self; 4] = [Self::Used, Self::Forecast, Self::Stall, Self::Thrash];

    /// How long it must ask for a tier before that is entered. What can't wait does not: next to nothing left, or
    /// exhaustion within the second. The state of thrashing has had its dwell already.
    pub(crate) fn dwell(self, host: &HostThresholds, asked: Tier) -> Span {
        match self {
            Self::Used | Self::Forecast if asked == Tier::Emergency => Span::ZERO,
            Self::Used => host.dwell.used,
            Self::Forecast => host.dwell.forecast,
            Self::Stall => host.dwell.stall,
            Self::Thrash => Span::ZERO,
        }
    }
}

/// Refaults and major faults of the worst of the protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thrash {
    /// Pages per second.
    pub(crate) rate: u64,
    /// What has become of it over time.
    pub(crate) state: ThrashState,
}

/// The signals of one moment; `None` is "not known".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signals {
    pub(crate) used: Option<Share>,
    pub(crate) forecast: Forecast,
    /// The tier that the forecast alone leads to at most.
    pub(crate) forecast_up_to: Tier,
    pub(crate) stall: Option<Share>,
    pub(crate) thrash: Option<Thrash>,
}

/// Nothing is known.
impl Default for Signals {
    fn default() -> Self {
        Self {
            used: None,
            forecast: Forecast::default(),
            forecast_up_to: Tier::Emergency,
            stall: None,
            thrash: None,
        }
    }
}

impl Signals {
    /// The worst tier that one signal asks for, with its evidence.
    pub(crate) fn asks(&self, host: &HostThresholds, signal: Signal) -> Option<(Tier, Evidence)> {
        let believed = self.believed(host, signal);
        let asks = |&tier: &Tier| Some((tier, self.crossed(host, signal, tier)?));
        Tier::ALL.iter().rev().filter(|tier| **tier <= believed).find_map(asks)
    }

    /// The signal that asks for the worst tier.
    pub(crate) fn worst(&self, host: &HostThresholds) -> Option<(Tier, Evidence)> {
        let all = Signal::ALL.into_iter().rev().filter_map(|signal| self.asks(host, signal));
        all.max_by_key(|(tier, _)| *tier)
    }

    fn crossed(&self, host: &HostThresholds, signal: Signal, tier: Tier) -> Option<Evidence> {
        let threshold = threshold(host, tier)?;
        match signal {
            Signal::Used => {
                let share = self.used.filter(|&u| u >= threshold.used)?;
                Some(Evidence::Used { share, threshold: threshold.used })
            }
            Signal::Forecast => {
                let limit = threshold.forecast?;
                let Forecast::In { left, source } = self.forecast else { return None };
                (left < limit).then_some(Evidence::Forecast { left, source, threshold: limit })
            }
            Signal::Stall => {
                let share = self.stall.filter(|&s| s >= threshold.stall)?;
                Some(Evidence::Stall { share, threshold: threshold.stall })
            }
            Signal::Thrash => {
                let (limit, state) = thrash_limit(host, tier)?;
                let thrash = self.thrash.filter(|t| t.rate >= limit && t.state >= state)?;
                Some(Evidence::Thrash { per_second: thrash.rate, threshold: limit })
            }
        }
    }

    /// How far a signal is believed. With plenty of memory, what the protected suffer calls for trimming, whatever its
    /// size; how much memory there is, and for how long, needs nobody to confirm it.
    fn believed(&self, host: &HostThresholds, signal: Signal) -> Tier {
        match (signal, self.used) {
            (Signal::Used, _) => Tier::Emergency,
            (Signal::Forecast, _) => self.forecast_up_to,
            (_, Some(used)) if used >= host.constrained.leave => Tier::Emergency,
            (_, Some(used)) if used >= host.elevated.leave => Tier::Constrained,
            _ => Tier::Elevated,
        }
    }

    /// Whether nothing keeps the host in this tier any longer.
    pub(crate) fn leaves(&self, host: &HostThresholds, tier: Tier) -> bool {
        let kept = |signal| tier <= self.believed(host, signal) && self.keeps(host, signal, tier);
        !Signal::ALL.into_iter().any(kept)
    }

    /// Whether a signal has not fallen below its leave value yet. A used share that could not be read keeps
    /// what is; stall and thrash are unknown while we throttle those that would show them.
    fn keeps(&self, host: &HostThresholds, signal: Signal, tier: Tier) -> bool {
        let Some(threshold) = threshold(host, tier) else { return true };
        match signal {
            Signal::Used => self.used.is_none_or(|u| u >= threshold.leave),
            Signal::Forecast => threshold.forecast.is_some_and(|limit| match self.forecast {
                Forecast::In { left, .. } => left.0 < host.leave.forecast.of_number(limit.0),
                Forecast::Unknown(Unknown::FewReadings | Unknown::Gap) => true,
                // Readings that go back and forth may do so for hours.
                Forecast::Unknown(Unknown::Disagree) | Forecast::NotFilling => false,
            }),
            Signal::Stall => {
                let leave = host.leave.stall.of_number(threshold.stall.0.into());
                self.stall.is_some_and(|s| u64::from(s.0) >= leave)
            }
            Signal::Thrash => {
                let leave = thrash_limit(host, tier).map(|(limit, _)| host.leave.thrash.of_number(limit));
                self.thrash.zip(leave).is_some_and(|(t, leave)| t.rate >= leave)
            }
        }
    }
}

/// The rate and the state that ask for a tier. Elevated has no rate of its own: thrash that nothing
/// corroborates ends there.
fn thrash_limit(host: &HostThresholds, tier: Tier) -> Option<(u64, ThrashState)> {
    let (threshold, state) = match tier {
        Tier::Normal => return None,
        Tier::Elevated | Tier::Constrained => (&host.constrained, ThrashState::Thrashing),
        Tier::Critical => (&host.critical, ThrashState::Emergency),
        Tier::Emergency => (&host.emergency, ThrashState::Panic),
    };
    Some((threshold.thrash?, state))
}

fn threshold(host: &HostThresholds, tier: Tier) -> Option<&Threshold> {
    match tier {
        Tier::Normal => None,
        Tier::Elevated => Some(&host.elevated),
        Tier::Constrained => Some(&host.constrained),
        Tier::Critical => Some(&host.critical),
        Tier::Emergency => Some(&host.emergency),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assess::forecast::Source;
    use crate::units::Span;

    const CALM: Signals = Signals {
        used: Some(Share::percent(50)),
        forecast: Forecast::NotFilling,
        forecast_up_to: Tier::Emergency,
        stall: None,
        thrash: None,
    };

    fn check(signals: Signals, tier: Tier) {
        let worst = signals.worst(&HostThresholds::default()).map_or(Tier::Normal, |(tier, _)| tier);
        assert_eq!(worst, tier, "{signals:?}");
    }

    fn within(millis: u64) -> Forecast {
        Forecast::In { left: Span::millis(millis), source: Source::Available }
    }

    fn thrash(rate: u64) -> Option<Thrash> {
        Some(Thrash { rate, state: ThrashState::Panic })
    }

    #[test]
    fn every_signal_has_its_thresholds() {
        use Tier::{Constrained, Critical, Elevated, Emergency, Normal};
        let used = |permille: u32| Signals { used: Some(Share(permille * 1000)), ..CALM };
        for (permille, tier) in
            [(799, Normal), (800, Elevated), (900, Constrained), (950, Critical), (980, Emergency)]
        {
            check(used(permille), tier);
        }
        for (left, tier) in [(10_000, Normal), (9_999, Constrained), (2999, Critical), (999, Emergency)] {
            check(Signals { forecast: within(left), ..CALM }, tier);
        }
        let scarce = used(870);
        for (percent, tier) in
            [(4, Elevated), (5, Elevated), (10, Constrained), (20, Critical), (40, Emergency)]
        {
            check(Signals { stall: Some(Share::percent(percent)), ..scarce }, tier);
        }
        for (rate, tier) in [(499, Elevated), (500, Constrained), (2000, Critical), (8000, Emergency)] {
            check(Signals { thrash: thrash(rate), ..scarce }, tier);
        }
    }

    #[test]
    fn thrash_needs_the_state_as_well_as_the_rate() {
        let used = Some(Share::percent(86));
        for (state, tier) in [
            (ThrashState::Healthy, Tier::Elevated),
            (ThrashState::Thrashing, Tier::Constrained),
            (ThrashState::Emergency, Tier::Critical),
        ] {
            check(Signals { used, thrash: Some(Thrash { rate: u64::MAX, state }), ..CALM }, tier);
        }
    }

    #[test]
    fn strain_alone_calls_for_trimming_and_no_more() {
        check(Signals { stall: Some(Share::ONE), thrash: thrash(u64::MAX), ..CALM }, Tier::Elevated);
        check(Signals { thrash: thrash(u64::MAX), ..CALM }, Tier::Elevated);
        let near = Signals { used: Some(Share::percent(76)), ..CALM };
        check(Signals { thrash: thrash(u64::MAX), ..near }, Tier::Constrained);
    }

    #[test]
    fn a_tier_is_left_below_its_leave_values_only() {
        let host = HostThresholds::default();
        let stays = |signals: Signals| assert!(!signals.leaves(&host, Tier::Critical), "{signals:?}");
        let goes = |signals: Signals| assert!(signals.leaves(&host, Tier::Critical), "{signals:?}");
        let used = |percent| Signals { used: Some(Share::percent(percent)), ..CALM };
        stays(used(90));
        goes(used(89));
        stays(Signals { used: None, ..CALM });
        stays(Signals { thrash: thrash(1400), ..used(89) });
        goes(Signals { thrash: thrash(1399), ..used(89) });
        stays(Signals { stall: Some(Share::percent(14)), ..used(89) });
        goes(Signals { stall: Some(Share::percent(13)), ..used(89) });
        goes(Signals { stall: Some(Share::ONE), ..used(70) });
        stays(Signals { forecast: within(4499), ..used(89) });
        goes(Signals { forecast: within(4500), ..used(89) });
        stays(Signals { forecast: Forecast::Unknown(Unknown::Gap), ..used(89) });
        goes(Signals { forecast: Forecast::Unknown(Unknown::Disagree), ..used(89) });
    }
}
