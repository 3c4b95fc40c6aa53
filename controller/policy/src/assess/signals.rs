//! What each signal says about the tier. They are never blended: the worst one decides and is named.

use super::forecast::Forecast;
use crate::config::{HostThresholds, Threshold};
use crate::plan::{Evidence, Tier};
use crate::units::Share;

/// A signal of stall or thrash is over only below this share of the threshold that it crossed.
const EXIT: Share = Share::percent(70);

/// The signals of one moment; `None` is "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    pub(crate) used: Option<Share>,
    pub(crate) forecast: Forecast,
    pub(crate) stall: Option<Share>,
    pub(crate) thrash: Option<u64>,
}

impl Signals {
    /// The worst tier that a signal asks for, with the signal that does.
    pub(crate) fn tier(&self, host: &HostThresholds) -> (Tier, Option<Evidence>) {
        let claim = |&tier: &Tier| Some((tier, self.evidence(host, tier)?));
        let worst = Tier::ALL.iter().rev().find_map(claim);
        worst.map_or((Tier::Normal, None), |(tier, evidence)| (tier, Some(evidence)))
    }

    /// The first signal that asks for this tier. Used share and forecast come first: they corroborate themselves.
    fn evidence(&self, host: &HostThresholds, tier: Tier) -> Option<Evidence> {
        let threshold = threshold(host, tier)?;
        self.amount(threshold).or_else(|| {
            let strain = self.strain(threshold, thrash_limit(host, tier))?;
            (tier <= self.corroborated(host)).then_some(strain)
        })
    }

    /// Used share or forecast: how much memory there is, or for how long.
    fn amount(&self, threshold: &Threshold) -> Option<Evidence> {
        if let Some(share) = self.used.filter(|&u| u >= threshold.used) {
            return Some(Evidence::Used { share, threshold: threshold.used });
        }
        let limit = threshold.forecast?;
        let Forecast::In { left, source } = self.forecast else { return None };
        (left < limit).then_some(Evidence::Forecast { left, source, threshold: limit })
    }

    /// Stall or thrash: what the shortage does to the protected.
    fn strain(&self, threshold: &Threshold, thrash: Option<u64>) -> Option<Evidence> {
        if let Some(share) = self.stall.filter(|&s| s >= threshold.stall) {
            return Some(Evidence::Stall { share, threshold: threshold.stall });
        }
        let limit = thrash?;
        let per_second = self.thrash.filter(|&t| t >= limit)?;
        Some(Evidence::Thrash { per_second, threshold: limit })
    }

    /// How far strain is believed: with plenty of memory it calls for trimming, whatever its size.
    fn corroborated(&self, host: &HostThresholds) -> Tier {
        match self.used {
            Some(used) if used >= host.constrained.leave => Tier::Emergency,
            Some(used) if used >= host.elevated.leave => Tier::Constrained,
            _ => Tier::Elevated,
        }
    }

    /// Whether nothing keeps the host in this tier any longer.
    pub(crate) fn leaves(&self, host: &HostThresholds, tier: Tier) -> bool {
        let Some(threshold) = threshold(host, tier) else { return false };
        let strain_over = tier > self.corroborated(host)
            || (self.stall.is_none_or(|s| s < scaled(threshold.stall))
                && self.thrash.zip(thrash_limit(host, tier)).is_none_or(|(t, limit)| t < exit(limit)));
        let forecast_over =
            self.forecast.left().zip(threshold.forecast).is_none_or(|(left, limit)| left >= limit);
        self.used.is_some_and(|u| u < threshold.leave) && forecast_over && strain_over
    }
}

fn scaled(share: Share) -> Share {
    Share(u32::try_from(exit(u64::from(share.0))).unwrap_or(u32::MAX))
}

fn exit(limit: u64) -> u64 {
    u64::try_from(u128::from(limit) * u128::from(EXIT.0) / u128::from(Share::ONE.0)).unwrap_or(limit)
}

/// Where elevated has no threshold of its own it has that of constrained: uncorroborated thrash ends there.
fn thrash_limit(host: &HostThresholds, tier: Tier) -> Option<u64> {
    let own = threshold(host, tier)?.thrash;
    if tier == Tier::Elevated { own.or(host.constrained.thrash) } else { own }
}

/// The thresholds of a tier; `None` for normal.
pub(crate) fn threshold(host: &HostThresholds, tier: Tier) -> Option<&Threshold> {
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

    const CALM: Signals =
        Signals { used: Some(Share::percent(50)), forecast: Forecast::NotFilling, stall: None, thrash: None };

    fn within(span: Span) -> Forecast {
        Forecast::In { left: span, source: Source::Available }
    }

    fn check(signals: Signals, tier: Tier) {
        assert_eq!(signals.tier(&HostThresholds::default()).0, tier, "{signals:?}");
    }

    #[test]
    fn the_worst_signal_decides() {
        let used = |n| Signals { used: Some(Share::percent(n)), ..CALM };
        check(CALM, Tier::Normal);
        check(used(80), Tier::Elevated);
        check(used(95), Tier::Critical);
        check(Signals { forecast: within(Span::millis(2999)), ..used(82) }, Tier::Critical);
        check(Signals { forecast: within(Span::secs(10)), ..CALM }, Tier::Normal);
        check(Signals { stall: Some(Share::percent(20)), ..used(86) }, Tier::Critical);
        check(Signals { thrash: Some(9000), ..used(99) }, Tier::Emergency);
    }

    #[test]
    fn strain_alone_calls_for_trimming_and_no_more() {
        check(Signals { stall: Some(Share::ONE), thrash: Some(u64::MAX), ..CALM }, Tier::Elevated);
        check(Signals { thrash: Some(u64::MAX), ..CALM }, Tier::Elevated);
        let near = Signals { used: Some(Share::percent(76)), ..CALM };
        check(Signals { thrash: Some(u64::MAX), ..near }, Tier::Constrained);
    }

    #[test]
    fn a_tier_is_left_below_its_leave_values_only() {
        let host = HostThresholds::default();
        let at = |used, thrash| Signals { used: Some(Share::percent(used)), thrash: Some(thrash), ..CALM };
        assert!(!at(92, 0).leaves(&host, Tier::Critical));
        assert!(at(89, 0).leaves(&host, Tier::Critical));
        assert!(!at(89, 1500).leaves(&host, Tier::Critical), "above 70 % of the threshold");
        assert!(at(89, 1300).leaves(&host, Tier::Critical));
        assert!(!Signals { used: None, ..CALM }.leaves(&host, Tier::Critical), "a gap is no calm");
    }
}
