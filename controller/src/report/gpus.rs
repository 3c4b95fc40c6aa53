//! How it stands with the GPUs, for `/status`.

use std::collections::BTreeMap;

use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::plan::{GpuAssessment, Tier};
use plimsoll_policy::units::Span;
use serde::{Deserialize, Serialize};

use super::Record;

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuStatus {
    /// Its id, as in `gpu:<id>`.
    pub id: String,
    /// The model's name.
    pub name: String,
    /// The tier; absent where its memory is the host's, or it is lost.
    pub tier: Option<Tier>,
    /// The signal that decided it, in words.
    pub because: Option<String>,
    /// Its memory; absent where it could not be read.
    pub total_bytes: Option<u64>,
    /// What of it is in use; absent where it could not be read.
    pub used_bytes: Option<u64>,
    /// What is promised and not used yet.
    pub reserved_bytes: u64,
    /// Until it is full at the present growth.
    pub forecast_seconds: Option<f64>,
    /// Whether somebody wants more of it.
    pub contested: bool,
    /// Its memory is the host's.
    pub unified: bool,
    /// It fell off the bus, or its driver is gone.
    pub lost: bool,
    /// What the workloads hold of it; absent where nobody knows how much.
    pub holders: BTreeMap<String, Option<u64>>,
}

/// All of them.
pub(super) fn gpus(record: &Record) -> Vec<GpuStatus> {
    record.sample.gpus.iter().map(|(id, gpu)| one(record, id, gpu)).collect()
}

fn one(record: &Record, id: &GpuId, gpu: &Gpu) -> GpuStatus {
    let seen = record.assessment.gpus.get(id);
    let because = seen.and_then(|seen| seen.because.as_ref());
    let workloads = record.sample.workloads.values();
    let holds = workloads.filter_map(|w| Some((w.spec.name.clone(), w.gpus.get(id)?.map(|bytes| bytes.0))));
    GpuStatus {
        id: id.to_string(),
        name: gpu.name.clone(),
        tier: seen.map(|seen| seen.tier),
        because: because.map(|evidence| evidence.at(record.sample.at).to_string()),
        total_bytes: gpu.total.map(|bytes| bytes.0),
        used_bytes: gpu.used.map(|bytes| bytes.0),
        reserved_bytes: record.plan.reservations.iter().map(|r| r.unsettled_on(id).0).sum(),
        forecast_seconds: seen.and_then(|seen| seen.forecast.left()).map(Span::as_secs_f64),
        contested: seen.is_some_and(|seen: &GpuAssessment| seen.contested),
        unified: gpu.unified,
        lost: gpu.lost,
        holders: holds.collect(),
    }
}
