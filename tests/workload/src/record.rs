//! What the loads and the demo's guest write down, as JSON lines; the host reads the same types back.
//! Every moment is nanoseconds on the guest's `CLOCK_MONOTONIC`.

use serde::{Deserialize, Serialize};

/// One request of the open-loop client.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// When it was due to be sent: latency counts from here, whenever it was really sent.
    pub due_ns: u64,
    /// From then until its answer came, or, where none came, until the client stopped waiting.
    pub latency_ns: u64,
    /// Whether an answer came at all.
    pub answered: bool,
}

impl Request {
    /// The client's patience: an answer that comes later is of no use to anybody.
    pub const PATIENCE_NS: u64 = 1_000_000_000;

    /// Refused, never answered, or answered later than [`Self::PATIENCE_NS`].
    #[must_use]
    pub const fn lost(&self) -> bool {
        !self.answered || self.latency_ns > Self::PATIENCE_NS
    }
}
