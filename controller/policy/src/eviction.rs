//! What is remembered of handing a pod to another node.

use serde::{Deserialize, Serialize};

use crate::plan::Evidence;
use crate::state::Track;
use crate::units::{Monotonic, Span, is_default};
use crate::voluntary::Pause;

/// How long a workload was braked in vain, and what came of asking somebody else to take it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Eviction {
    /// How long it has been braked since the tier was last normal.
    #[serde(skip_serializing_if = "is_default")]
    pub braked: Span,
    /// When that was last counted.
    pub counted: Monotonic,
    /// Since when it has been wanted; until it is gone or somebody said no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Monotonic>,
    /// It ends in order, and ought to be gone by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Monotonic>,
    /// Number of the action.
    #[serde(skip_serializing_if = "is_default")]
    pub action: u64,
    /// Why.
    #[serde(skip_serializing_if = "is_default")]
    pub evidence: Vec<Evidence>,
    /// It was refused, or did not go.
    #[serde(skip_serializing_if = "is_default")]
    pub pause: Pause,
}

impl Eviction {
    /// Whether it is wanted, or has come about and is not over.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.wanted.is_some() || self.leaves.is_some()
    }
}

impl Track {
    /// When a workload that ends in order ought to be gone.
    pub(crate) fn leaves(&self) -> Option<Monotonic> {
        self.eviction.as_ref().and_then(|it| it.leaves)
    }
}
