//! How long something is waited for, and whether anybody still waits.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Until when, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    by: Instant,
    /// Gone with whoever asked; `None` where nobody in particular did.
    asker: Option<Weak<()>>,
}

impl Patience {
    pub(super) fn within(span: Duration) -> Self {
        Self { by: Instant::now() + span, asker: None }
    }

    /// The same, while the asker lives at most.
    pub(super) fn of(asker: &Arc<()>, deadline: Duration) -> Self {
        Self { asker: Some(Arc::downgrade(asker)), ..Self::within(deadline) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left().is_zero() || self.asker.as_ref().is_some_and(|asker| asker.strong_count() == 0)
    }

    pub(super) fn left(&self) -> Duration {
        self.by.saturating_duration_since(Instant::now())
    }
}
