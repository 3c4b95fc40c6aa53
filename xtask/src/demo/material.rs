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
}

impl Material {
    /// Reads the guest's /out.
    pub(super) fn read(out: &Path) -> Result<Self> {
        let mut endings = lines(&out.join("ending.json"))?;
        Ok(Self {
            readings: lines(&out.join("readings.jsonl"))?,
            requests: lines(&out.join("latency.jsonl"))?,
            ending: endings.pop().context("ending.json is empty")?,
            journal: Journal::read(&[&out.join("journal.jsonl.1"), &out.join("journal.jsonl")])?,
        })
    }
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parse = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))
    };
    text.lines().enumerate().map(parse).collect()
}
