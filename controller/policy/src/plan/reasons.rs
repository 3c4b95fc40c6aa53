//! Why something is done, or is not: facts with their numbers, and what was considered and refused.

use serde::{Deserialize, Serialize};

use super::{ActResult, Tier};
use crate::appetite::Claim;
use crate::assess::forecast::Source;
use crate::concession::{Gains, Level};
use crate::gpu::GpuId;
use crate::sample::{Rung, WorkloadId};
use crate::units::{Bytes, Monotonic, Share, Span};

/// A fact with its number and the threshold it was held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "signal", rename_all = "snake_case")]
pub enum Evidence {
    /// Used share of the resource.
    Used {
        /// Measured.
        share: Share,
        /// Threshold crossed.
        threshold: Share,
    },
    /// Time until exhaustion.
    Forecast {
        /// Estimated.
        left: Span,
        /// By what was seen here.
        source: Source,
        /// Threshold crossed.
        threshold: Span,
    },
    /// Stall of the protected.
    Stall {
        /// Measured.
        share: Share,
        /// Threshold crossed.
        threshold: Share,
    },
    /// Refaults and major faults of the protected.
    Thrash {
        /// Measured events per second.
        per_second: u64,
        /// Threshold crossed.
        threshold: u64,
    },
    /// The tier asked for it.
    Tier {
        /// Tier of the resource.
        tier: Tier,
        /// Bytes that were still wanted when this workload's turn came.
        deficit: Bytes,
    },
    /// What the action is expected to free.
    Yield {
        /// Bytes expected.
        expected: Bytes,
    },
    /// It grows while the resource is short.
    Growth {
        /// Bytes per second.
        bytes_per_second: i64,
    },
    /// Nothing gentler can free what survival needs.
    NothingGentler {
        /// Bytes that all gentler rungs together would free.
        gentler: Bytes,
        /// Bytes needed.
        needed: Bytes,
    },
    /// An earlier rung is held until its time is up.
    Hold {
        /// Until then.
        until: Monotonic,
    },
    /// The lease was withdrawn since it did not help.
    Futile {
        /// What was in force.
        rung: Rung,
    },
    /// The resource is calm again.
    Calm {
        /// For that long.
        since: Monotonic,
    },
    /// It was frozen for as long as its probes bear.
    Probed {
        /// That is so long.
        most: Span,
    },
    /// This node can't hold it: it is braked, and the node does not become calm.
    Unheld {
        /// For so long.
        braked: Span,
    },
    /// What goes by its name was killed, and is here again.
    Restarted {
        /// Kills lately.
        kills: u32,
        /// Its leash is not taken off before this.
        until: Monotonic,
    },
    /// It was braked and let go again and again: it is not let go for a while.
    Oscillation {
        /// Times that it was let go and braked again.
        cycles: u32,
        /// Within this time.
        within: Span,
        /// Not let go before this.
        until: Monotonic,
    },
    /// It was braked as often as an hour allows: it is not let go before there is room for another brake.
    Budget {
        /// Brakes within the hour.
        brakes: u32,
        /// Not let go before this.
        until: Monotonic,
    },
    /// What it is asked for.
    Asked {
        /// The level to be on.
        level: Level,
    },
    /// What it gave when it was asked, as the meters had it.
    Conceded {
        /// The level.
        level: Level,
        /// By which way.
        by: String,
        /// How it ended.
        result: ActResult,
        /// Measured.
        freed: Gains,
        /// In its own words, where it said anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claimed: Option<Gains>,
        /// Until that was seen, or it was given up.
        took: Span,
    },
    /// It was asked and nothing came of it in time.
    Unanswered {
        /// The level.
        level: Level,
        /// The deadline.
        within: Span,
    },
    /// It was offloaded or unloaded, and a request undid it.
    Reloaded {
        /// Times.
        times: u32,
        /// Within this time.
        within: Span,
        /// Not asked again before this.
        until: Option<Monotonic>,
    },
    /// Somebody wants more of the resource.
    Claimed {
        /// Who.
        by: WorkloadId,
        /// How that shows.
        claim: Claim,
    },
    /// One of the protected was refused memory again and again, however much is free.
    Insists {
        /// Who.
        by: WorkloadId,
        /// Times.
        times: u32,
        /// From the first to the last one.
        within: Span,
    },
    /// A fact about a GPU; all others are about the host, or about the workload itself.
    OnGpu {
        /// Which.
        gpu: GpuId,
        /// The fact.
        fact: Box<Evidence>,
    },
}

/// An action that was considered and not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Of whom.
    pub workload: WorkloadId,
    /// The rung that it would have been put on.
    pub rung: Rung,
    /// Why not.
    pub why: Refusal,
}

impl Refused {
    /// The most that one action lists.
    pub const MOST: usize = 8;
}

/// Why an alternative was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refusal {
    /// It brings something, but not enough.
    TooLittle {
        /// Bytes that it would bring in time.
        yields: Bytes,
        /// Bytes that were wanted of it.
        needed: Bytes,
    },
    /// It would bring enough, but not in time.
    TooSlow {
        /// Until enough of it were there.
        takes: Span,
        /// Until it has to be there.
        left: Span,
    },
    /// There is nothing that it could free or stop.
    Nothing,
    /// The ladder or the workload's own rungs leave it out.
    NotAllowed,
    /// It was braked as often as an hour allows, and survival is not at stake.
    Spent {
        /// Brakes within the hour.
        brakes: u32,
    },
    /// It did not help the last time.
    Futile {
        /// Not tried again before this.
        until: Monotonic,
    },
    /// It was frozen, and its probes have to succeed before it is again.
    Probed {
        /// Not frozen before this.
        until: Monotonic,
    },
    /// The workload would go on growing into swap by as much a second.
    Spills {
        /// Bytes per second.
        growth: Bytes,
    },
    /// The tier does not call for it.
    Tier {
        /// The tier in force.
        tier: Tier,
    },
    /// It is on this rung already and gives what it can.
    Gives {
        /// The rung.
        rung: Rung,
    },
    /// It can't be asked for this, at least not now.
    NotOffered {
        /// The level.
        level: Level,
    },
    /// It is frozen, and can't answer.
    Frozen,
    /// It would move memory to the host, which has no room for it.
    NoHostRoom {
        /// What it would move.
        moves: Bytes,
        /// What the host has room for.
        room: Bytes,
    },
    /// Requests undo it.
    Reloads {
        /// Not asked again before this.
        until: Monotonic,
    },
    /// The resource is full, and nobody needs more of it.
    Uncontested,
    /// It was killed and did not die in time.
    Undying,
    /// It ends in order, for another node to start it.
    Leaves,
    /// Its preference is `omit`.
    Omit,
    /// Its priority is one of those that are protected.
    Protected,
    /// Its memory could not be read.
    Unreadable,
}
