//! Something that a person would want to hear of, and the words for it.

use k8s_openapi::jiff::Timestamp;

use crate::kubernetes::PodRef;

/// Whom it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// A container of a pod; the pod as a whole where the container has no name.
    Pod(PodRef),
    /// This node.
    Node,
}

/// What happened: reasons of Events, in the order in which `docs/kubernetes-telling.md` explains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    ModelThrottled,
    ModelReleased,
    ModelFrozen,
    ModelThawed,
    ModelOffloaded,
    ModelNotOffloaded,
    ModelRestored,
    ModelNotRestored,
    ModelKilled,
    ModelNotKilled,
    ModelEvicted,
    EvictionBlocked,
    EvictionFailed,
    InvalidAnnotation,
    NeedsUnmet,
    MemoryConstrained,
    MemoryCritical,
    MemoryEmergency,
    MemoryCalm,
}

impl Reason {
    /// As it is in the Event.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ModelThrottled => "ModelThrottled",
            Self::ModelReleased => "ModelReleased",
            Self::ModelFrozen => "ModelFrozen",
            Self::ModelThawed => "ModelThawed",
            Self::ModelOffloaded => "ModelOffloaded",
            Self::ModelNotOffloaded => "ModelNotOffloaded",
            Self::ModelRestored => "ModelRestored",
            Self::ModelNotRestored => "ModelNotRestored",
            Self::ModelKilled => "ModelKilled",
            Self::ModelNotKilled => "ModelNotKilled",
            Self::ModelEvicted => "ModelEvicted",
            Self::EvictionBlocked => "EvictionBlocked",
            Self::EvictionFailed => "EvictionFailed",
            Self::InvalidAnnotation => "InvalidAnnotation",
            Self::NeedsUnmet => "NeedsUnmet",
            Self::MemoryConstrained => "MemoryConstrained",
            Self::MemoryCritical => "MemoryCritical",
            Self::MemoryEmergency => "MemoryEmergency",
            Self::MemoryCalm => "MemoryCalm",
        }
    }

    /// What was being done, as an Event's `action` says it.
    pub(super) const fn action(self) -> &'static str {
        match self {
            Self::ModelThrottled => "Throttle",
            Self::ModelReleased => "Release",
            Self::ModelFrozen => "Freeze",
            Self::ModelThawed => "Thaw",
            Self::ModelOffloaded | Self::ModelNotOffloaded => "Offload",
            Self::ModelRestored | Self::ModelNotRestored => "Restore",
            Self::ModelKilled | Self::ModelNotKilled => "Kill",
            Self::ModelEvicted | Self::EvictionBlocked | Self::EvictionFailed => "Evict",
            Self::InvalidAnnotation => "ReadAnnotations",
            Self::NeedsUnmet => "Reserve",
            Self::MemoryConstrained | Self::MemoryCritical | Self::MemoryEmergency | Self::MemoryCalm => {
                "Assess"
            }
        }
    }

    /// An Event's `type`.
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::ModelReleased | Self::ModelThawed | Self::ModelRestored | Self::MemoryCalm => "Normal",
            _ => "Warning",
        }
    }

    /// Whether it can't be undone, or waits for somebody to act: the last of the budget is kept for these.
    pub(super) const fn is_grave(self) -> bool {
        matches!(
            self,
            Self::ModelKilled
                | Self::ModelEvicted
                | Self::ModelNotRestored
                | Self::EvictionBlocked
                | Self::EvictionFailed
        )
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Happening {
    /// Whom it is about.
    pub(super) about: About,
    /// What.
    pub(super) reason: Reason,
    /// The numbers.
    pub(super) note: String,
    /// When.
    pub(super) at: Timestamp,
}

/// The longest note that the API server takes is 1024 bytes; the rest is room for what was not told before.
pub(super) const NOTE: usize = 900;

/// A note for people: bounded, and without anything that a terminal would obey. Parts of it are a tenant's words.
pub(super) fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NOTE + 1).collect();
    let end = (0..=NOTE.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    if end < text.len() { format!("{}...", &text[..end]) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_bounded_and_harmless() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected);
        check("memory.high 2GiB", "memory.high 2GiB");
        check("a\u{1b}[31mb\nc", "a [31mb c");
        assert!(plain(&"ü".repeat(2000)).len() <= NOTE + 3);
        assert!(plain(&"x".repeat(NOTE + 1)).ends_with("x..."));
    }
}
