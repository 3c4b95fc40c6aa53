//! The thresholds that result on a host of some size, in the form in which they could be written into the file.

use std::fmt::Write;

use plimsoll_policy::config::{Config, Gpu, GpuThreshold, HostThresholds, Size, Threshold};
use plimsoll_policy::units::{Bytes, Share, Span};

/// The preset and the sections `host` and `gpu` of a resolved configuration as YAML; comments give the bytes that are left at each tier.
#[must_use]
pub fn effective(config: &Config, total: Bytes) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write(config, total, &mut text);
    text
}

fn write(config: &Config, total: Bytes, out: &mut String) -> std::fmt::Result {
    let HostThresholds {
        elevated,
        constrained,
        critical,
        emergency,
        dwell,
        leave,
        dwell_down,
        thrash,
        reserve,
    } = &config.host;
    writeln!(out, "# On a host of {total} (the tables for hosts {}).", Size::of(total))?;
    writeln!(out, "preset: {}\nhost:", config.preset)?;
    let tiers = [
        ("elevated", elevated),
        ("constrained", constrained),
        ("critical", critical),
        ("emergency", emergency),
    ];
    for (name, tier) in tiers {
        let left = total.saturating_sub(total.share(tier.used));
        writeln!(out, "  # {left} left\n  {name}: {}", threshold(tier, name == "elevated"))?;
    }
    let [used, forecast, stall, thrashed] = [dwell.used, dwell.forecast, dwell.stall, dwell.thrash].map(span);
    writeln!(out, "  dwell: {{ used: {used}, forecast: {forecast}, stall: {stall}, thrash: {thrashed} }}")?;
    let [forecast, stall, thrashed] = [leave.forecast, leave.stall, leave.thrash].map(share);
    writeln!(out, "  leave: {{ forecast: {forecast}, stall: {stall}, thrash: {thrashed} }}")?;
    writeln!(out, "  dwell_down: {}", span(*dwell_down))?;
    let [sustained, recovery] = [thrash.sustained, thrash.recovery].map(span);
    let (healthy, mean) = (thrash.healthy, share(thrash.panic_mean));
    writeln!(
        out,
        "  thrash: {{ healthy: {healthy}, sustained: {sustained}, recovery: {recovery}, panic_mean: {mean} }}"
    )?;
    writeln!(out, "  reserve: {}", bytes(*reserve))?;
    gpu(&config.gpu, out)
}

fn gpu(gpu: &Gpu, out: &mut String) -> std::fmt::Result {
    writeln!(out, "gpu:")?;
    for (name, GpuThreshold { used, leave, forecast }) in gpu.tiers() {
        let forecast = forecast.map_or_else(|| "none".into(), span);
        let [used, leave] = [*used, *leave].map(share);
        writeln!(out, "  {name}: {{ used: {used}, leave: {leave}, forecast: {forecast} }}")?;
    }
    let Gpu { dwell, dwell_down, contested_for, claim, .. } = gpu;
    writeln!(out, "  dwell: {}\n  dwell_down: {}", span(*dwell), span(*dwell_down))?;
    writeln!(out, "  contested_for: {}\n  claim: {}", span(*contested_for), span(*claim))
}

fn threshold(tier: &Threshold, without_thrash: bool) -> String {
    let Threshold { used, leave, forecast, stall, thrash } = tier;
    let forecast = forecast.map_or_else(|| "none".into(), span);
    let rate = thrash.map_or_else(|| "none".into(), |rate| rate.to_string());
    let thrash = if without_thrash { String::new() } else { format!(", thrash: {rate}") };
    let [used, leave, stall] = [*used, *leave, *stall].map(share);
    format!("{{ used: {used}, leave: {leave}, forecast: {forecast}, stall: {stall}{thrash} }}")
}

/// Exact, as the file would have it; what people read in a status is rounded.
fn share(share: Share) -> String {
    let digits = format!("{}.{:04}", share.0 / 10_000, share.0 % 10_000);
    format!("{}%", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn span(span: Span) -> String {
    exact(span.0, &[(60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")])
}

fn bytes(bytes: Bytes) -> String {
    exact(bytes.0, &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")])
}

/// In the largest unit that it is a whole number of.
fn exact(number: u64, units: &[(u64, &str)]) -> String {
    let fits = |(size, _): &&(u64, &str)| number >= *size && number.is_multiple_of(*size);
    units.iter().find(fits).map_or_else(|| "0".into(), |(size, unit)| format!("{}{unit}", number / size))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::*;

    const GIVEN: &str = "preset: aggressive\nhost:\n  critical: { used: 96.25%, forecast: none }\n  \
                         emergency: { thrash: none }\n  dwell: { stall: 0 }\n  reserve: 1.5GiB\n\
                         gpu:\n  critical: { used: 86.5% }\n  claim: 90s\n";

    #[test]
    fn what_is_printed_is_what_results() {
        for (text, mib) in
            [("", 1000), ("", 20 << 20), ("preset: conservative\n", 32 << 10), (GIVEN, 32 << 10)]
        {
            let total = Bytes::mib(mib);
            let read = |text: &str| parse(Path::new("test"), text).unwrap().resolve(total).unwrap();
            let config = read(text);
            let printed = effective(&config, total);
            assert_eq!(read(&printed), config, "{printed}");
        }
    }
}
