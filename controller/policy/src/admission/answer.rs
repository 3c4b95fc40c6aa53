//! What clients are told, with the numbers that it was decided on.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gpu::GpuId;
use crate::plan::Tier;
use crate::sample::{Rung, WorkloadId};
use crate::units::{Bytes, Share, Span, is_default};

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Number of the call.
    pub ticket: u64,
    /// What is said to it.
    pub reply: Reply,
}

/// What can be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Room is reserved.
    Granted {
        /// The reservation.
        id: u64,
        /// The size that was chosen.
        bytes: Bytes,
        /// What is held for it: the size, and what it needed more than asked in the past.
        promised: Bytes,
        /// What is held on which GPU, the same.
        #[serde(default, skip_serializing_if = "is_default")]
        gpus: BTreeMap<GpuId, Bytes>,
        /// It lasts so long without a heartbeat.
        ttl: Span,
    },
    /// No room.
    Refused(Refusal),
    /// A call about a reservation was obeyed.
    Done {
        /// Bytes still held for it.
        unsettled: Bytes,
        /// It lasts so long without a heartbeat.
        ttl: Span,
    },
    /// What was held is held no longer.
    Released,
    /// There is no such reservation, or it belongs to somebody else.
    NoSuchReservation,
    /// The reported lack of memory was taken note of.
    Learned {
        /// So much more than asked is reserved for it from now on.
        margin: Share,
    },
    /// What there is.
    Headroom(Room),
    /// An operator was obeyed: these are let go.
    LetGo {
        /// On which rung they were.
        held: BTreeMap<WorkloadId, Rung>,
    },
    /// An operator was obeyed: nothing is held off any more.
    Resumed {
        /// Whether something was.
        paused: bool,
    },
}

/// What there is to be granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The tier.
    pub tier: Tier,
    /// Bytes until exhaustion, less what is reserved; `None` where the memory could not be read.
    pub available: Option<Bytes>,
    /// Bytes reserved and not yet used.
    pub reserved: Bytes,
    /// Bytes that nobody is granted; `None` where nothing is granted at all.
    pub margin: Option<Bytes>,
    /// The most that a request which does not wait would be granted.
    pub admissible: Bytes,
    /// The same of every GPU whose memory is a resource of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: BTreeMap<GpuId, GpuRoom>,
}

/// What there is to be granted of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuRoom {
    /// Its tier.
    pub tier: Tier,
    /// Bytes until it is full, less what is reserved; `None` where it could not be read.
    pub available: Option<Bytes>,
    /// Bytes reserved and not yet used.
    pub reserved: Bytes,
    /// The most that a request which does not wait would be granted.
    pub admissible: Bytes,
}

/// Why there is no room, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The least of the sizes that were asked for.
    pub asked: Bytes,
    /// What would have been held for it.
    pub promised: Bytes,
    /// Bytes until exhaustion, less what is reserved.
    pub available: Bytes,
    /// Bytes of these that nobody is granted.
    pub margin: Bytes,
    /// The tier.
    pub tier: Tier,
    /// The device that all these figures are about; `None` = the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuId>,
    /// When it is worth to ask again; `None` = never.
    pub retry: Option<Span>,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It does not fit.
    NoRoom,
    /// It would fit, but somebody who is as important or more has waited longer for these bytes.
    Behind,
    /// Memory is so short that nothing is granted.
    Tier,
    /// It will never fit on this machine.
    TooLarge,
    /// So many reservations are more than anybody needs.
    TooMany,
    /// The machine's memory could not be read.
    Unknown,
    /// The caller is in no workload (yet), and only those may reserve.
    Stranger,
    /// The controller is about to leave.
    Stopping,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoRoom,
        Self::Behind,
        Self::Tier,
        Self::TooLarge,
        Self::TooMany,
        Self::Unknown,
        Self::Stranger,
        Self::Stopping,
    ];

    /// The word used on the control socket, in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::Behind => "behind",
            Self::Tier => "tier",
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::Unknown => "unknown",
            Self::Stranger => "stranger",
            Self::Stopping => "stopping",
        }
    }

    /// Whether time may help.
    pub(super) const fn may_pass(self) -> bool {
        matches!(self, Self::NoRoom | Self::Behind | Self::Tier | Self::Unknown | Self::Stranger)
    }
}

/// A sentence for people, without a full stop.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, asked, promised, available, margin, tier, gpu, retry } = self;
        if let Some(gpu) = gpu {
            write!(f, "on gpu:{gpu}: ")?;
        }
        match reason {
            Reason::NoRoom | Reason::Behind => {
                write!(f, "{asked} asked for")?;
                if promised > asked {
                    write!(f, " ({promised} with what it needed more than asked before)")?;
                }
                write!(f, ", {available} available, of which {margin} are kept back at tier {tier}")?;
                if *reason == Reason::Behind {
                    f.write_str(", and the rest is for those who wait already and matter as much or more")?;
                }
            }
            Reason::Tier => write!(f, "nothing is granted at tier {tier} ({available} available)")?,
            Reason::TooLarge => {
                let whole = if gpu.is_some() { "it" } else { "this machine" };
                write!(f, "{promised} and {margin} kept back are more than {whole} has")?;
            }
            Reason::TooMany => f.write_str("there are too many reservations")?,
            Reason::Unknown if gpu.is_some() => {
                f.write_str("there is no such device, or it can't be read")?;
            }
            Reason::Unknown => f.write_str("the machine's memory could not be read")?,
            Reason::Stranger => {
                f.write_str("only workloads may reserve memory, and the caller is in none")?;
            }
            Reason::Stopping => f.write_str("the controller is about to leave")?,
        }
        retry.map_or(Ok(()), |retry| write!(f, "; try again in {retry}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_numbers() {
        let refusal = Refusal {
            reason: Reason::NoRoom,
            asked: Bytes::mib(6 << 10),
            promised: Bytes::mib(6 << 10),
            available: Bytes::mib(4 << 10),
            margin: Bytes::mib(1536),
            tier: Tier::Normal,
            gpu: None,
            retry: Some(Span::secs(10)),
        };
        let check = |refusal: Refusal, expected: &str| assert_eq!(refusal.to_string(), expected);
        let numbers = "6GiB asked for, 4GiB available, of which 1.5GiB are kept back at tier normal";
        check(refusal.clone(), &format!("{numbers}; try again in 10.0s"));
        let learned = Refusal { promised: Bytes::mib(7 << 10), retry: None, ..refusal.clone() };
        let learned_more = numbers.replace("for,", "for (7GiB with what it needed more than asked before),");
        check(learned, &learned_more);
        let tier = Refusal { reason: Reason::Tier, tier: Tier::Critical, retry: None, ..refusal };
        check(tier, "nothing is granted at tier critical (4GiB available)");
    }
}
