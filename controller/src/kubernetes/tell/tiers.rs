//! What the node itself is told of: that memory is short, and that it is not any more.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use plimsoll_policy::plan::Tier;
use tokio::time::Instant;

use super::happening::{About, Happening, Reason, plain};
use super::standing::Standing;
use super::steady::{Holds, Levels};
use crate::kubernetes::backoff::Dice;

/// Shorter than this is nothing that a person could look at while it lasts.
const HOLDS: Holds = Holds { up: Duration::from_secs(2), down: Duration::from_secs(60) };

/// What was told of.
#[derive(Debug)]
pub(super) struct Tiers {
    levels: Levels<Tier>,
    told: Option<Tier>,
}

impl Tiers {
    pub(super) fn new(now: Instant, dice: &mut Dice) -> Self {
        let short = [Tier::Constrained, Tier::Critical, Tier::Emergency].map(|tier| (tier, HOLDS));
        Self { levels: Levels::new(&short, None, now, dice), told: None }
    }

    /// Takes the node's standing as it is now; returns what there is to tell.
    pub(super) fn look(&mut self, standing: &Standing, now: Instant, dice: &mut Dice) -> Option<Happening> {
        let shown = self.levels.look(Some(standing.worst()), now, dice);
        let told = std::mem::replace(&mut self.told, shown);
        let reason = match shown {
            None if told.is_some() => Reason::MemoryCalm,
            Some(tier) if told < shown => reason(tier),
            // A tier that is a little less bad is no news.
            _ => return None,
        };
        Some(Happening {
            about: About::Node,
            reason,
            note: plain(&standing.to_string()),
            at: Timestamp::now(),
        })
    }

    /// When there may be something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.levels.due()
    }
}

const fn reason(tier: Tier) -> Reason {
    match tier {
        Tier::Emergency => Reason::MemoryEmergency,
        Tier::Critical => Reason::MemoryCritical,
        _ => Reason::MemoryConstrained,
    }
}
