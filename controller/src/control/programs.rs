//! The calls of programs that can be asked: what they mean, read from their parameters.

use std::collections::BTreeMap;

use plimsoll_policy::concession::{Gains, Level, Prospect};
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::units::{Bytes, Span};
use serde::Deserialize;

use super::calls::Rejection;
use super::counts::CudaError;
use super::parameters::{Parameters, wrong};
use super::sessions::{Offered, Said};
use crate::ask::way::{Answered, WayError};

/// GPUs that one offer or answer may name.
const GPUS: usize = 64;
/// What is kept of a text that somebody else wrote.
const TEXT: usize = 256;
const NUMBER: std::ops::RangeInclusive<u64> = 0..=i64::MAX as u64;
const REQUESTS: std::ops::RangeInclusive<u64> = 0..=1_000_000;

/// One call.
#[derive(Debug)]
pub(super) enum ProgramCall {
    Register(Offered),
    Acknowledge { session: u64, request: u64, said: Said },
    Inflight { session: u64, requests: u32 },
    Failed(CudaFailure),
    Standing,
}

/// A CUDA call that failed.
#[derive(Debug)]
pub(super) struct CudaFailure {
    /// `None` where it is not known.
    pub(super) gpu: Option<GpuId>,
    pub(super) error: String,
    pub(super) kind: CudaError,
    /// How often in a row, as the program counts.
    pub(super) strikes: u64,
}

/// Reads a call; `None` where the method is none of these.
pub(super) fn read(name: &str, given: &mut Parameters) -> Option<Result<ProgramCall, Rejection>> {
    Some(match name {
        "Register" => register(given),
        "Acknowledge" => acknowledge(given),
        "Inflight" => inflight(given),
        "ReportCudaError" => failed(given),
        "Self" => Ok(ProgramCall::Standing),
        _ => return None,
    })
}

/// `Offered` of the interface.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OneOffer {
    level: Level,
    gains: Option<Freed>,
    takes_milliseconds: Option<u64>,
}

/// `Gains` of the interface.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Freed {
    host: Option<i64>,
    gpus: Option<BTreeMap<String, u64>>,
}

impl Freed {
    fn gains(self) -> Option<Gains> {
        let gpus = self.gpus.unwrap_or_default();
        let sane = gpus.len() <= GPUS && gpus.keys().all(|id| id.len() <= TEXT);
        let gpus = gpus.into_iter().map(|(id, bytes)| (GpuId::from(id), Bytes(bytes))).collect();
        sane.then_some(Gains { host: self.host.unwrap_or_default(), gpus })
    }
}

const FREED: &str =
    "has to have `host`, a whole number, and `gpus`, whole numbers of bytes by id of at most 64 GPUs";
const OFFERS: &str = "has to be a list with each level (gc, aggressive, offload, unload) at most once, its `gains` and \
    `takesMilliseconds`";

fn register(given: &mut Parameters) -> Result<ProgramCall, Rejection> {
    let offers: Vec<OneOffer> = given.some("offers", OFFERS)?;
    let mut levels = BTreeMap::new();
    for OneOffer { level, gains, takes_milliseconds } in offers {
        let gains = match gains.map(Freed::gains) {
            Some(None) => return Err(wrong("offers", FREED).into()),
            gains => gains.flatten(),
        };
        let takes = takes_milliseconds.map(|ms| Span(ms.saturating_mul(1_000_000)));
        let twice = levels.insert(level, Prospect { gains, takes }).is_some();
        if twice || level == Level::Nothing {
            return Err(wrong("offers", OFFERS).into());
        }
    }
    Ok(ProgramCall::Register(Offered { levels, gated: given.flag("gated")? }))
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Done,
    Partial,
    Failed,
    Refused,
}

fn acknowledge(given: &mut Parameters) -> Result<ProgramCall, Rejection> {
    let (session, request) = (given.needed("session", NUMBER)?, given.needed("request", NUMBER)?);
    let outcome = given.some("outcome", "has to be done, partial, failed or refused")?;
    let claimed = match given.any::<Freed>("freed", FREED)?.map(Freed::gains) {
        Some(None) => return Err(wrong("freed", FREED).into()),
        claimed => claimed.flatten(),
    };
    let message = given.text("message")?.map(|text| short(&text));
    let why = |word: &str| message.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| word.into());
    let said = match outcome {
        Outcome::Done | Outcome::Partial => Ok(Answered { claimed }),
        Outcome::Failed => Err(WayError::Refused(format!("failed: {}", why("it does not say why")))),
        Outcome::Refused => Err(WayError::Refused(why("it does not say why"))),
    };
    Ok(ProgramCall::Acknowledge { session, request, said })
}

fn inflight(given: &mut Parameters) -> Result<ProgramCall, Rejection> {
    let session = given.needed("session", NUMBER)?;
    let requests = u32::try_from(given.needed("requests", REQUESTS)?).unwrap_or(u32::MAX);
    Ok(ProgramCall::Inflight { session, requests })
}

fn failed(given: &mut Parameters) -> Result<ProgramCall, Rejection> {
    let gpu = given.text("device")?.filter(|id| !id.is_empty());
    if gpu.as_ref().is_some_and(|id| id.len() > TEXT) {
        return Err(wrong("device", "has to be the id of a GPU").into());
    }
    let error = short(&given.some::<String>("error", "has to be a string")?);
    let out_of_memory = given.some("outOfMemory", "has to be true or false")?;
    let sticky = given.flag("sticky")?;
    let strikes = given.number("strikes", NUMBER)?.unwrap_or(1);
    // A lost context is no lack of memory, whatever was lacking when it was lost.
    let kind = match (sticky, out_of_memory) {
        (true, _) => CudaError::Sticky,
        (false, true) => CudaError::OutOfMemory,
        (false, false) => CudaError::Other,
    };
    Ok(ProgramCall::Failed(CudaFailure { gpu: gpu.map(GpuId::from), error, kind, strikes }))
}

/// In one line, and not more than anybody reads.
fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT).collect()
}
