//! What is said on the socket: answers and errors as the interface file has them.

use std::collections::BTreeMap;
use std::fmt;

use plimsoll_policy::admission::{GpuRoom, Reason, Refusal, Reply, Room};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::{Bytes, Share, Span};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zlink::ReplyError;

use super::advice::Advice;

/// Parameters of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Said {
    /// To `Reserve`.
    Granted(Granted),
    /// To `Amend`, `Commit` and `Heartbeat`.
    Standing(Standing),
    /// To `ReportOom`.
    Learned(Learned),
    /// To `Headroom`.
    Headroom(Headroom),
    /// To `GetInfo`.
    Info(Info),
    /// To `GetInterfaceDescription`.
    Description {
        /// The interface file.
        description: &'static str,
    },
    /// To `Register`.
    Registered(Registered),
    /// To `ReportCudaError`.
    Advice(Advice),
    /// To `Self`.
    How(How),
    /// To `Status`.
    Status {
        /// As `plimsoll status --json` prints it.
        status: Value,
    },
    /// To `Explain`.
    Story {
        /// As `plimsoll explain` prints it.
        lines: Vec<String>,
        /// As `plimsoll explain --json` prints it.
        story: Value,
    },
    /// To `Release` and `Pause` of an operator.
    LetGo {
        /// One sentence for each.
        released: Vec<String>,
    },
    /// To `Resume`.
    Resumed {
        /// Whether there was a pause.
        paused: bool,
    },
    /// Where there is nothing to say.
    Nothing {},
}

/// To `Reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Granted {
    pub(crate) id: u64,
    pub(crate) size: u64,
    pub(crate) promised: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) gpus: BTreeMap<String, u64>,
    pub(crate) ttl_seconds: u64,
}

/// To `Register`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Registered {
    pub(super) session: u64,
    pub(super) workload: String,
    pub(super) priority: i32,
    pub(super) protected: bool,
}

/// To `Self`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct How {
    pub(super) workload: String,
    pub(super) cgroup: String,
    pub(super) priority: i32,
    pub(super) protected: bool,
    pub(super) rung: &'static str,
    pub(super) level: &'static str,
    pub(super) sessions: usize,
    pub(super) tiers: BTreeMap<String, &'static str>,
    pub(super) thrash: &'static str,
}

/// What is left of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Standing {
    unsettled: u64,
    ttl_seconds: u64,
}

/// To `ReportOom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Learned {
    margin_percent: u32,
}

/// To `Headroom`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Headroom {
    tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<u64>,
    reserved: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    margin: Option<u64>,
    admissible: u64,
    gpus: BTreeMap<String, GpuHeadroom>,
}

/// Of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct GpuHeadroom {
    tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<u64>,
    reserved: u64,
    admissible: u64,
}

/// To `GetInfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Info {
    vendor: &'static str,
    product: &'static str,
    version: &'static str,
    url: &'static str,
    interfaces: [&'static str; 3],
}

impl Info {
    pub(super) const OURS: Self = Self {
        vendor: "Plimsoll",
        product: "plimsoll",
        version: env!("CARGO_PKG_VERSION"),
        url: env!("CARGO_PKG_REPOSITORY"),
        interfaces: ["org.varlink.service", "dev.plimsoll.Control", "dev.plimsoll.Operator"],
    };

    pub(super) fn knows(&self, interface: &str) -> bool {
        self.interfaces.contains(&interface)
    }
}

/// Errors of `dev.plimsoll.Control`.
#[derive(Clone, Debug, PartialEq, Eq, ReplyError)]
#[zlink(interface = "dev.plimsoll.Control")]
pub enum ControlRefusal {
    /// No room.
    Refused {
        /// The word for why.
        reason: Box<str>,
        /// The same as a sentence.
        message: String,
        /// The least size asked for.
        asked: u64,
        /// What would have been held for it.
        promised: u64,
        /// What there was.
        available: u64,
        /// What of that is kept back.
        margin: u64,
        /// The tier.
        tier: Box<str>,
        /// The GPU that all figures are about; the host where there is none.
        gpu: Option<Box<str>>,
        /// When to ask again.
        #[zlink(rename = "retrySeconds")]
        retry_seconds: Option<u64>,
    },
    /// The caller is in no workload.
    NotAWorkload {
        /// How to become one.
        message: String,
    },
    /// There is none, or it is one of another workload.
    NoSuchSession {
        /// The number that was given.
        session: u64,
    },
    /// Nothing of that number is asked of it.
    NoSuchRequest {
        /// The number that was given.
        request: u64,
    },
    /// There are enough.
    TooManySessions {
        /// How many.
        message: String,
    },
    /// There is none, or it is somebody else's.
    NoSuchReservation {
        /// The number that was given.
        id: u64,
    },
    /// Something is wrong with a parameter.
    BadParameter {
        /// Its name.
        parameter: String,
        /// What is wrong.
        message: String,
    },
}

impl ControlRefusal {
    pub(super) fn is_for(&self, asked: Reason) -> bool {
        matches!(self, Self::Refused { reason, .. } if **reason == *asked.name())
    }
}

impl fmt::Display for ControlRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } => f.write_str(message),
            Self::NotAWorkload { message } | Self::TooManySessions { message } => f.write_str(message),
            Self::NoSuchSession { session } => write!(f, "there is no session {session} of this workload"),
            Self::NoSuchRequest { request } => write!(f, "nothing of the number {request} is asked"),
            Self::NoSuchReservation { id } => write!(f, "there is no reservation {id} of yours"),
            Self::BadParameter { parameter, message } => write!(f, "parameter {parameter}: {message}"),
        }
    }
}

impl std::error::Error for ControlRefusal {}

/// The answer to a call about reservation `id` (of none, where the call is about none).
pub(super) fn said(reply: &Reply, id: u64) -> Result<Said, ControlRefusal> {
    match reply {
        Reply::Granted { id, bytes, promised, gpus, ttl } => Ok(Said::Granted(Granted {
            id: *id,
            size: bytes.0,
            promised: promised.0,
            gpus: gpus.iter().map(|(id, bytes)| (id.to_string(), bytes.0)).collect(),
            ttl_seconds: seconds(*ttl),
        })),
        Reply::Refused(refusal) => Err(refused(refusal)),
        Reply::Done { unsettled, ttl } => {
            Ok(Said::Standing(Standing { unsettled: unsettled.0, ttl_seconds: seconds(*ttl) }))
        }
        Reply::Released => Ok(Said::Nothing {}),
        Reply::NoSuchReservation => Err(ControlRefusal::NoSuchReservation { id }),
        Reply::Learned { margin } => {
            Ok(Said::Learned(Learned { margin_percent: margin.0 / Share::percent(1).0 }))
        }
        Reply::Headroom(room) => Ok(Said::Headroom(headroom(room))),
        Reply::LetGo { held } => Ok(Said::LetGo { released: held.iter().map(let_go).collect() }),
        Reply::Resumed { paused } => Ok(Said::Resumed { paused: *paused }),
    }
}

/// What is undone, as `plimsoll release` has it.
fn let_go((workload, rung): (&WorkloadId, &Rung)) -> String {
    format!("{}: let go, it was on {rung}", workload.path)
}

fn headroom(room: &Room) -> Headroom {
    let bytes = |bytes: Bytes| bytes.0;
    Headroom {
        tier: room.tier.name(),
        available: room.available.map(bytes),
        reserved: room.reserved.0,
        margin: room.margin.map(bytes),
        admissible: room.admissible.0,
        gpus: room.gpus.iter().map(|(id, room)| (id.to_string(), gpu(room))).collect(),
    }
}

fn gpu(room: &GpuRoom) -> GpuHeadroom {
    GpuHeadroom {
        tier: room.tier.name(),
        available: room.available.map(|bytes| bytes.0),
        reserved: room.reserved.0,
        admissible: room.admissible.0,
    }
}

fn refused(refusal: &Refusal) -> ControlRefusal {
    ControlRefusal::Refused {
        reason: refusal.reason.name().into(),
        message: refusal.to_string(),
        asked: refusal.asked.0,
        promised: refusal.promised.0,
        available: refusal.available.0,
        margin: refusal.margin.0,
        tier: refusal.tier.name().into(),
        gpu: refusal.gpu.as_ref().map(|gpu| gpu.to_string().into()),
        retry_seconds: refusal.retry.map(seconds),
    }
}

/// Rounded up: what lasts a moment does not last zero seconds.
fn seconds(span: Span) -> u64 {
    span.0.div_ceil(1_000_000_000)
}
