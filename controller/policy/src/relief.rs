//! What a rung would give: bytes that arrive in headroom in time, and growth that it stops.

use crate::assess::Memory;
use crate::assess::observe::positive;
use crate::assess::per;
use crate::config::Ladder;
use crate::holding::Holding;
use crate::learned::Estimate;
use crate::sample::Rung;
use crate::state::Track;
use crate::units::{Bytes, Monotonic, Span};

/// Bytes that are wanted are wanted within this time: the horizon of calm targets.
pub(crate) const HORIZON: Span = Span::secs(5);
/// A brake is applied this long before it is needed: five busy samples, or a freeze on a loaded machine. Earlier would refuse
/// memory that is there; what comes later the gate stops.
pub(crate) const BRAKE_AHEAD: Span = Span::millis(500);
/// Slower growth is no reason for a brake.
pub(crate) const SLOW: Bytes = Bytes::mib(1);
/// Less is not worth an action.
pub(crate) const CRUMBS: Bytes = Bytes::mib(4);

/// A workload as the walk over the victims sees it.
pub(crate) struct Candidate<'a> {
    pub(crate) holding: Holding,
    pub(crate) track: &'a Track,
    pub(crate) growth: i64,
    pub(crate) at: Monotonic,
}

/// What a rung gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relief {
    /// In headroom, within the horizon.
    pub(crate) bytes: Bytes,
    /// Bytes per second that would have come on top and do not.
    pub(crate) growth: Bytes,
}

impl Relief {
    /// Both in one figure: what headroom has more of by the time that the brake was to be early.
    pub(crate) fn total(self) -> Bytes {
        self.bytes + per(self.growth, BRAKE_AHEAD)
    }
}

impl Candidate<'_> {
    /// What `rung` would give from now on. A workload that is already on it or above has stopped growing.
    pub(crate) fn relief(&self, rung: Rung, within: Span, ladder: &Ladder) -> Relief {
        let bytes = match rung {
            // Late is better than never, for what comes last.
            Rung::Kill => self.estimate(rung).in_the_end(self.promised(rung, ladder)),
            _ => self.estimate(rung).within(self.promised(rung, ladder), within),
        };
        let growth = match rung {
            Rung::Free | Rung::Trim | Rung::Offload => Bytes::ZERO,
            Rung::Throttle if self.spills() => Bytes::ZERO,
            Rung::Throttle | Rung::Freeze | Rung::Kill => self.brakeable(),
        };
        Relief { bytes, growth }
    }

    /// What `rung` would free if all went as it looks.
    pub(crate) fn promised(&self, rung: Rung, ladder: &Ladder) -> Bytes {
        match rung {
            Rung::Free | Rung::Offload => Bytes::ZERO,
            Rung::Trim => self.holding.trimmable(self.growth),
            Rung::Throttle => self.holding.squeeze(ladder),
            Rung::Freeze => self.holding.swappable,
            Rung::Kill => self.holding.killable,
        }
    }

    /// What is to be expected of `rung`, by its outcomes on this workload so far.
    pub(crate) fn estimate(&self, rung: Rung) -> Estimate {
        self.track.learned.on(rung, self.at)
    }

    /// Whether a limit would be no brake: it holds what has nowhere else to go, but with swap the workload goes on
    /// growing into that, and spends everybody's processor time on it.
    pub(crate) fn spills(&self) -> bool {
        self.brakeable() > Bytes::ZERO && self.holding.swappable >= CRUMBS
    }

    /// Whether it grows fast enough to be worth a brake.
    pub(crate) fn grows(&self) -> bool {
        self.brakeable() > Bytes::ZERO
    }

    /// Whether it gives anything already, or could on a rung short of a kill.
    pub(crate) fn can_yield(&self) -> bool {
        let Holding { swappable, file, .. } = self.holding;
        self.track.held.brake() > Rung::Free || swappable > Bytes::ZERO || file >= CRUMBS || self.grows()
    }

    /// Bytes per second of growth that a brake would stop.
    pub(crate) fn brakeable(&self) -> Bytes {
        let growth = positive(self.growth);
        if growth < SLOW { Bytes::ZERO } else { growth }
    }
}

/// Whether the brake on a workload is seen to hold: one that was only just applied is given `grace`, a
/// bulk charge inside the kernel can be neither frozen nor throttled and goes on.
pub(crate) fn brake_holds(
    track: &Track,
    frozen: Option<bool>,
    growth: i64,
    at: Monotonic,
    grace: Span,
) -> bool {
    match track.held.brake() {
        Rung::Free | Rung::Trim | Rung::Offload => false,
        _ if at.since(track.held.since) <= grace => true,
        Rung::Throttle => positive(growth) < SLOW,
        Rung::Freeze => frozen == Some(true) || positive(growth) < SLOW,
        Rung::Kill => true,
    }
}

/// Bytes per second by which headroom will still fall once the brakes hold.
pub(crate) fn residual(memory: &Memory, stopped: Bytes) -> Bytes {
    memory.decline.saturating_sub(stopped)
}
