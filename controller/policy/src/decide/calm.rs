//! When it is calm enough to let somebody go.
//!
//! The tier goes down one by one, each after its dwell, which takes a quarter of a minute from the top. It need not be waited for by
//! one that is let go on a leash: it is enough that no signal has asked for a brake for as long as one dwell.

use super::Turn;
use crate::plan::{Evidence, Tier};
use crate::units::Span;

/// Brings up to date since when it has been quiet. A gap is neither.
pub(crate) fn watch(turn: &mut Turn<'_>) {
    let at = turn.at();
    if let Some(short) = is_short(turn) {
        let since = turn.state.quiet.unwrap_or(at).min(at);
        turn.state.quiet = (!short).then_some(since);
    }
}

/// No signal has asked for a brake for a dwell.
pub(crate) fn is_quiet(turn: &Turn<'_>) -> bool {
    turn.state.quiet.is_some_and(|since| turn.at().since(since) >= turn.config.host.dwell_down)
}

/// How long the tier has been at most elevated; `None` where it is higher.
pub(crate) fn lasts(turn: &Turn<'_>) -> Option<Span> {
    let since = turn.state.tier.calm.filter(|_| turn.tier() <= Tier::Elevated)?;
    Some(turn.at().since(since))
}

/// Why somebody is let go.
pub(crate) fn evidence(turn: &Turn<'_>) -> Vec<Evidence> {
    let since = turn.state.tier.calm.into_iter().chain(turn.state.quiet).min();
    since.map(|since| Evidence::Calm { since }).into_iter().collect()
}

/// Whether the protected wait or refault as at constrained.
pub(crate) fn suffers(turn: &Turn<'_>) -> bool {
    let (now, limits) = (&turn.assessed.report, &turn.config.host.constrained);
    let stalls = now.stall.is_some_and(|stall| stall >= limits.stall);
    let thrashes = now.thrash_per_second.zip(limits.thrash).is_some_and(|(thrash, limit)| thrash >= limit);
    stalls || thrashes
}

/// Whether a signal asks for a brake; `None` where the host could not be read.
fn is_short(turn: &Turn<'_>) -> Option<bool> {
    let (now, limits) = (&turn.assessed.report, &turn.config.host.constrained);
    let used = now.used? >= limits.leave;
    let fills = now.forecast.left().zip(limits.forecast).is_some_and(|(left, limit)| left < limit);
    Some(used || fills || suffers(turn))
}
