//! How much may be promised: headroom, less what is reserved, less a margin that depends on the tier.

use std::collections::BTreeMap;

use super::answer::{Reason, Refusal, Room};
use crate::assess::Assessed;
use crate::config::Config;
use crate::plan::Tier;
use crate::units::{Bytes, Span};

/// The margins are for machines of at least this much memory; on smaller ones they are in proportion. At 15, 20 and 25 % of the
/// memory they leave something to grant on a machine of 1 GiB, and their order stays.
const FULL_SIZE: Bytes = Bytes::mib(10 << 10);
/// When it is worth to ask again where nobody can tell: as long as a workload takes to end.
const RETRY: Span = Span::secs(10);

/// What there is at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vacancy {
    pub(super) tier: Tier,
    pub(super) total: Bytes,
    /// `None` where the memory could not be read.
    pub(super) headroom: Option<Bytes>,
    /// `None` where nothing is granted.
    pub(super) margin: Option<Bytes>,
    /// What even a calm resource keeps back.
    pub(super) least_margin: Bytes,
    pub(super) reserved: Bytes,
    /// How long the tier is above what it would be, at least.
    pub(super) dwell: Span,
}

impl Vacancy {
    pub(super) fn of(config: &Config, assessed: &Assessed, reserved: Bytes) -> Self {
        let tier = assessed.report.tier;
        let total = assessed.memory.map_or(Bytes::ZERO, |m| m.total);
        Self {
            tier,
            total,
            headroom: assessed.memory.map(|m| m.headroom),
            margin: margin(config, tier, total),
            least_margin: margin(config, Tier::Normal, total).unwrap_or_default(),
            reserved,
            dwell: config.host.dwell_down,
        }
    }

    fn available(&self) -> Bytes {
        self.headroom.unwrap_or_default().saturating_sub(self.reserved)
    }

    /// What could be promised to somebody before whom others come.
    pub(super) fn free(&self, ahead: Bytes) -> Bytes {
        let free = self.margin.map_or(Bytes::ZERO, |margin| self.available().saturating_sub(margin));
        free.saturating_sub(ahead)
    }

    /// Whether so much may be promised while `ahead` is wanted by others who come first.
    pub(super) fn admit(&self, promised: Bytes, ahead: Bytes) -> Result<(), Reason> {
        if self.headroom.is_none() {
            return Err(Reason::Unknown);
        }
        if promised + self.least_margin > self.total {
            return Err(Reason::TooLarge);
        }
        let free = self.available().saturating_sub(self.margin.ok_or(Reason::Tier)?);
        if promised > free {
            return Err(Reason::NoRoom);
        }
        if promised + ahead > free { Err(Reason::Behind) } else { Ok(()) }
    }

    /// The numbers of a refusal.
    pub(super) fn refusal(&self, reason: Reason, asked: Bytes, promised: Bytes) -> Refusal {
        let retry = match reason {
            Reason::TooLarge => None,
            Reason::Tier => Some(self.dwell.max(RETRY)),
            _ => Some(RETRY),
        };
        let margin =
            if reason == Reason::TooLarge { self.least_margin } else { self.margin.unwrap_or_default() };
        Refusal {
            reason,
            asked,
            promised,
            available: self.available(),
            margin,
            tier: self.tier,
            gpu: None,
            retry,
        }
    }

    /// For whoever only wants to know.
    pub(super) fn room(&self, ahead: Bytes) -> Room {
        Room {
            tier: self.tier,
            available: self.headroom.map(|_| self.available()),
            reserved: self.reserved,
            margin: self.margin,
            admissible: self.free(ahead),
            gpus: BTreeMap::new(),
        }
    }
}

/// What nobody is granted. On large machines it is what keeps the used share below that of constrained: what is admitted
/// must not be what the ladder then takes back.
fn margin(config: &Config, tier: Tier, total: Bytes) -> Option<Bytes> {
    let admission = &config.admission;
    let calmer = [admission.margin_normal, admission.margin_elevated, admission.margin_constrained];
    let figure = match tier {
        Tier::Normal => calmer[0],
        Tier::Elevated => calmer[0].max(calmer[1]),
        Tier::Constrained => calmer[0].max(calmer[1]).max(calmer[2]),
        Tier::Critical | Tier::Emergency => return None,
    };
    let full = total.saturating_sub(total.share(config.host.constrained.used));
    Some(in_proportion(figure, total).max(full))
}

fn in_proportion(figure: Bytes, total: Bytes) -> Bytes {
    let size = total.min(FULL_SIZE);
    let bytes = u128::from(figure.0) * u128::from(size.0) / u128::from(FULL_SIZE.0);
    Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margins_fit_the_machine() {
        let of = |tier, gib: u64| margin(&Config::default(), tier, Bytes::mib(gib << 10));
        let mib = |n| Some(Bytes::mib(n));
        assert_eq!(of(Tier::Normal, 12), mib(1536), "the figure itself");
        assert_eq!(of(Tier::Elevated, 12), mib(2048));
        assert_eq!(of(Tier::Constrained, 12), mib(2560));
        assert_eq!(of(Tier::Critical, 12), None);
        assert_eq!(of(Tier::Normal, 5), mib(768), "in proportion");
        let large = of(Tier::Constrained, 1000);
        assert!(large.is_some_and(|m| m.0.abs_diff(100 << 30) < 1 << 20), "a tenth of it: {large:?}");
    }

    #[test]
    fn a_calmer_margin_is_never_the_larger_one() {
        let mut config = Config::default();
        config.admission.margin_normal = Bytes::mib(4 << 10);
        let total = Bytes::mib(16 << 10);
        assert_eq!(margin(&config, Tier::Constrained, total), Some(Bytes::mib(4 << 10)));
    }
}
