//! Whoever is probed is frozen in spells.
//!
//! A spell begins with a freeze and lasts, with all freezes that follow it closely, no longer than the probes bear in a row. Then the
//! workload runs for as long: every period of a probe is shorter than that, so that one succeeds, and the failures are counted anew.

use super::Turn;
use crate::roles;
use crate::sample::{Rung, Workload};
use crate::state::{Spell, Track};
use crate::units::{Monotonic, Span};

/// What is left of a spell must be worth a freeze.
const SHORTEST: Span = Span::secs(1);

impl Turn<'_> {
    /// Whether a freeze may begin, or goes on.
    pub(crate) fn may_freeze(&self, workload: &Workload, track: &Track) -> bool {
        roles::allows(self.config, workload, Rung::Freeze) && rests(workload, track, self.at()).is_none()
    }
}

/// Until when it is not frozen (again), for the sake of its probes.
pub(crate) fn rests(workload: &Workload, track: &Track, at: Monotonic) -> Option<Monotonic> {
    let most = workload.spec.freeze_max?;
    if most < SHORTEST {
        return Some(Monotonic(u64::MAX));
    }
    let spell = track.spell.filter(|spell| spell.until < at + SHORTEST && !spell.is_over(most, at))?;
    (track.held.rung != Rung::Freeze).then_some(spell.last + most)
}

/// Whether it must run now.
pub(crate) fn is_due(track: &Track, at: Monotonic) -> bool {
    track.spell.is_some_and(|spell| spell.until <= at)
}

impl Spell {
    /// The spell that a freeze belongs to which begins now.
    pub(crate) fn with_freeze(spell: Option<Self>, most: Option<Span>, at: Monotonic) -> Option<Self> {
        let most = most?;
        let goes_on = spell.filter(|spell| !spell.is_over(most, at));
        Some(Self { last: at, until: goes_on.map_or(at + most, |spell| spell.until) })
    }

    fn is_over(self, most: Span, at: Monotonic) -> bool {
        at.since(self.last) >= most
    }
}
