//! The controller's own account of a run, from its journal: tier, rungs, and what it did when.
use std::path::Path;

use anyhow::{Context as _, Result};
use plimsoll_policy::journal::{Entry, Line};
use plimsoll_policy::plan::{Act, ActResult, Outcome, Tier};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::Limit;

/// What the controller saw, wanted and did, in the order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// State after each pass.
    pub(super) moments: Vec<Moment>,
    /// Everything that was done to a workload in order to free memory, or to undo that.
    pub(super) actions: Vec<Action>,
}

/// One pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// When its sample was taken, in nanoseconds on the guest's monotonic clock.
    pub(super) at_ns: u64,
    /// The host's tier.
    pub(super) tier: Tier,
    /// The server's rung.
    pub(super) server: Rung,
    /// The batch job's rung.
    pub(super) batch: Rung,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Action {
    /// When it was begun.
    pub(super) at_ns: u64,
    /// `server` or `batch`.
    pub(super) whom: String,
    /// What.
    pub(super) act: Act,
    /// How it ended.
    pub(super) result: ActResult,
    /// Bytes that it freed, where that was its purpose.
    pub(super) freed: u64,
}

impl Action {
    /// Whether it takes something away from the workload, as opposed to giving back or protecting.
    pub(super) fn mitigates(&self) -> bool {
        let takes =
            matches!(self.act, Act::Reclaim(_) | Act::High(Limit::Bytes(_)) | Act::Freeze | Act::Kill);
        takes && matches!(self.result, ActResult::Done | ActResult::Partial)
    }
}

impl Journal {
    /// Reads the files that are there, oldest first.
    pub(super) fn read(files: &[&Path]) -> Result<Self> {
        let mut journal = Self::default();
        for file in files.iter().filter(|file| file.exists()) {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            for (number, line) in text.lines().enumerate() {
                let entry = serde_json::from_str(line)
                    .with_context(|| format!("{}, line {}", file.display(), number + 1))?;
                if let Entry::Line(line) = entry {
                    journal.take(&line);
                }
            }
        }
        journal.actions.sort_by_key(|action| action.at_ns);
        Ok(journal)
    }

    fn take(&mut self, line: &Line<'_>) {
        let rung = |name| {
            let mut wanted = line.plan.iter().flat_map(|plan| &plan.workloads);
            wanted.find(|(id, _)| short(id) == name).map_or(Rung::Free, |(_, wanted)| wanted.rung)
        };
        self.moments.push(Moment {
            at_ns: line.sample.at.0,
            tier: line.assessment.as_ref().map(|it| it.tier).unwrap_or_default(),
            server: rung("server"),
            batch: rung("batch"),
        });
        self.actions.extend(line.sample.outcomes.iter().cloned().map(action));
    }
}

fn action(outcome: Outcome) -> Action {
    Action {
        at_ns: outcome.begun.0,
        whom: short(&outcome.workload).to_owned(),
        act: outcome.act,
        result: outcome.result,
        freed: outcome.freed.map_or(0, |bytes| bytes.0),
    }
}

/// The last part of a workload's path: the demo's cgroups differ in it.
fn short(id: &WorkloadId) -> &str {
    id.path.rsplit('/').next().unwrap_or(&id.path)
}
