//! A story as people read it: a line wherever the tier, a rung or the gate changed.

use std::fmt::Write;

use plimsoll_policy::concession::Level;
use plimsoll_policy::plan::Wanted;
use plimsoll_policy::replay::Redone;
use plimsoll_policy::sample::{Rung, Sample};
use plimsoll_policy::units::Monotonic;

/// What changes are told of.
pub(crate) fn standing(pass: &Redone) -> String {
    let mut text = pass.assessment.tier.to_string();
    for (id, gpu) in &pass.assessment.gpus {
        let _ = write!(text, ", gpu:{id} {}{}", gpu.tier, if gpu.contested { " contested" } else { "" });
    }
    let told = |w: &Wanted| w.rung > Rung::Free || w.wish.is_some() || w.evict;
    for (id, wanted) in pass.plan.workloads.iter().filter(|(_, w)| told(w)) {
        let _ = write!(text, ", {id} {}", if wanted.leash { "leash" } else { wanted.rung.name() });
        let asked = wanted.wish.as_ref().map(|wish| wish.level);
        let asked = asked.map(|level| if level == Level::Nothing { "restore" } else { level.name() });
        text.push_str(if wanted.evict { " (evict)" } else { "" });
        let _ = asked.map_or(Ok(()), |level| write!(text, " ({level})"));
    }
    if pass.plan.gate.armed() {
        text.push_str(", gate");
    }
    text
}

/// One line: seconds since the first sample, the used share, what stands, and why.
pub(crate) fn line(begun: Monotonic, sample: &Sample, pass: &Redone) -> String {
    let ms = sample.at.since(begun).0 / 1_000_000;
    let used = pass.assessment.used.map_or("gap".into(), |u| u.to_string());
    let because = pass.assessment.because.as_ref().map(|b| serde_json::to_value(b).unwrap());
    let signal = because.as_ref().and_then(|b| b["signal"].as_str()).unwrap_or("-");
    format!("{:>3}.{:03}  {used:>6}  {signal:<8}  {}\n", ms / 1000, ms % 1000, standing(pass))
}
