//! Tier and forecast from readings alone: hysteresis holds for any readings, and a forecast is exact where it can be.

use plimsoll_policy::assess::forecast::{Forecast, Source, Unknown};
use plimsoll_policy::config::Config;
use plimsoll_policy::pass::step;
use plimsoll_policy::plan::{Assessment, Evidence, Tier};
use plimsoll_policy::sample::{Meminfo, Probes, Sample, Spec, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Share, Span};
use proptest::prelude::*;

use crate::properties::fixed;

const TOTAL: Bytes = Bytes::mib(16 << 10);

/// A machine without workloads, of which only meminfo is read.
struct Host {
    config: Config,
    state: State,
    at: Monotonic,
}

impl Host {
    fn new() -> Self {
        Self { config: Config::default(), state: State::default(), at: Monotonic(60_000_000_000) }
    }

    fn keeping(reserve: Bytes) -> Self {
        let mut host = Self::new();
        host.config.host.reserve = reserve;
        host
    }

    fn read(&mut self, meminfo: Option<Meminfo>, workloads: &[(WorkloadId, Workload)]) -> Assessment {
        let mut sample = Sample { at: self.at, ..Sample::default() };
        sample.host.meminfo = meminfo;
        sample.workloads.extend(workloads.iter().cloned());
        let pass = step(&self.config, std::mem::take(&mut self.state), &sample);
        self.state = pass.state;
        pass.assessment
    }

    /// A reading this long after the last one.
    fn after(&mut self, millis: u64, available: Option<Bytes>) -> Assessment {
        self.at = self.at + Span::millis(millis);
        self.read(available.map(|available| meminfo(available, Bytes::ZERO)), &[])
    }
}

fn meminfo(available: Bytes, swap_free: Bytes) -> Meminfo {
    let swap_total = Bytes::mib(8 << 10);
    let swap_total = if swap_free > Bytes::ZERO { swap_total } else { Bytes::ZERO };
    Meminfo { total: TOTAL, free: available, available, swap_total, swap_free, ..Meminfo::default() }
}

/// What `rate` per second comes to.
fn grown(rate: Bytes, millis: u64) -> Bytes {
    Bytes(rate.0 / 1000 * millis)
}

fn assert_close(left: Span, right: Span, percent: u64) {
    assert!(left.0.abs_diff(right.0) <= right.0 / 100 * percent, "{left} is not {right}");
}

/// Readings: milliseconds since the last one, and the available share in thousandths; none is a gap.
fn readings() -> impl Strategy<Value = Vec<(u64, Option<u32>)>> {
    let wait = prop_oneof![4 => 5_u64..120, 1 => 120_u64..6000];
    let level = prop_oneof![3 => 0_u32..300, 1 => 0_u32..1000];
    let run = (prop::collection::vec(wait, 1..25), prop::option::weighted(0.9, level));
    prop::collection::vec(run, 1..20).prop_map(|runs| {
        runs.into_iter().flat_map(|(waits, level)| waits.into_iter().map(move |ms| (ms, level))).collect()
    })
}

fn rank(tier: Tier) -> usize {
    Tier::ALL.iter().position(|t| *t == tier).unwrap()
}

fn threshold(config: &Config, tier: Tier) -> Share {
    let host = &config.host;
    let tiers = [&host.elevated, &host.constrained, &host.critical, &host.emergency];
    tiers[rank(tier) - 1].used
}

proptest! {
    #![proptest_config(fixed(120))]

    /// Down by one tier at a time and never sooner than the dwell after the last change; up by the used share only if that
    /// was high throughout its dwell; and nothing at all on a gap.
    #[test]
    fn no_readings_make_the_tier_flap(readings in readings()) {
        let mut host = Host::new();
        let (mut former, mut changed) = (Tier::Normal, None::<Monotonic>);
        let mut high: Vec<(Monotonic, Option<Share>)> = Vec::new();
        for (ms, level) in readings {
            let now = host.after(ms, level.map(|level| TOTAL.share(Share(level * 1000))));
            high.push((host.at, now.used));
            let step = rank(now.tier).cmp(&rank(former));
            if level.is_none() {
                prop_assert_eq!(now.tier, former, "a gap moves nothing");
            }
            if step.is_lt() {
                prop_assert_eq!(rank(former) - rank(now.tier), 1);
                let calm = changed.map(|at| host.at.since(at));
                prop_assert!(calm >= Some(host.config.host.dwell_down), "{calm:?}");
            }
            if let (true, Some(Evidence::Used { .. })) = (step.is_gt() && now.tier < Tier::Emergency, &now.because) {
                // Gaps in between are neither.
                let least = threshold(&host.config, now.tier);
                let known = || high.iter().rev().filter_map(|(at, used)| Some((*at, (*used)?)));
                let since = known().take_while(|(_, used)| *used >= least).last().map(|(at, _)| at);
                let held = since.map(|at| host.at.since(at));
                prop_assert!(held >= Some(host.config.host.dwell.used), "up after {held:?}");
            }
            if now.tier != former {
                (former, changed) = (now.tier, Some(host.at));
            }
        }
    }

    /// A steady fall is foretold to a few per cent, whatever the pace of the readings and some noise on them.
    #[test]
    fn a_constant_rate_gives_the_time(
        rate in 200_u64..2000, waits in prop::collection::vec(40_u64..150, 8..16), noise in 0_u64..1024,
    ) {
        let (mut host, rate) = (Host::new(), Bytes::mib(rate));
        let mut passed = 0;
        for (n, ms) in waits.iter().enumerate() {
            passed += ms;
            let wobble = Bytes(if n % 2 == 0 { noise * 1024 } else { 0 });
            let available = Bytes::mib(14 << 10).saturating_sub(grown(rate, passed)) + wobble;
            let now = host.after(*ms, Some(available));
            if n >= 4 {
                let nanos = u128::from(available.0) * 1_000_000_000 / u128::from(rate.0);
                assert_close(now.forecast.left().unwrap(), Span(nanos as u64), 8);
            }
        }
    }

    /// Whoever has more headroom, all else being equal, has more time.
    #[test]
    fn more_headroom_is_more_time(readings in readings(), reserves in (0_u64..4000, 0_u64..4000)) {
        let (less, more) = (reserves.0.min(reserves.1), reserves.0.max(reserves.1));
        let mut ample = Host::keeping(Bytes::mib(less));
        let mut scant = Host::keeping(Bytes::mib(more));
        for (ms, level) in readings {
            let available = level.map(|level| TOTAL.share(Share(level * 1000)));
            let (long, short) = (ample.after(ms, available), scant.after(ms, available));
            match (long.forecast, short.forecast) {
                (Forecast::In { left: long, .. }, Forecast::In { left: short, .. }) => prop_assert!(long >= short),
                (long, short) => prop_assert_eq!(long, short),
            }
        }
    }

    /// A burst is foretold within three busy samples and forgotten within 300 ms of its end.
    #[test]
    fn a_burst_is_seen_and_its_end_too(rate in 500_u64..3000, lasts in 4_u64..40, calm in 1_u64..100) {
        let (mut host, rate) = (Host::new(), Bytes::mib(rate));
        let mut available = Bytes::mib(15 << 10);
        for _ in 0..calm {
            prop_assert_eq!(host.after(50, Some(available)).forecast.left(), None);
        }
        for n in 0..lasts.min(14 * 1024 * 20 / (rate.0 >> 20)) {
            available = available.saturating_sub(grown(rate, 50));
            let forecast = host.after(50, Some(available)).forecast;
            prop_assert!(n < 2 || forecast.left().is_some(), "not seen after {n} readings: {forecast:?}");
        }
        let ends = (1..=12).map(|n| (n * 50, host.after(50, Some(available)).forecast));
        for (ms, forecast) in ends.collect::<Vec<_>>() {
            prop_assert!(ms < 300 || forecast == Forecast::NotFilling, "{ms} ms after its end: {forecast:?}");
        }
    }
}

#[test]
fn what_is_not_known_says_why() {
    let mut host = Host::new();
    let gib = |n: u64| Some(Bytes::mib(n << 10));
    assert_eq!(host.after(50, gib(10)).forecast, Forecast::Unknown(Unknown::FewReadings));
    assert_eq!(host.after(50, gib(10)).forecast, Forecast::NotFilling);
    assert_eq!(host.after(50, None).forecast, Forecast::Unknown(Unknown::Gap));
    assert_eq!(
        host.after(3000, gib(5)).forecast,
        Forecast::Unknown(Unknown::Gap),
        "a rate across three seconds"
    );
    let mut host = Host::new();
    for n in 0..20 {
        let forecast = host.after(50, gib(if n % 2 == 0 { 5 } else { 7 })).forecast;
        assert!(n < 5 || forecast == Forecast::Unknown(Unknown::Disagree), "{forecast:?}");
    }
}

#[test]
fn jitter_does_not_hide_a_leak() {
    let mut host = Host::new();
    let mut last = Forecast::default();
    for n in 0..80 {
        let leaked = Bytes::mib(8 << 10).saturating_sub(grown(Bytes::mib(500), n * 50));
        let jitter = Bytes::mib(if n % 2 == 0 { 200 } else { 0 });
        last = host.after(50, Some(leaked + jitter)).forecast;
    }
    let Forecast::In { left, source: Source::AvailableLong } = last else { panic!("{last:?}") };
    assert_close(left, Span::millis(12_300), 12);
}

#[test]
fn growth_that_swap_absorbs_ends_when_it_is_full() {
    let mut host = Host::new();
    let (available, swap, rate) = (Bytes::mib(2000), Bytes::mib(8000), Bytes::mib(400));
    let mut last = Forecast::default();
    for n in 1..40 {
        host.at = host.at + Span::millis(50);
        last = host.read(Some(meminfo(available, swap.saturating_sub(grown(rate, n * 50)))), &[]).forecast;
    }
    let Forecast::In { left, source: Source::Swap } = last else { panic!("{last:?}") };
    assert_close(left, Span::millis((2000 + 8000 - 780) * 1000 / 400), 3);
}

/// A workload that grows by `rate` while `MemAvailable` stands still, since something else shrinks as fast.
fn beside(rate: Bytes, faults: Option<u64>, file: bool) -> Forecast {
    let mut host = Host::new();
    let id = |name: &str, inode| WorkloadId { path: name.into(), inode };
    let spec = Spec { name: "hog".into(), ..Spec::default() };
    host.state.gate.targets = vec![id("hog", 7)];
    let mut last = Forecast::default();
    for n in 1..20 {
        host.at = host.at + Span::millis(50);
        // The plan disarms it where nothing calls for it; it is about the counters here.
        host.state.gate.targets = vec![id("hog", 7)];
        let probes = faults.map(|faults| Probes { minor_faults: faults * n / 20, ..Probes::default() });
        let current = Some(Bytes::mib(100) + grown(rate, n * 50));
        let hog =
            Workload { spec: spec.clone(), current, probes, populated: Some(true), ..Workload::default() };
        let mut meminfo = meminfo(Bytes::mib(4000), Bytes::ZERO);
        meminfo.file = if file { grown(rate, n * 50) } else { Bytes::ZERO };
        last = host.read(Some(meminfo), &[(id("hog", 7), hog)]).forecast;
    }
    last
}

#[test]
fn growth_that_is_hidden_is_seen_and_page_cache_is_none() {
    let rate = Bytes::mib(400);
    let Forecast::In { left, source: Source::Growth } = beside(rate, None, false) else { panic!("growth") };
    assert_close(left, Span::secs(10), 3);
    assert_eq!(beside(rate, None, true), Forecast::NotFilling, "it reads a file");
    let faults = Bytes::mib(600).0 / 4096;
    let Forecast::In { left, source: Source::Faults } = beside(rate, Some(faults), false) else {
        panic!("faults")
    };
    assert_close(left, Span::millis(6667), 3);
    assert_eq!(beside(rate, Some(faults), true), Forecast::NotFilling);
}
