//! The section `host`: when the host is how short.

use super::scalar::{Memory, OrNone, Part, Time, Whole};
use super::section::Section;
use super::{HostThresholds, Threshold};
use crate::units::{Bytes, Share, Span};

/// A used share or stall of nothing would always be crossed.
const SHARE: Part = Part(Share::percent(1), Share::percent(100));
/// Beyond ten minutes a forecast from the last seconds says nothing.
const FORECAST: OrNone<Time> = OrNone(Time(Span::millis(10), Span::secs(600)));
const THRASH: OrNone<Whole> = OrNone(Whole(1, 1_000_000_000));
const DWELL_UP: Time = Time(Span::ZERO, Span::secs(10));
const DWELL_DOWN: Time = Time(Span::millis(100), Span::secs(3600));
const RESERVE: Memory = Memory(Bytes::ZERO, Bytes::mib(16 << 20));

pub(super) fn host(section: &mut Section<'_>) -> HostThresholds {
    let mut host = HostThresholds::default();
    section.section("elevated", |tier| threshold(tier, &mut host.elevated));
    section.section("constrained", |tier| threshold(tier, &mut host.constrained));
    section.section("critical", |tier| threshold(tier, &mut host.critical));
    section.section("emergency", |tier| threshold(tier, &mut host.emergency));
    section.set("dwell_up", &mut host.dwell_up, &DWELL_UP);
    section.set("dwell_down", &mut host.dwell_down, &DWELL_DOWN);
    section.set("reserve", &mut host.reserve, &RESERVE);
    if section.clean() {
        ascending(section, &host);
    }
    host
}

fn threshold(section: &mut Section<'_>, tier: &mut Threshold) {
    section.set("used", &mut tier.used, &SHARE);
    section.set("leave", &mut tier.leave, &SHARE);
    section.set("forecast", &mut tier.forecast, &FORECAST);
    section.set("stall", &mut tier.stall, &SHARE);
    let mut thrash = tier.thrash.map(i128::from);
    section.set("thrash", &mut thrash, &THRASH);
    tier.thrash = thrash.and_then(|rate| u64::try_from(rate).ok());
    if section.clean() && tier.leave >= tier.used {
        let sentence = format!("is {}, which has to be below `used`, {}", tier.leave, tier.used);
        section.conflict("leave", sentence);
    }
}

/// Each tier has to be harder to reach than the one before it.
fn ascending(section: &mut Section<'_>, host: &HostThresholds) {
    let tiers = [
        ("elevated", &host.elevated),
        ("constrained", &host.constrained),
        ("critical", &host.critical),
        ("emergency", &host.emergency),
    ];
    for pair in tiers.windows(2) {
        let [(lower, below), (name, tier)] = pair else { continue };
        let mut check = |key: &str, wrong: bool, order: &str| {
            if wrong {
                section.conflict(&format!("{name}.{key}"), format!("has to be {order} that of {lower}"));
            }
        };
        check("used", tier.used <= below.used, "above");
        check("leave", tier.leave < below.leave, "at least");
        check("stall", tier.stall < below.stall, "at least");
        check("forecast", longer(tier.forecast, below.forecast), "at most");
        check("thrash", longer(below.thrash, tier.thrash), "at least");
    }
}

/// Whether both are given and the first is the longer.
fn longer<T: PartialOrd>(first: Option<T>, second: Option<T>) -> bool {
    matches!((first, second), (Some(first), Some(second)) if first > second)
}
