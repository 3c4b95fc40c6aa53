//! The voluntary ladder: who is asked to give what of its own, and when it may have that back.
//!
//! Asking takes seconds where a brake takes milliseconds, so it begins earlier and runs first: what was asked and is in time counts as
//! arriving, and brakes are for what asking can't bring before the memory runs out. An answer is believed as far as the meters
//! show it. Who fails, brings nothing, or is undone by the next request is left alone for a while, and the next one's turn
//! comes, or a brake's. `docs/asking.md` argues the figures.

mod begin;
mod gentle;
mod gpu;
mod host;
mod prospect;
mod restore;
mod settle;

pub(crate) use begin::begin;
pub(crate) use gentle::ask_protected;
pub(crate) use gpu::gives_on;
pub(crate) use prospect::{promise, why_not};
pub(crate) use restore::{comes_first, release, undo_ineligible};
pub(crate) use settle::settle;

use super::Turn;
use crate::units::{Monotonic, Span};

/// As long as nothing grows, an answer is in time within this.
pub(crate) const PATIENCE: Span = Span::secs(60);

/// Everything that is newly asked, and what is restored.
pub(crate) fn review(turn: &mut Turn<'_>) {
    if turn.volunteers().next().is_none() {
        return;
    }
    restore::review(turn);
    gentle::ask(turn);
    host::ask(turn);
    gpu::ask(turn);
}

/// Whether a moment is still to come.
fn is_ahead(until: Monotonic, at: Monotonic) -> bool {
    until > at
}
