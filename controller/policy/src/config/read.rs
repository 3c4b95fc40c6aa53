//! From a tree to a `Config`, or to every mistake in it at once.

use super::admission::admission;
use super::ask::ask;
use super::daemon::daemon;
use super::error::ConfigError;
use super::gpu::gpu;
use super::host::host;
use super::kubernetes::kubernetes;
use super::ladder::ladder;
use super::node::Node;
use super::pace::pace;
use super::preset::{Preset, Size, SizedHost};
use super::rules::{contradictions, rule};
use super::scalar::{OneOf, Whole};
use super::section::{Section, within};
use super::{Config, HostThresholds, Rule};

/// A signed 32-bit number, the scale of a Kubernetes `PriorityClass`.
pub(super) const PRIORITY: Whole = Whole(i32::MIN as i128, i32::MAX as i128);

/// Reads the whole configuration. Absent keys have their defaults.
///
/// # Errors
/// Every mistake that the tree contains, in the order of the sections.
pub fn read(tree: &Node) -> Result<Config, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let config = within(String::new(), tree, &mut errors, config);
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

fn config(root: &mut Section<'_>) -> Config {
    let mut preset = Preset::Default;
    root.set("preset", &mut preset, &OneOf(&Preset::ALL));
    let (host, by_size) = hosts(root, preset);
    let gpu = root.section("gpu", |section| gpu(section, preset));
    let ladder = root.section("ladder", ladder);
    let pace = root.section("pace", pace);
    let ask = root.section("ask", ask);
    let mut protect_priority = Config::default().protect_priority;
    priority(root, "protect_priority", &mut protect_priority);
    let workloads: Vec<Rule> = root.sections("workloads", rule);
    let admission = root.section("admission", admission);
    let kubernetes = root.section("kubernetes", kubernetes);
    let daemon = root.section("daemon", daemon);
    if root.clean() {
        contradictions(root, &workloads, &ladder);
    }
    Config {
        preset,
        host,
        by_size,
        gpu,
        ladder,
        pace,
        ask,
        workloads,
        protect_priority,
        admission,
        kubernetes,
        daemon,
    }
}

/// The section `host` over the preset's table for every size. It is wrong where it is wrong on hosts of every size;
/// what is right on some is refused on the others, when the size is known.
fn hosts(root: &mut Section<'_>, preset: Preset) -> (HostThresholds, Vec<SizedHost>) {
    root.expect("host");
    let of = |size| root.again("host", |section| host(section, preset.thresholds(size)));
    let by_size: Vec<_> = Size::ALL.into_iter().map(|size| SizedHost { size, host: of(size) }).collect();
    match by_size.iter().find_map(|sized| sized.host.as_ref().ok()) {
        Some(host) => (host.clone(), by_size),
        None => {
            let first = by_size.first().and_then(|sized| sized.host.as_ref().err());
            root.blame(first.cloned().unwrap_or_default());
            (preset.thresholds(Size::Small), by_size)
        }
    }
}

/// Reads a priority into its place.
pub(super) fn priority(section: &mut Section<'_>, key: &'static str, place: &mut i32) {
    if let Some(number) = section.get(key, &PRIORITY).and_then(|number| i32::try_from(number).ok()) {
        *place = number;
    }
}
