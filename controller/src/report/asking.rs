//! What came of asking workloads to give memory back: totals, and the last of each workload for `/status`.

use std::collections::BTreeMap;

use plimsoll_policy::concession::{Concession, Gains, Level, Offer};
use plimsoll_policy::plan::{ActResult, Wanted};
use plimsoll_policy::sample::{Sample, Workload, WorkloadId};
use plimsoll_policy::units::Monotonic;
use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::state::result;

/// Sums since the start.
#[derive(Debug, Default)]
pub(super) struct AskingTotals {
    /// By level, way and result.
    pub(super) asked: BTreeMap<(Level, String, &'static str), u64>,
    /// By level and resource. What a restore takes is none of it.
    pub(super) freed: BTreeMap<(Level, String), u64>,
    /// By level.
    pub(super) took: BTreeMap<Level, Histogram>,
    /// Times that somebody said that it was done, and the meters showed too little.
    pub(super) unverified: u64,
    last: BTreeMap<WorkloadId, Concession>,
}

impl AskingTotals {
    /// Takes in what ended since the last sample.
    pub(super) fn pass(&mut self, sample: &Sample) {
        for concession in &sample.conceded {
            self.add(concession);
            self.last.insert(concession.workload.clone(), concession.clone());
        }
        if !sample.conceded.is_empty() {
            self.last.retain(|id, _| sample.workloads.contains_key(id));
        }
    }

    fn add(&mut self, concession: &Concession) {
        let Concession { level, by, result: how, took, freed, .. } = concession;
        *self.asked.entry((*level, by.clone(), result(how))).or_default() += 1;
        self.took.entry(*level).or_default().add(*took);
        self.unverified += u64::from(*how == ActResult::Partial);
        if *level == Level::Nothing {
            return;
        }
        let host = u64::try_from(freed.host).ok().map(|bytes| ("host".to_owned(), bytes));
        let gpus = freed.gpus.iter().map(|(gpu, bytes)| (format!("gpu:{gpu}"), bytes.0));
        for (resource, bytes) in host.into_iter().chain(gpus).filter(|(_, bytes)| *bytes > 0) {
            *self.freed.entry((*level, resource)).or_default() += bytes;
        }
    }

    /// What came of the last asking of a workload that is present.
    pub(super) fn last(&self, id: &WorkloadId) -> Option<&Concession> {
        self.last.get(id)
    }
}

/// The word for a level in metrics and on the screen; [`Level::Nothing`] is asked for to restore.
pub(super) const fn word(level: Level) -> &'static str {
    match level {
        Level::Nothing => "restore",
        level => level.name(),
    }
}

/// How it stands with asking a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AskingStatus {
    /// What it can be asked for, gentlest first.
    pub offers: Vec<String>,
    /// What is in force by its own word.
    pub level: Option<String>,
    /// Requests that it is serving, where it says.
    pub inflight: Option<u32>,
    /// Whether requests are held off while it is away.
    pub gated: bool,
    /// The level that is wanted of it.
    pub wanted: Option<String>,
    /// Whether it is being asked now.
    pub busy: bool,
    /// What came of the last asking.
    pub last: Option<ConcededStatus>,
}

/// What came of an asking.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConcededStatus {
    /// The level; `restore` for the way back.
    pub level: String,
    /// By which ways.
    pub by: String,
    /// `done`, `partial` or `failed`.
    pub result: String,
    /// Why not, where it failed.
    pub why: Option<String>,
    /// How long ago it ended.
    pub ago_seconds: f64,
    /// How long it took.
    pub took_seconds: f64,
    /// What the meters showed, bytes.
    pub freed: Gains,
    /// What it claimed, bytes.
    pub claimed: Option<Gains>,
}

impl AskingStatus {
    /// Of one workload; `None` where there is no way to ask it and never was.
    pub(super) fn of(
        seen: &Workload,
        wanted: &Wanted,
        last: Option<&Concession>,
        now: Monotonic,
    ) -> Option<Self> {
        if seen.offer.is_none() && last.is_none() {
            return None;
        }
        let Offer { levels, level, inflight, busy, gated } = seen.offer.clone().unwrap_or_default();
        Some(Self {
            offers: levels.keys().map(|level| level.name().to_owned()).collect(),
            level: level.map(|level| level.name().to_owned()),
            inflight,
            gated,
            wanted: wanted.wish.as_ref().map(|wish| word(wish.level).to_owned()),
            busy: busy.is_some(),
            last: last.map(|last| conceded(last, now)),
        })
    }
}

fn conceded(last: &Concession, now: Monotonic) -> ConcededStatus {
    let Concession { level, by, result: how, begun, took, freed, claimed, .. } = last;
    ConcededStatus {
        level: word(*level).to_owned(),
        by: by.clone(),
        result: result(how).to_owned(),
        why: if let ActResult::Failed(why) = how { Some(why.clone()) } else { None },
        ago_seconds: now.since(*begun + *took).as_secs_f64(),
        took_seconds: took.as_secs_f64(),
        freed: freed.clone(),
        claimed: claimed.clone(),
    }
}
