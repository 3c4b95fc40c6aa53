//! What an action that is about to be taken will bring, and what was not done instead. Nothing of this is worked out in a pass
//! that takes no action.

use super::Turn;
use super::ladder::spent;
use super::spell;
use super::wish::{promise, why_not as why_not_asked};
use crate::concession::Level;
use crate::plan::{Expected, Refusal, Refused};
use crate::relief::{CRUMBS, Candidate, HORIZON, SLOW};
use crate::roles;
use crate::sample::{Preference, Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Span};

/// What an action is taken for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) rung: Rung,
    /// Bytes that were wanted of the workload.
    pub(crate) needed: Bytes,
    /// By then.
    pub(crate) within: Span,
    /// By then the last of what it brings counts.
    pub(crate) horizon: Span,
    /// Swap that nobody else was promised.
    pub(crate) swap: Bytes,
}

/// An action that was taken in this pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) expected: Expected,
    pub(crate) refused: Vec<Refused>,
}

/// Both, for a workload that is still on its former rung.
pub(crate) fn explain(turn: &Turn<'_>, id: &WorkloadId, ask: Ask) -> Taken {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return Taken::default();
    };
    let Some(candidate) = turn.candidate(workload, track, ask.swap) else { return Taken::default() };
    let refused = |rung, why| Refused { workload: id.clone(), rung, why };
    let own = [Rung::Trim, Rung::Throttle, Rung::Offload, Rung::Freeze].into_iter().filter_map(|rung| {
        let why = match rung {
            Rung::Offload => asking(turn, workload, track, ask)?,
            rung if rung < track.held.brake() || rung == ask.rung => return None,
            rung if rung < ask.rung => gentler(turn, workload, &candidate, rung, ask),
            rung => harder(turn, workload, &candidate, rung, ask)?,
        };
        Some(refused(rung, why))
    });
    let mut all: Vec<_> = own.collect();
    all.extend(passed_over(turn, workload, ask).take(Refused::MOST - all.len()));
    Taken { expected: expected(turn, &candidate, ask), refused: all }
}

/// What is gentler than asking a workload to unload, and would not do.
pub(crate) fn gentler_than_asking(turn: &Turn<'_>, id: &WorkloadId, needed: Bytes) -> Vec<Refused> {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return Vec::new();
    };
    let swap = turn.memory().map_or(Bytes::ZERO, |memory| memory.swap_free);
    let Some(candidate) = turn.candidate(workload, track, swap) else { return Vec::new() };
    let ask = Ask { rung: Rung::Offload, needed, within: HORIZON, horizon: HORIZON, swap };
    let rungs = [Rung::Trim, Rung::Throttle].into_iter().filter(|rung| *rung >= track.held.brake());
    let why = |rung| gentler(turn, workload, &candidate, rung, ask);
    rungs.map(|rung| Refused { workload: id.clone(), rung, why: why(rung) }).collect()
}

/// Why one that can be asked at all was braked or killed instead.
fn asking(turn: &Turn<'_>, workload: &Workload, track: &Track, ask: Ask) -> Option<Refusal> {
    workload.offer.as_ref().filter(|_| ask.rung > Rung::Offload)?;
    let left = turn.patience();
    let remaining = track.voluntary.as_ref().filter(|it| it.leaves()).and_then(|it| it.remaining(turn.at()));
    if let Some(takes) = remaining {
        return Some(Refusal::TooSlow { takes, left });
    }
    why_not_asked(turn, workload, track, Level::Unload).or_else(|| {
        let promise = promise(turn, workload, track, Level::Unload);
        let yields = promise.gains.host_bytes();
        Some(if promise.takes > left {
            Refusal::TooSlow { takes: promise.takes, left }
        } else if yields < ask.needed {
            Refusal::TooLittle { yields, needed: ask.needed }
        } else {
            Refusal::Uncontested
        })
    })
}

/// What it will bring.
fn expected(turn: &Turn<'_>, candidate: &Candidate<'_>, ask: Ask) -> Expected {
    let relief = candidate.relief(ask.rung, ask.horizon, &turn.config.ladder);
    let estimate = candidate.estimate(ask.rung);
    Expected {
        bytes: relief.bytes,
        growth: relief.growth,
        takes: estimate.takes(relief.bytes),
        observations: estimate.observations,
    }
}

/// Why a gentler rung, be it the one that the workload is on, would not do.
fn gentler(turn: &Turn<'_>, workload: &Workload, candidate: &Candidate<'_>, rung: Rung, ask: Ask) -> Refusal {
    let Track { no_throttle, rest, .. } = *candidate.track;
    let ladder = &turn.config.ladder;
    let relief = candidate.relief(rung, ask.within, ladder);
    let estimate = candidate.estimate(rung);
    let in_the_end = estimate.in_the_end(candidate.promised(rung, ladder));
    if !roles::allows(turn.config, workload, rung) {
        Refusal::NotAllowed
    } else if rung == Rung::Throttle && no_throttle > turn.at() {
        Refusal::Futile { until: no_throttle }
    } else if let Some(until) =
        spell::rests(workload, candidate.track, turn.at()).filter(|_| rung == Rung::Freeze)
    {
        Refusal::Probed { until }
    } else if let Some(brakes) = spent(turn, candidate.track, rung) {
        Refusal::Spent { brakes }
    } else if rung == Rung::Throttle && candidate.spills() {
        Refusal::Spills { growth: candidate.brakeable() }
    } else if in_the_end < CRUMBS && relief.growth < SLOW {
        if rest.until > turn.at() { Refusal::Futile { until: rest.until } } else { Refusal::Nothing }
    } else if in_the_end >= ask.needed && relief.total() < ask.needed {
        Refusal::TooSlow { takes: estimate.takes(ask.needed), left: ask.within }
    } else {
        Refusal::TooLittle { yields: relief.total(), needed: ask.needed }
    }
}

/// Why a harder one was not used although this one is not enough.
fn harder(
    turn: &Turn<'_>,
    workload: &Workload,
    candidate: &Candidate<'_>,
    rung: Rung,
    ask: Ask,
) -> Option<Refusal> {
    let total = |rung| candidate.relief(rung, ask.within, &turn.config.ladder).total();
    let more = total(ask.rung) < ask.needed && total(rung) > total(ask.rung);
    if !more {
        None
    } else if !roles::allows(turn.config, workload, rung) {
        Some(Refusal::NotAllowed)
    } else if let Some(brakes) = spent(turn, candidate.track, rung) {
        Some(Refusal::Spent { brakes })
    } else {
        Some(Refusal::Tier { tier: turn.tier() })
    }
}

/// Those that should have yielded before this one, the lowest first, with what kept them from it.
fn passed_over<'a>(
    turn: &'a Turn<'_>,
    workload: &Workload,
    ask: Ask,
) -> impl Iterator<Item = Refused> + use<'a> {
    let rank = |w: &Workload| roles::rank(&w.spec);
    let this = rank(workload);
    let mut lower: Vec<_> =
        turn.tracked().filter(|(_, w, _)| rank(w) < this && w.populated != Some(false)).collect();
    lower.sort_by_key(|(id, w, _)| (rank(w), *id));
    lower.into_iter().map(move |(id, workload, track)| Refused {
        workload: id.clone(),
        rung: ask.rung,
        why: why_not(turn, workload, track, ask),
    })
}

fn why_not(turn: &Turn<'_>, workload: &Workload, track: &Track, ask: Ask) -> Refusal {
    let candidate = turn.candidate(workload, track, ask.swap);
    match (workload.spec.preference, track.held.brake()) {
        (Preference::Omit, _) => Refusal::Omit,
        _ if roles::is_protected(turn.config, workload) => Refusal::Protected,
        (_, Rung::Kill) => Refusal::Undying,
        _ if track.leaves().is_some() && ask.rung < Rung::Kill => Refusal::Leaves,
        (_, rung) if rung >= ask.rung || (rung > Rung::Free && ask.rung < Rung::Kill) => {
            Refusal::Gives { rung }
        }
        _ => candidate.map_or(Refusal::Unreadable, |c| gentler(turn, workload, &c, ask.rung, ask)),
    }
}
