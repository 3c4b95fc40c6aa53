//! What is on its way: reclaim whose end has not been heard of. It is not asked for a second time.
//!
//! A workload on a rung is credited with what that rung still gives, and what is under way is part of that, since it has not left the
//! workload yet. Only where the rung was given up meanwhile it is credited by itself.

use crate::assess::per;
use crate::state::{Asked, Track};
use crate::units::{Bytes, Monotonic, Span};

/// A reclaim is given up by its worker after two seconds. One that is not heard of by now never will be.
const LONGEST: Span = Span::secs(3);

impl Track {
    /// The reclaim that is under way.
    pub(crate) fn under_way(&self, at: Monotonic) -> Option<Asked> {
        self.asked.filter(|asked| at.since(asked.at) < LONGEST)
    }

    /// Bytes that it will still bring into headroom within the time.
    pub(crate) fn arriving(&self, at: Monotonic, within: Span) -> Bytes {
        self.under_way(at).map_or(Bytes::ZERO, |asked| asked.left(at).min(per(asked.per_second, within)))
    }
}

impl Asked {
    fn left(&self, at: Monotonic) -> Bytes {
        self.promised.saturating_sub(per(self.per_second, at.since(self.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_arrives_or_is_given_up() {
        let (budget, promised, per_second) = (Bytes::mib(64), Bytes::mib(40), Bytes::mib(20));
        let asked = Some(Asked { at: Monotonic(0), budget, promised, per_second });
        let track = Track { asked, ..Track::default() };
        let half = Span::millis(500);
        let after = |span: Span| Monotonic(0) + span;
        assert_eq!(track.arriving(after(Span::ZERO), half), Bytes::mib(10));
        assert_eq!(track.arriving(after(half), Span::secs(9)), Bytes::mib(30));
        assert_eq!(track.arriving(after(Span::secs(3)), half), Bytes::ZERO);
    }
}
