//! The block of the GPUs in the status for people.

use std::fmt::{Result, Write};

use plimsoll_policy::plan::Tier;
use plimsoll_policy::units::Bytes;

use super::{duration, percent};
use crate::report::gpus::GpuStatus;

/// Two lines for each, and one with who holds it.
pub(super) fn gpus(gpus: &[GpuStatus], out: &mut String) -> Result {
    gpus.iter().try_for_each(|gpu| one(gpu, out))
}

fn one(gpu: &GpuStatus, out: &mut String) -> Result {
    let GpuStatus { id, name, because, reserved_bytes, forecast_seconds, holders, .. } = gpu;
    let name = if name.is_empty() { String::new() } else { format!(", {name}") };
    let because = because.as_ref().map(|words| format!(" ({words})")).unwrap_or_default();
    writeln!(out, "gpu        {}{because}: gpu:{id}{name}", standing(gpu))?;
    let level = match (gpu.used_bytes, gpu.total_bytes) {
        (Some(used), Some(total)) if total > 0 => {
            let share = percent(used as f64 / total as f64);
            Some(format!("{share} used, {} of {}", Bytes(used), Bytes(total)))
        }
        _ if gpu.unified || gpu.lost => None,
        _ => Some("not read".into()),
    };
    let facts = [
        level,
        (*reserved_bytes > 0).then(|| format!("{} promised", Bytes(*reserved_bytes))),
        forecast_seconds.map(|left| format!("full in {}", duration(left))),
        contested(gpu).map(Into::into),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    if !facts.is_empty() {
        writeln!(out, "           {}", facts.join(", "))?;
    }
    let held = |(name, bytes): (&String, &Option<u64>)| {
        let bytes = bytes.map_or_else(|| "nobody knows how much".into(), |bytes| Bytes(bytes).to_string());
        format!("{name} {bytes}")
    };
    let held: Vec<String> = holders.iter().map(held).collect();
    if held.is_empty() { Ok(()) } else { writeln!(out, "           held by {}", held.join(", ")) }
}

fn standing(gpu: &GpuStatus) -> String {
    match gpu.tier {
        _ if gpu.lost => "lost: it fell off the bus, or its driver is gone".into(),
        Some(tier) => tier.to_string(),
        None => "unified: its memory is the host's".into(),
    }
}

/// Nothing is said of one that has room.
fn contested(gpu: &GpuStatus) -> Option<&'static str> {
    let tier = gpu.tier.filter(|tier| *tier > Tier::Normal)?;
    Some(match gpu.contested {
        true => "contested: somebody wants more of it",
        false if tier >= Tier::Critical => "not contested: nobody has to make room",
        false => "not contested",
    })
}
