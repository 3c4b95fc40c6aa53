//! The node's condition `plimsoll.dev/MemoryTier`: when it is written, and what it says.

use std::time::Duration;

use hyper::Method;
use k8s_openapi::jiff::Timestamp;
use plimsoll_policy::plan::Tier;
use serde_json::json;
use tokio::time::Instant;

use super::call::{Call, STRATEGIC};
use super::counts::What;
use super::happening::plain;
use super::standing::Standing;
use super::steady::{Holds, Levels};
use crate::kubernetes::backoff::Dice;

/// Its type.
pub(super) const CONDITION: &str = "plimsoll.dev/MemoryTier";
/// True from here on, like the kubelet's `MemoryPressure`: true is bad.
const HOLDS_FROM: Tier = Tier::Constrained;
/// A burst of a second is for metrics, not for a condition.
const HOLDS: Holds = Holds { up: Duration::from_secs(2), down: Duration::from_secs(30) };
/// Between two writes that nothing calls for. Kubelets write their conditions as seldom.
const BEAT: Duration = Duration::from_secs(300);
/// So much of that may be added.
const BEAT_SPREAD: Duration = Duration::from_secs(60);
/// Between two writes.
const GAP: Duration = Duration::from_secs(10);

/// The condition of this node.
#[derive(Debug)]
pub(super) struct Condition {
    levels: Levels<Tier>,
    /// As the API server has it; `None` before the first write.
    written: Option<Tier>,
    shown: Tier,
    /// Whether it holds, and since when.
    holds: bool,
    since: Timestamp,
    beat: Instant,
    not_before: Instant,
}

impl Condition {
    /// `there` is what an earlier run left: whether it held, and since when.
    pub(super) fn new(there: Option<(bool, Option<Timestamp>)>, now: Instant, dice: &mut Dice) -> Self {
        let levels = Tier::ALL[1..].iter().map(|tier| (*tier, HOLDS)).collect::<Vec<_>>();
        let (holds, since) = there.unwrap_or_default();
        let shown = if holds { HOLDS_FROM } else { Tier::Normal };
        Self {
            levels: Levels::new(&levels, Some(shown), now, dice),
            written: None,
            shown,
            holds,
            since: since.unwrap_or_else(Timestamp::now),
            beat: now,
            not_before: now,
        }
    }

    /// Takes the node's standing as it is now.
    pub(super) fn look(&mut self, standing: &Standing, now: Instant, dice: &mut Dice) {
        self.shown = self.levels.look(Some(standing.worst()), now, dice).unwrap_or_default();
    }

    /// When there is something to write, or may be.
    pub(super) fn due(&self) -> Instant {
        let due = self.levels.due().map_or(self.beat, |due| due.min(self.beat));
        if self.is_new() { self.not_before } else { due.max(self.not_before) }
    }

    /// What to write now. `standing` has the numbers.
    pub(super) fn write(&mut self, node: &str, standing: &Standing, now: Instant) -> Option<Call> {
        if self.not_before > now || !(self.is_new() || self.beat <= now) {
            return None;
        }
        let (holds, at) = (self.shown >= HOLDS_FROM, Timestamp::now());
        if holds != self.holds {
            (self.holds, self.since) = (holds, at);
        }
        let condition = json!({
            "type": CONDITION,
            "status": if holds { "True" } else { "False" },
            "reason": reason(self.shown),
            "message": plain(&standing.to_string()),
            "lastHeartbeatTime": seconds(at),
            "lastTransitionTime": seconds(self.since),
        });
        Some(patch(node, &condition))
    }

    /// It was written.
    pub(super) fn written(&mut self, now: Instant, dice: &mut Dice) {
        self.written = Some(self.shown);
        self.beat = now + BEAT + dice.below(BEAT_SPREAD);
        self.not_before = now + GAP;
    }

    /// It could not be written.
    pub(super) fn failed(&mut self, pause: Duration, now: Instant) {
        self.not_before = now + pause;
    }

    fn is_new(&self) -> bool {
        self.written != Some(self.shown)
    }
}

/// Nobody vouches for it any more: a reader is to see nothing rather than a calm that nobody looks after.
pub(super) fn removal(node: &str) -> Call {
    patch(node, &json!({ "$patch": "delete", "type": CONDITION }))
}

/// Conditions are merged by their type, so that all others are left as they are.
fn patch(node: &str, condition: &serde_json::Value) -> Call {
    Call {
        what: What::Condition,
        method: Method::PATCH,
        path: format!("/api/v1/nodes/{node}/status"),
        content: STRATEGIC,
        body: json!({ "status": { "conditions": [condition] } }),
    }
}

/// `CamelCase`, as conditions want it.
const fn reason(tier: Tier) -> &'static str {
    match tier {
        Tier::Normal => "Normal",
        Tier::Elevated => "Elevated",
        Tier::Constrained => "Constrained",
        Tier::Critical => "Critical",
        Tier::Emergency => "Emergency",
    }
}

/// A `Time`, which has no fractions.
fn seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}
