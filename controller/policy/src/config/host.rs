//! The section `host`: when the host is how short.

use super::scalar::{Memory, OrNone, Part, Time, Whole};
use super::section::Section;
use super::{Dwell, HostThresholds, Leave, ThrashRates, Threshold};
use crate::units::{Bytes, Share, Span};

/// A used share or stall of nothing would always be crossed.
const SHARE: Part = Part(Share::percent(1), Share::percent(100));
/// Beyond ten minutes a forecast from the last seconds says nothing.
const FORECAST: OrNone<Time> = OrNone(Time(Span::millis(10), Span::secs(600)));
const THRASH: OrNone<Whole> = OrNone(Whole(1, 1_000_000_000));
const DWELL: Time = Time(Span::ZERO, Span::secs(10));
const DWELL_DOWN: Time = Time(Span::millis(100), Span::secs(3600));
/// A forecast of more than ten times its threshold is no longer about the same shortage.
const LEAVE_FORECAST: Part = Part(Share::ONE, Share::percent(1000));
const LEAVE: Part = Part(Share::percent(1), Share::percent(100));
const HEALTHY: Whole = Whole(1, 1_000_000_000);
const SUSTAINED: Time = Time(Span::ZERO, Span::secs(600));
const RESERVE: Memory = Memory(Bytes::ZERO, Bytes::mib(16 << 20));

/// Reads what is given onto the table of a preset.
pub(super) fn host(section: &mut Section<'_>, table: HostThresholds) -> HostThresholds {
    let mut host = table;
    section.section("elevated", |tier| threshold(tier, &mut host.elevated));
    section.section("constrained", |tier| strained(tier, &mut host.constrained));
    section.section("critical", |tier| strained(tier, &mut host.critical));
    section.section("emergency", |tier| strained(tier, &mut host.emergency));
    section.section("dwell", |section| dwell(section, &mut host.dwell));
    section.section("leave", |section| leave(section, &mut host.leave));
    section.set("dwell_down", &mut host.dwell_down, &DWELL_DOWN);
    section.section("thrash", |section| thrash(section, &mut host.thrash));
    section.set("reserve", &mut host.reserve, &RESERVE);
    if section.clean() {
        ascending(section, &host);
        healthy(section, &host);
    }
    host
}

fn threshold(section: &mut Section<'_>, tier: &mut Threshold) {
    section.set("used", &mut tier.used, &SHARE);
    section.set("leave", &mut tier.leave, &SHARE);
    section.set("forecast", &mut tier.forecast, &FORECAST);
    section.set("stall", &mut tier.stall, &SHARE);
    if section.clean() && tier.leave >= tier.used {
        let sentence = format!("is {}, which has to be below `used`, {}", tier.leave, tier.used);
        section.conflict("leave", sentence);
    }
}

/// A tier that thrash leads to: elevated has no rate of its own.
fn strained(section: &mut Section<'_>, tier: &mut Threshold) {
    threshold(section, tier);
    let mut rate = tier.thrash.map(i128::from);
    section.set("thrash", &mut rate, &THRASH);
    tier.thrash = rate.and_then(|rate| u64::try_from(rate).ok());
}

fn dwell(section: &mut Section<'_>, dwell: &mut Dwell) {
    section.set("used", &mut dwell.used, &DWELL);
    section.set("forecast", &mut dwell.forecast, &DWELL);
    section.set("stall", &mut dwell.stall, &DWELL);
    section.set("thrash", &mut dwell.thrash, &DWELL);
}

fn leave(section: &mut Section<'_>, leave: &mut Leave) {
    section.set("forecast", &mut leave.forecast, &LEAVE_FORECAST);
    section.set("stall", &mut leave.stall, &LEAVE);
    section.set("thrash", &mut leave.thrash, &LEAVE);
}

fn thrash(section: &mut Section<'_>, thrash: &mut ThrashRates) {
    if let Some(rate) = section.get("healthy", &HEALTHY).and_then(|rate| u64::try_from(rate).ok()) {
        thrash.healthy = rate;
    }
    section.set("sustained", &mut thrash.sustained, &SUSTAINED);
    section.set("recovery", &mut thrash.recovery, &SUSTAINED);
    section.set("panic_mean", &mut thrash.panic_mean, &LEAVE);
}

/// What is called healthy must not be called thrashing.
fn healthy(section: &mut Section<'_>, host: &HostThresholds) {
    let tiers = [&host.constrained, &host.critical, &host.emergency];
    if let Some(least) =
        tiers.iter().find_map(|tier| tier.thrash).filter(|least| host.thrash.healthy >= *least)
    {
        let sentence =
            format!("is {}, which has to be below the first rate of a tier, {least}", host.thrash.healthy);
        section.conflict("thrash.healthy", sentence);
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
