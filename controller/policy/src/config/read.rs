//! From a tree to a `Config`, or to every mistake in it at once.

use super::admission::admission;
use super::daemon::daemon;
use super::error::ConfigError;
use super::host::host;
use super::ladder::ladder;
use super::node::Node;
use super::pace::pace;
use super::rules::{contradictions, rule};
use super::scalar::Whole;
use super::section::{Section, within};
use super::{Config, Rule};

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
    let host = root.section("host", host);
    let ladder = root.section("ladder", ladder);
    let pace = root.section("pace", pace);
    let mut protect_priority = Config::default().protect_priority;
    priority(root, "protect_priority", &mut protect_priority);
    let workloads: Vec<Rule> = root.sections("workloads", rule);
    let admission = root.section("admission", admission);
    let daemon = root.section("daemon", daemon);
    if root.clean() {
        contradictions(root, &workloads, &ladder);
    }
    Config { host, ladder, pace, workloads, protect_priority, admission, daemon }
}

/// Reads a priority into its place.
pub(super) fn priority(section: &mut Section<'_>, key: &'static str, place: &mut i32) {
    if let Some(number) = section.get(key, &PRIORITY).and_then(|number| i32::try_from(number).ok()) {
        *place = number;
    }
}
