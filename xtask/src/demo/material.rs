//! Reads what the guest wrote down.
use std::path::Path;

use anyhow::{Context as _, Result};
use plimsoll_workload::record::{Ending, Reading, Request};
use serde::de::DeserializeOwned;

use super::journal::Journal;

/// Everything that is known of one run.
#[derive(Clone, Debug)]
pub(super) struct Material {
    /// The monitor's readings, every 10 ms.
    pub(super) readings: Vec<Reading>,
    /// Every request of the client.
    pub(super) requests: Vec<Request>,
    /// How it ended.
    pub(super) ending: Ending,
    /// The controller's journal; empty without one.
    pub(super) journal: Journal,
    /// eBPF hooks that the controller had attached, by its last status; none without one.
    pub(super) hooks: Option<usize>,
}

impl Material {
    /// Reads the guest's /out.
    pub(super) fn read(out: &Path) -> Result<Self> {
        let mut endings = lines(&out.join("ending.json"))?;
        Ok(Self {
            readings: lines(&out.join("readings.jsonl"))?,
            requests: lines(&out.join("latency.jsonl"))?,
            ending: endings.pop().context("ending.json is empty")?,
            hooks: hooks(&out.join("status.jsonl"))?,
            journal: Journal::read(&[&out.join("journal.jsonl.1"), &out.join("journal.jsonl")])?,
        })
    }
}

/// Counts what the last status in the file says to be attached.
fn hooks(path: &Path) -> Result<Option<usize>> {
    if !path.exists() {
        return Ok(None);
    }
    let statuses: Vec<serde_json::Value> = lines(path)?;
    let last = statuses.last().context("status.jsonl is empty")?;
    let capabilities = last["status"]["capabilities"].as_array().context("status without capabilities")?;
    let attached = |it: &&serde_json::Value| {
        it["name"].as_str().is_some_and(|name| name.starts_with("hook:")) && it.get("missing").is_none()
    };
    Ok(Some(capabilities.iter().filter(attached).count()))
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))
    };
    text.lines().enumerate().map(parse).collect()
}
