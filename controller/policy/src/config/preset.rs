//! The tables of thresholds: three presets, each for four sizes of memory. `docs/tiers.md` argues the figures.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, Dwell, HostThresholds, Leave, ThrashRates, Threshold};
use crate::units::{Bytes, Share, Span};

/// How early to act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Late: memory is used to the last, and workloads are let alone as long as possible.
    Conservative,
    /// In between.
    #[default]
    Default,
    /// Early: the protected never wait, at the price of memory that stands empty.
    Aggressive,
}

/// Classes of memory size: what a share is in bytes differs a thousandfold between hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// Below 8 GiB.
    #[default]
    Small,
    /// Below 64 GiB.
    Medium,
    /// Below 256 GiB.
    Large,
    /// The rest.
    Huge,
}

/// The thresholds for hosts of one size; or why what is given makes no sense on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizedHost {
    /// The size.
    pub size: Size,
    /// The thresholds, or the contradictions.
    pub host: Result<HostThresholds, Vec<ConfigError>>,
}

impl Preset {
    /// All of them, the latest first.
    pub const ALL: [Self; 3] = [Self::Conservative, Self::Default, Self::Aggressive];

    /// The word used in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conservative => "conservative",
            Self::Default => "default",
            Self::Aggressive => "aggressive",
        }
    }

    /// Its thresholds on hosts of a size.
    #[must_use]
    pub fn thresholds(self, size: Size) -> HostThresholds {
        let (enter, leave) = self.shares(size);
        let pace = self.pace();
        let tier = |n: usize| Threshold {
            used: Share(enter[n] * 1000),
            leave: Share(leave[n] * 1000),
            forecast: n.checked_sub(1).map(|n| Span::millis(pace.forecast[n])),
            stall: Share::percent(pace.stall[n]),
            thrash: n.checked_sub(1).map(|n| pace.thrash[n]),
        };
        let dwell = Span::millis(pace.dwell);
        HostThresholds {
            elevated: tier(0),
            constrained: tier(1),
            critical: tier(2),
            emergency: tier(3),
            dwell: Dwell { used: dwell, forecast: dwell, stall: dwell, thrash: dwell },
            leave: Leave {
                forecast: Share::percent(150),
                stall: Share::percent(70),
                thrash: Share::percent(70),
            },
            dwell_down: Span::secs(pace.dwell_down),
            thrash: ThrashRates {
                healthy: pace.thrash[0] / 5,
                sustained: Span::secs(10),
                recovery: Span::secs(10),
                panic_mean: Share::percent(70),
            },
            reserve: Bytes::ZERO,
        }
    }

    /// Used shares in thousandths, from elevated to emergency: where each is entered, and below what it is left.
    const fn shares(self, size: Size) -> ([u32; 4], [u32; 4]) {
        match (self, size) {
            (Self::Conservative, Size::Small) => ([880, 940, 970, 990], [840, 900, 940, 970]),
            (Self::Conservative, Size::Medium) => ([910, 955, 978, 990], [880, 925, 958, 978]),
            (Self::Conservative, Size::Large) => ([940, 970, 985, 995], [920, 955, 975, 988]),
            (Self::Conservative, Size::Huge) => ([965, 983, 991, 997], [950, 972, 984, 992]),
            (Self::Default, Size::Small) => ([800, 900, 950, 980], [750, 850, 900, 950]),
            (Self::Default, Size::Medium) => ([850, 920, 960, 985], [810, 880, 930, 965]),
            (Self::Default, Size::Large) => ([900, 950, 975, 990], [870, 925, 955, 978]),
            (Self::Default, Size::Huge) => ([940, 970, 985, 994], [920, 955, 975, 988]),
            (Self::Aggressive, Size::Small) => ([700, 820, 900, 950], [650, 770, 850, 910]),
            (Self::Aggressive, Size::Medium) => ([780, 870, 930, 970], [730, 820, 890, 940]),
            (Self::Aggressive, Size::Large) => ([850, 910, 950, 980], [810, 880, 925, 960]),
            (Self::Aggressive, Size::Huge) => ([900, 945, 970, 988], [870, 920, 950, 975]),
        }
    }

    const fn pace(self) -> Pace {
        match self {
            Self::Conservative => Pace {
                forecast: [5_000, 2_000, 700],
                stall: [10, 20, 40, 60],
                thrash: [1_000, 4_000, 16_000],
                dwell: 250,
                dwell_down: 5,
            },
            Self::Default => Pace {
                forecast: [10_000, 3_000, 1_000],
                stall: [5, 10, 20, 40],
                thrash: [500, 2_000, 8_000],
                dwell: 100,
                dwell_down: 5,
            },
            Self::Aggressive => Pace {
                forecast: [20_000, 6_000, 2_000],
                stall: [3, 6, 12, 25],
                thrash: [250, 1_000, 4_000],
                dwell: 50,
                dwell_down: 10,
            },
        }
    }
}

/// What does not depend on the size: a second is a second on every host.
struct Pace {
    /// Milliseconds, from constrained on.
    forecast: [u64; 3],
    /// Per cent, from elevated on.
    stall: [u32; 4],
    /// Pages per second, from constrained on.
    thrash: [u64; 3],
    /// Milliseconds.
    dwell: u64,
    /// Seconds.
    dwell_down: u64,
}

impl Size {
    /// All of them, the smallest first.
    pub const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::Huge];

    /// The class of a host with this much memory.
    #[must_use]
    pub fn of(total: Bytes) -> Self {
        let below = |size: &Self| size.end().is_none_or(|end| total < end);
        Self::ALL.into_iter().find(below).unwrap_or(Self::Huge)
    }

    /// The memory at which the next class begins.
    const fn end(self) -> Option<Bytes> {
        match self {
            Self::Small => Some(Bytes::mib(8 << 10)),
            Self::Medium => Some(Bytes::mib(64 << 10)),
            Self::Large => Some(Bytes::mib(256 << 10)),
            Self::Huge => None,
        }
    }
}

impl SizedHost {
    /// A preset as it is, for every size.
    #[must_use]
    pub fn all(preset: Preset) -> Vec<Self> {
        Size::ALL.into_iter().map(|size| Self { size, host: Ok(preset.thresholds(size)) }).collect()
    }
}

impl Config {
    /// The configuration on a host with this much memory: complete, and the same for as long as the daemon runs. One that
    /// has been resolved already stays as it is.
    ///
    /// # Errors
    /// Thresholds that were given and contradict those which the preset has for hosts of this size.
    pub fn resolve(mut self, total: Bytes) -> Result<Self, Vec<ConfigError>> {
        let size = Size::of(total);
        if let Some(sized) = std::mem::take(&mut self.by_size).into_iter().find(|sized| sized.size == size) {
            self.host = sized.host?;
        }
        Ok(self)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "below 8GiB",
            Self::Medium => "from 8GiB to 64GiB",
            Self::Large => "from 64GiB to 256GiB",
            Self::Huge => "of 256GiB and more",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiers(host: &HostThresholds) -> [&Threshold; 4] {
        [&host.elevated, &host.constrained, &host.critical, &host.emergency]
    }

    #[test]
    fn every_table_rises_from_tier_to_tier_and_with_the_size() {
        for preset in Preset::ALL {
            for size in Size::ALL {
                let host = preset.thresholds(size);
                let tiers = tiers(&host);
                assert!(tiers.iter().all(|t| t.leave < t.used), "{preset} {size}");
                assert!(tiers.windows(2).all(|t| t[0].used < t[1].used && t[0].leave < t[1].leave));
                assert!(tiers.windows(2).all(|t| t[0].stall < t[1].stall), "{preset} {size}");
            }
            for n in 0..4 {
                let used = Size::ALL.map(|size| tiers(&preset.thresholds(size))[n].used);
                assert!(used.is_sorted(), "{preset}: {used:?}");
            }
        }
    }

    #[test]
    fn aggressive_is_earlier_than_default_and_conservative_later() {
        for size in Size::ALL {
            let hosts = Preset::ALL.map(|preset| preset.thresholds(size));
            for pair in hosts.windows(2) {
                for (late, early) in tiers(&pair[0]).into_iter().zip(tiers(&pair[1])) {
                    assert!(late.used > early.used && late.leave > early.leave && late.stall > early.stall);
                    assert!(late.forecast <= early.forecast && late.thrash >= early.thrash);
                }
            }
        }
    }

    #[test]
    fn a_class_has_its_bounds() {
        let check = |gib: u64, size| assert_eq!(Size::of(Bytes::mib(gib << 10)), size, "{gib} GiB");
        check(0, Size::Small);
        check(7, Size::Small);
        check(8, Size::Medium);
        check(63, Size::Medium);
        check(64, Size::Large);
        check(256, Size::Huge);
        check(20_000, Size::Huge);
    }

    #[test]
    fn resolving_is_done_once() {
        let small = Config::default().resolve(Bytes::mib(1000)).expect("the tables have no contradictions");
        assert_eq!(small.host, HostThresholds::default());
        let huge = Config::default().resolve(Bytes::mib(1 << 20)).expect("the tables have no contradictions");
        assert_eq!(huge.host, Preset::Default.thresholds(Size::Huge));
        let json = serde_json::to_string(&huge).expect("a configuration is plain data");
        let read: Config = serde_json::from_str(&json).expect("what was written can be read");
        assert_eq!(read, huge, "a journal carries what the passes used");
        assert_eq!(read.resolve(Bytes::mib(1000)), Ok(huge));
    }
}
