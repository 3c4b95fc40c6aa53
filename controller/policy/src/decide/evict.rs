//! The slow sibling of a kill: what this node can't hold is handed to another one, where there are seconds for it to end in order.
//!
//! Brakes hold a shortage and don't end it. A pod that has been braked for long, while the node never was calm, would be braked for ever
//! here, and run elsewhere. One at a time is asked for, the first in the order of victims; who was asked is let end in
//! order, and others wait for its memory as they wait for that of a kill. `docs/evict.md` argues the figures.

use super::restore::leave;
use super::victims::place;
use super::{Turn, restart};
use crate::eviction::Eviction;
use crate::plan::{ActResult, Evidence, Outcome, Tier};
use crate::relief::CRUMBS;
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Monotonic, Span};
use crate::voluntary::Pause;

/// Two passes that are further apart count as this: what was in between nobody saw.
const STEP: Span = Span::secs(1);
/// The API server's own limit for a request; later nobody answers any more.
const UNANSWERED: Span = Span::secs(60);
/// What the way takes besides the grace: the API server, the node agent, the runtime.
const MARGIN: Span = Span::secs(10);
/// After a refusal: 30 s, 60 s, and so on.
const REFUSED: Span = Span::secs(30);
/// But not longer.
const LONGEST: Span = Span::secs(600);

/// Takes an answer.
pub(crate) fn answered(turn: &mut Turn<'_>, outcome: &Outcome) {
    let id = &outcome.workload;
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    let Some(eviction) = track.eviction.as_deref_mut() else { return };
    if eviction.leaves.is_some() || eviction.wanted.is_none_or(|since| outcome.begun < since) {
        return;
    }
    match outcome.result {
        // Where the pod is gone already, so is the cgroup in a moment.
        ActResult::Done | ActResult::Gone => departs(turn, id),
        _ => end(eviction, turn.sample.at),
    }
}

/// Its pod ends in order, and with it all that runs in it.
fn departs(turn: &mut Turn<'_>, id: &WorkloadId) {
    let at = turn.at();
    let Some(pod) = turn.sample.workloads.get(id).and_then(pod) else { return };
    let all = turn.sample.workloads.iter().filter(|(other, w)| *other == id || self::pod(w) == Some(pod));
    for (id, workload) in all {
        let grace = workload.spec.evictable.unwrap_or_default();
        if let Some(track) = turn.state.workloads.get_mut(id) {
            let eviction = track.eviction.get_or_insert_default();
            eviction.leaves = Some(at + grace.saturating_add(MARGIN));
            turn.evicted.insert(id);
        }
    }
}

/// The namespace and the name of the pod whose container it is.
fn pod(workload: &Workload) -> Option<&str> {
    workload.spec.evictable?;
    workload.spec.name.rsplit_once('/').map(|(pod, _)| pod)
}

/// It was refused, not answered, or has not gone.
fn end(eviction: &mut Eviction, at: Monotonic) {
    let longer = eviction.pause.longer(REFUSED, at);
    eviction.pause = Pause { until: longer.until.min(at + LONGEST), ..longer };
    (eviction.wanted, eviction.leaves) = (None, None);
}

/// Ends what is over, and lets those who leave run.
pub(crate) fn review(turn: &mut Turn<'_>) {
    let at = turn.at();
    let open: Vec<WorkloadId> = turn.evicted().map(|(id, ..)| id.clone()).collect();
    for id in open {
        let Some(workload) = turn.sample.workloads.get(&id) else { continue };
        let allowed = may(turn, workload);
        let Some(track) = turn.state.workloads.get_mut(&id) else { continue };
        let Some(eviction) = track.eviction.as_deref_mut() else { continue };
        let deadline = eviction.leaves.or(eviction.wanted.map(|since| since + UNANSWERED));
        if workload.populated == Some(false) || (!allowed && eviction.leaves.is_none()) {
            (eviction.wanted, eviction.leaves) = (None, None);
        } else if deadline.is_some_and(|deadline| deadline <= at) {
            end(eviction, at);
        } else if eviction.leaves.is_some() && track.held.rung == Rung::Freeze {
            leave(turn, &id);
        }
    }
}

/// Asks for one, if it is time.
pub(crate) fn consider(turn: &mut Turn<'_>) {
    count(turn);
    let calm = turn.tier() == Tier::Normal || turn.memory().is_none();
    if calm || turn.tier() >= Tier::Emergency || turn.evicted().next().is_some() {
        return;
    }
    let Some((id, expected, braked)) = next(turn) else { return };
    let evidence = turn.because([Evidence::Unheld { braked }, Evidence::Yield { expected }]);
    begin(turn, &id, evidence);
}

/// Asks for a victim of a GPU instead of killing it; says whether it is worth waiting for.
pub(crate) fn instead(turn: &mut Turn<'_>, id: &WorkloadId, evidence: &[Evidence]) -> bool {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return false;
    };
    if turn.evicted().next().is_some() {
        return true;
    }
    let open = turn.tier() < Tier::Emergency && may(turn, workload) && is_open(turn, track);
    if open {
        begin(turn, id, evidence.to_vec());
    }
    open
}

fn begin(turn: &mut Turn<'_>, id: &WorkloadId, evidence: Vec<Evidence>) {
    let at = turn.at();
    let Some(track) = turn.state.workloads.get_mut(id) else { return };
    turn.state.action = turn.state.action.saturating_add(1);
    let eviction = track.eviction.get_or_insert_default();
    (eviction.wanted, eviction.action, eviction.evidence) = (Some(at), turn.state.action, evidence);
    turn.evicted.extend(turn.sample.workloads.get_key_value(id).map(|(id, _)| id));
}

/// For how long each that could be handed over has been braked. The tier's normal ends the story; and so does a pod that leaves, since
/// what follows from that has to be seen first.
fn count(turn: &mut Turn<'_>) {
    let at = turn.at();
    let leaves = turn.somebody_leaves();
    let strained = turn.state.strained.filter(|_| !leaves).unwrap_or(at).min(at);
    turn.state.strained = (turn.tier() > Tier::Normal).then_some(strained);
    if turn.tier() == Tier::Normal || !turn.config.kubernetes.enabled {
        return;
    }
    let braked = turn.held(|rung| matches!(rung, Rung::Throttle | Rung::Freeze));
    let braked = braked.filter(|(_, w, t)| w.spec.evictable.is_some() && is_braked(t, at));
    let braked: Vec<WorkloadId> = braked.map(|(id, ..)| id.clone()).collect();
    for id in braked {
        let Some(track) = turn.state.workloads.get_mut(&id) else { continue };
        let eviction = track.eviction.get_or_insert_default();
        if eviction.counted < strained {
            (eviction.braked, eviction.counted) = (Span::ZERO, at);
        }
        let step = at.since(eviction.counted).min(STEP);
        (eviction.braked, eviction.counted) = (eviction.braked.saturating_add(step), at);
    }
}

/// On the leash it is being let go, unless it is held off.
fn is_braked(track: &Track, at: Monotonic) -> bool {
    let brakes = matches!(track.held.rung, Rung::Throttle | Rung::Freeze);
    brakes && (track.held.leash.is_none() || track.held_off > at)
}

/// The first in the order of victims of those that this node can't hold and that have the time to end in order.
fn next(turn: &Turn<'_>) -> Option<(WorkloadId, Bytes, Span)> {
    let after = turn.config.kubernetes.evict_after;
    let braked = turn.held(|rung| matches!(rung, Rung::Throttle | Rung::Freeze));
    let could = braked.filter_map(|(id, workload, track)| {
        let again = turn.state.kills(workload, id, turn.at()).is_some_and(|it| it.times >= restart::AGAIN);
        let braked = track.eviction.as_ref().filter(|it| it.braked >= after || again)?.braked;
        let open = may(turn, workload) && is_braked(track, turn.at()) && is_open(turn, track);
        let grace = workload.spec.evictable.filter(|grace| open && turn.has_time(*grace))?;
        let candidate = turn.candidate(workload, track, Bytes::ZERO)?;
        let frees = candidate.relief(Rung::Kill, grace, &turn.config.ladder).bytes;
        (frees >= CRUMBS).then_some((place(workload, frees), id, frees, braked))
    });
    could
        .min_by_key(|(place, id, ..)| (*place, *id))
        .map(|(_, id, frees, braked)| (id.clone(), frees, braked))
}

/// Whether it may be handed to another node at all: who may not be killed may not be ended here in any other way either.
fn may(turn: &Turn<'_>, workload: &Workload) -> bool {
    let kubernetes = &turn.config.kubernetes;
    let asked = kubernetes.enabled && kubernetes.evict && workload.spec.evictable.is_some();
    asked && roles::is_eligible(turn.config, workload) && roles::allows(turn.config, workload, Rung::Kill)
}

/// Whether it is neither dying nor was refused lately.
fn is_open(turn: &Turn<'_>, track: &Track) -> bool {
    let paused = track.eviction.as_ref().is_some_and(|it| it.pause.until > turn.at());
    track.held.rung < Rung::Kill && !paused
}

impl Turn<'_> {
    /// Whether the memory lasts for longer than that.
    pub(crate) fn has_time(&self, span: Span) -> bool {
        self.tier() < Tier::Emergency && self.assessed.report.forecast.left().is_none_or(|left| left > span)
    }

    /// What one that ends in order gives back, where there is the time to wait for it.
    pub(crate) fn departing(&self, id: &WorkloadId, track: &Track) -> Option<Bytes> {
        let until = track.leaves()?;
        let workload = self.sample.workloads.get(id).filter(|w| w.populated != Some(false))?;
        let candidate = self.candidate(workload, track, Bytes::ZERO)?;
        let left = until.since(self.at());
        self.has_time(left).then(|| candidate.relief(Rung::Kill, left, &self.config.ladder).bytes)
    }
}
