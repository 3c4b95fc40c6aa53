//! The taint that keeps new pods away: when it is set, when it goes.

use std::time::Duration;

use plimsoll_policy::plan::Tier;
use serde_json::Value;
use tokio::time::Instant;

use super::standing::Standing;
use super::steady::{Holds, Levels};
use crate::kubernetes::backoff::Dice;

/// Its key.
pub(super) const TAINT: &str = "plimsoll.dev/memory-pressure";

/// What it does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// The scheduler takes another node if it can.
    PreferNoSchedule,
    /// The scheduler takes another node.
    NoSchedule,
}

impl Effect {
    /// As a taint says it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoSchedule => "NoSchedule",
        }
    }

    /// That of a taint; one that we never set counts as the strongest.
    pub(super) fn of(taint: &Value) -> Option<Self> {
        let effect = taint["effect"].as_str()?;
        Some(if effect == Self::PreferNoSchedule.name() { Self::PreferNoSchedule } else { Self::NoSchedule })
    }
}

/// A pod takes seconds from the scheduler to its first allocation, so there is no hurry that a burst which is over in five seconds would
/// justify. What is calm for a minute stays calm more often than not; where it does not, the wait doubles.
const CONSTRAINED: Holds = Holds { up: Duration::from_secs(5), down: Duration::from_secs(60) };
/// At critical it is freezing: a model more would be a kill more.
const CRITICAL: Holds = Holds { up: Duration::from_secs(2), down: Duration::from_secs(60) };
/// Between two writes. It is never the taint that saves a machine.
const GAP: Duration = Duration::from_secs(10);
/// Before what somebody else took away is set again: a person may have had reasons, and is not fought in a loop.
const FOREIGN: Duration = Duration::from_secs(300);

/// The taint of this node.
#[derive(Debug)]
pub(super) struct Taint {
    levels: Levels<Effect>,
    /// As the API server has it.
    there: Option<Effect>,
    wanted: Option<Effect>,
    /// No write before this.
    not_before: Instant,
}

impl Taint {
    /// `there` is what an earlier run left.
    pub(super) fn new(there: Option<Effect>, now: Instant, dice: &mut Dice) -> Self {
        let levels = [(Effect::PreferNoSchedule, CONSTRAINED), (Effect::NoSchedule, CRITICAL)];
        let levels = Levels::new(&levels, there, now, dice);
        Self { levels, there, wanted: there, not_before: now }
    }

    /// Takes the node's standing as it is now.
    pub(super) fn look(&mut self, standing: &Standing, now: Instant, dice: &mut Dice) {
        self.wanted = self.levels.look(effect(standing), now, dice);
    }

    /// Whether and what to write now: `Some(None)` is to take it away.
    pub(super) fn write(&self, now: Instant) -> Option<Option<Effect>> {
        (self.wanted != self.there && self.not_before <= now).then_some(self.wanted)
    }

    /// When there may be something to write.
    pub(super) fn due(&self) -> Option<Instant> {
        let write = (self.wanted != self.there).then_some(self.not_before);
        write.into_iter().chain(self.levels.due()).min()
    }

    /// What it does as far as the API server has told.
    pub(super) const fn there(&self) -> Option<Effect> {
        self.there
    }

    /// It was written.
    pub(super) fn written(&mut self, effect: Option<Effect>, now: Instant) {
        self.there = effect;
        self.not_before = now + GAP;
    }

    /// It could not be written.
    pub(super) fn failed(&mut self, pause: Duration, now: Instant) {
        self.not_before = now + pause;
    }

    /// The API server has shown the node in answer to something else. True where somebody changed our taint.
    pub(super) fn seen(&mut self, effect: Option<Effect>, now: Instant) -> bool {
        let changed = effect != self.there;
        if changed {
            self.there = effect;
            self.not_before = now + FOREIGN;
        }
        changed
    }
}

/// A GPU alone makes a node no worse than avoidable: most pods need none, and those that do may fit on the next.
fn effect(standing: &Standing) -> Option<Effect> {
    let host = match standing.host {
        Tier::Normal | Tier::Elevated => None,
        Tier::Constrained => Some(Effect::PreferNoSchedule),
        Tier::Critical | Tier::Emergency => Some(Effect::NoSchedule),
    };
    host.max((standing.gpu_tier() >= Tier::Critical).then_some(Effect::PreferNoSchedule))
}
