//! The section `gpu`: when a GPU is how short, and when that is anybody's trouble.

use super::preset::Preset;
use super::scalar::{OrNone, Part, Time};
use super::section::Section;
use super::{Gpu, GpuThreshold};
use crate::units::{Share, Span};

const SHARE: Part = Part(Share::percent(1), Share::percent(100));
/// Beyond ten minutes a forecast from the last seconds says nothing.
const FORECAST: OrNone<Time> = OrNone(Time(Span::millis(10), Span::secs(600)));
const DWELL: Time = Time(Span::ZERO, Span::secs(60));
const DWELL_DOWN: Time = Time(Span::millis(100), Span::secs(3600));
/// Shorter than the time between two readings would never be contested.
const CONTESTED: Time = Time(Span::secs(5), Span::secs(3600));
const CLAIM: Time = Time(Span::secs(1), Span::secs(3600));

/// Reads what is given onto the table of a preset.
pub(super) fn gpu(section: &mut Section<'_>, preset: Preset) -> Gpu {
    let mut gpu = preset.gpu();
    section.section("elevated", |tier| threshold(tier, &mut gpu.elevated));
    section.section("constrained", |tier| threshold(tier, &mut gpu.constrained));
    section.section("critical", |tier| threshold(tier, &mut gpu.critical));
    section.section("emergency", |tier| threshold(tier, &mut gpu.emergency));
    section.set("dwell", &mut gpu.dwell, &DWELL);
    section.set("dwell_down", &mut gpu.dwell_down, &DWELL_DOWN);
    section.set("contested_for", &mut gpu.contested_for, &CONTESTED);
    section.set("claim", &mut gpu.claim, &CLAIM);
    if section.clean() {
        ascending(section, &gpu);
    }
    gpu
}

fn threshold(section: &mut Section<'_>, tier: &mut GpuThreshold) {
    section.set("used", &mut tier.used, &SHARE);
    section.set("leave", &mut tier.leave, &SHARE);
    section.set("forecast", &mut tier.forecast, &FORECAST);
    if section.clean() && tier.leave >= tier.used {
        let sentence = format!("is {}, which has to be below `used`, {}", tier.leave, tier.used);
        section.conflict("leave", sentence);
    }
}

/// Each tier has to be harder to reach than the one before it.
fn ascending(section: &mut Section<'_>, gpu: &Gpu) {
    for pair in gpu.tiers().windows(2) {
        let [(lower, below), (name, tier)] = pair else { continue };
        let longer = tier.forecast.zip(below.forecast).is_some_and(|(this, lower)| this > lower);
        let mut check = |key: &str, wrong: bool, order: &str| {
            if wrong {
                section.conflict(&format!("{name}.{key}"), format!("has to be {order} that of {lower}"));
            }
        };
        check("used", tier.used <= below.used, "above");
        check("leave", tier.leave < below.leave, "at least");
        check("forecast", longer, "at most");
    }
}

impl Preset {
    /// Its thresholds of a GPU. One table for all sizes: what fills a GPU are a few large blocks, on a large one as on a small one.
    #[must_use]
    pub fn gpu(self) -> Gpu {
        let (enter, leave, forecast): ([u32; 4], [u32; 4], [u64; 3]) = match self {
            Self::Conservative => ([85, 92, 97, 99], [80, 88, 94, 97], [5_000, 2_000, 700]),
            Self::Default => ([80, 90, 95, 98], [75, 85, 90, 95], [10_000, 3_000, 1_000]),
            Self::Aggressive => ([70, 80, 85, 92], [65, 75, 80, 87], [20_000, 6_000, 2_000]),
        };
        let tier = |n: usize| GpuThreshold {
            used: Share::percent(enter[n]),
            leave: Share::percent(leave[n]),
            forecast: n.checked_sub(1).map(|n| Span::millis(forecast[n])),
        };
        Gpu {
            elevated: tier(0),
            constrained: tier(1),
            critical: tier(2),
            emergency: tier(3),
            dwell: Span::millis(500),
            dwell_down: Span::secs(5),
            contested_for: Span::secs(60),
            claim: Span::secs(20),
        }
    }
}
