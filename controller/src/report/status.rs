//! What `/status` says: one JSON object for programs, which `plimsoll status` also shows to people.

use plimsoll_policy::assess::thrashing::ThrashState;
use plimsoll_policy::config::DryRun;
use plimsoll_policy::plan::{Act, ActResult, Evidence, Tier, Wanted};
use plimsoll_policy::sample::{Preference, Rung, Workload, WorkloadId};
use plimsoll_policy::units::{Limit, Monotonic, Share, Span};
use serde::{Deserialize, Serialize};

use super::Record;
pub use super::admission::{AdmissionStatus, ReservationStatus, WaitingStatus};
pub use super::asking::{AskingStatus, ConcededStatus};
pub use super::gpus::GpuStatus;
use super::state::State;
use crate::check::Capability;
use crate::kubernetes::PodRef;

/// The daemon at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Since it was started.
    pub uptime_seconds: f64,
    /// What is decided without being done: true, false, or rungs.
    pub dry_run: DryRun,
    /// Until the end of a pause, in which nothing is done at all; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_seconds: Option<f64>,
    /// Process that releases everything if the daemon dies.
    pub guardian_pid: Option<u32>,
    /// The host's memory; absent before the first pass.
    pub host: Option<HostStatus>,
    /// Every GPU.
    #[serde(default)]
    pub gpus: Vec<GpuStatus>,
    /// Every workload, the one that yields first at the top.
    pub workloads: Vec<WorkloadStatus>,
    /// What memory is promised to whom.
    #[serde(default)]
    pub admission: AdmissionStatus,
    /// What the host offers, hooks of the eBPF programs included.
    pub capabilities: Vec<Capability>,
    /// Totals since the start.
    pub totals: TotalsStatus,
}

/// How short the host is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Age of the sample that this is from.
    pub age_seconds: f64,
    /// The tier.
    pub tier: Tier,
    /// The signal that decided it, in words.
    pub because: Option<String>,
    /// Used share, 0 to 1.
    pub used_ratio: Option<f64>,
    /// Until exhaustion.
    pub headroom_bytes: Option<u64>,
    /// Until exhaustion at the present growth.
    pub forecast_seconds: Option<f64>,
    /// What the forecast was made from, or why there is none; absent where memory does not fill.
    #[serde(default)]
    pub forecast: Option<String>,
    /// Share of time that the protected wait for memory, 0 to 1.
    pub stall_ratio: Option<f64>,
    /// What the faults of the protected amount to.
    #[serde(default)]
    pub thrash: ThrashState,
    /// Readings that failed in the last pass.
    pub gaps: Vec<String>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// Its name.
    pub name: String,
    /// Its cgroup, below the root.
    pub cgroup: String,
    /// The pod that it is a container of; absent outside Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// Who yields last.
    pub priority: i32,
    /// Whether it may be touched.
    pub preference: Preference,
    /// What is being done to it.
    pub rung: Rung,
    /// Whether its throttle is no brake but the way back to freedom.
    pub leash: bool,
    /// Why, in words.
    pub evidence: Vec<String>,
    /// What would be done to it if the rung were not dry.
    pub would: Option<WouldStatus>,
    /// For how long it is not let go, however calm it is.
    pub held_off_seconds: Option<f64>,
    /// What it can be asked for and what came of it; absent where there is no way to ask it.
    #[serde(default)]
    pub asking: Option<AskingStatus>,
    /// memory.current.
    pub memory_bytes: Option<u64>,
    /// memory.swap.current.
    pub swap_bytes: Option<u64>,
    /// memory.high, where there is one.
    pub high_bytes: Option<u64>,
    /// memory.low, where there is one.
    pub low_bytes: Option<u64>,
    /// What somebody else has set on it, and what is lived with: `no_swap`, `oom_group`, `memory_high`, `memory_low`,
    /// `memory_min`, `frozen`.
    #[serde(default)]
    pub foreign: Vec<String>,
    /// Whether the kernel says that it is frozen.
    pub frozen: Option<bool>,
    /// Growth, where its memory can be read.
    pub growth_bytes_per_second: Option<i64>,
}

/// What a dry rung would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WouldStatus {
    /// The rung.
    pub rung: Rung,
    /// Number of the action that was not taken.
    pub action: u64,
    /// Why, in words.
    pub evidence: Vec<String>,
}

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TotalsStatus {
    /// Passes.
    pub passes: u64,
    /// Time spent on them.
    pub passes_seconds: f64,
    /// Changes of the tier.
    pub tier_changes: u64,
    /// Actions of every kind.
    pub actions: u64,
    /// Memory that they freed.
    pub freed_bytes: u64,
    /// Workloads killed.
    pub kills: u64,
    /// Passes that the journal lacks.
    pub journal_dropped: u64,
}

/// A workload that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no workload is named {name:?}{}", among(.present))]
pub struct NoSuchWorkload {
    /// The name that was asked for.
    pub name: String,
    /// The names that there are.
    pub present: Vec<String>,
}

fn among(present: &[String]) -> String {
    if present.is_empty() { "; there are none".into() } else { format!("; there are {}", present.join(", ")) }
}

impl Status {
    /// The same with one workload only.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn only(mut self, name: &str) -> Result<Self, NoSuchWorkload> {
        let present = self.workloads.iter().map(|workload| workload.name.clone()).collect();
        self.workloads.retain(|workload| workload.name == name);
        if self.workloads.is_empty() { Err(NoSuchWorkload { name: name.into(), present }) } else { Ok(self) }
    }
}

impl From<&State> for Status {
    fn from(state: &State) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: state.started.elapsed().as_secs_f64(),
            dry_run: state.dry_run.clone(),
            paused_seconds: state.paused_seconds(),
            guardian_pid: state.about.guardian,
            host: state.last.as_ref().map(|(at, record)| host(at.elapsed().as_secs_f64(), record)),
            gpus: state.last.as_ref().map(|(_, record)| super::gpus::gpus(record)).unwrap_or_default(),
            workloads: state.last.as_ref().map(|(_, record)| workloads(record, state)).unwrap_or_default(),
            admission: state.into(),
            capabilities: state.about.capabilities.clone(),
            totals: totals(state),
        }
    }
}

fn host(age_seconds: f64, record: &Record) -> HostStatus {
    let now = &record.assessment;
    HostStatus {
        age_seconds,
        tier: now.tier,
        because: now.because.as_ref().map(|evidence| evidence.at(record.sample.at).to_string()),
        used_ratio: now.used.map(ratio),
        headroom_bytes: now.headroom.map(|bytes| bytes.0),
        forecast_seconds: now.forecast.left().map(Span::as_secs_f64),
        forecast: now.forecast.why().map(Into::into),
        stall_ratio: now.stall.map(ratio),
        thrash: now.thrash,
        gaps: record.sample.gaps.iter().map(|gap| format!("{}: {}", gap.what, gap.why)).collect(),
    }
}

fn workloads(record: &Record, state: &State) -> Vec<WorkloadStatus> {
    let one = |(id, seen): (&WorkloadId, &Workload)| {
        let wanted = &record.plan.workloads[id];
        let growth = record.assessment.growth.get(id).copied().unwrap_or(0);
        WorkloadStatus {
            cgroup: id.path.to_string(),
            pod: state.pods.get(id).cloned(),
            asking: AskingStatus::of(seen, wanted, state.totals.asking.last(id), record.sample.at),
            growth_bytes_per_second: seen.current.map(|_| growth),
            foreign: record
                .others
                .set
                .get(id)
                .map_or_else(Vec::new, |set| set.words().map(Into::into).collect()),
            ..workload(seen, wanted, record.sample.at)
        }
    };
    let mut all: Vec<_> = record.sample.workloads.iter().map(one).collect();
    all.sort_by_key(|workload| (workload.preference, workload.priority));
    all
}

fn workload(seen: &Workload, wanted: &Wanted, now: Monotonic) -> WorkloadStatus {
    WorkloadStatus {
        name: seen.spec.name.clone(),
        cgroup: String::new(),
        pod: None,
        priority: seen.spec.priority,
        preference: seen.spec.preference,
        rung: wanted.rung,
        leash: wanted.leash,
        evidence: words(&wanted.evidence, now),
        would: wanted.would.as_ref().map(|would| WouldStatus {
            rung: would.rung,
            action: would.action,
            evidence: words(&would.evidence, now),
        }),
        held_off_seconds: wanted.held_off.map(|until| until.since(now).as_secs_f64()),
        asking: None,
        memory_bytes: seen.current.map(|bytes| bytes.0),
        swap_bytes: seen.swap.map(|bytes| bytes.0),
        high_bytes: seen.high.and_then(finite),
        low_bytes: seen.low.and_then(finite),
        foreign: Vec::new(),
        frozen: seen.frozen,
        growth_bytes_per_second: None,
    }
}

fn words(evidence: &[Evidence], now: Monotonic) -> Vec<String> {
    evidence.iter().map(|evidence| evidence.at(now).to_string()).collect()
}

fn totals(state: &State) -> TotalsStatus {
    let totals = &state.totals;
    TotalsStatus {
        passes: totals.passes,
        passes_seconds: totals.pass.sum(),
        tier_changes: totals.tier_changes,
        actions: totals.actions.values().sum(),
        freed_bytes: totals.freed.values().sum(),
        kills: totals.of(&Act::Kill, &ActResult::Done),
        journal_dropped: state.journal.as_ref().map_or(0, |counts| counts.dropped()),
    }
}

fn ratio(share: Share) -> f64 {
    f64::from(share.0) / f64::from(Share::ONE.0)
}

/// A limit in bytes; `memory.low` of zero is none.
fn finite(limit: Limit) -> Option<u64> {
    match limit {
        Limit::Bytes(bytes) => Some(bytes.0).filter(|bytes| *bytes > 0),
        Limit::Max => None,
    }
}
