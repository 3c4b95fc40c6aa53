//! The one rung that makes room on a GPU against its user's will.
//!
//! A GPU without room stops nobody and freezes no machine: an allocation fails. So levels alone kill nobody here either, and there
//! is time: somebody who matters more must want the room (or the victim itself takes it from others), everything that can be
//! asked for must have been asked for, and the GPU must have been that full for a while. A freeze is no rung of a GPU: who is
//! frozen keeps its memory, can't be asked any more, and holds up those that share a stream or a collective with it.

use super::explain::Taken;
use super::{Turn, evict, wish};
use crate::admission::settle::workload_of;
use crate::appetite::Claim;
use crate::concession::Level;
use crate::gpu::GpuId;
use crate::plan::{Evidence, Expected, Refusal, Refused, Tier};
use crate::roles::{self, Class};
use crate::sample::{Preference, Rung, Workload, WorkloadId};
use crate::state::{GpuTrack, Track};
use crate::units::{Bytes, Span};

/// So long it must have lasted: several readings, and the time in which somebody who was asked a moment ago might answer.
const PATIENCE: Span = Span::secs(2);
/// Who holds a smaller part of the memory is spared: its death would change nothing. A bare context is as large.
const SMALL: u64 = 100;

pub(crate) fn consider(turn: &mut Turn<'_>) {
    let gpus: Vec<GpuId> = turn.assessed.report.gpus.keys().cloned().collect();
    for gpu in gpus {
        let in_flight = turn.held(|r| r == Rung::Kill).any(|(_, w, t)| turn.kill_in_flight(w, t));
        let leaves = turn.somebody_leaves();
        // What a kill frees, or one that leaves, has to be seen before anybody else dies, here or there.
        let needed = needed(turn, &gpu).filter(|_| !in_flight && !leaves);
        let at = turn.at();
        let Some(track) = turn.state.gpus.get_mut(&gpu) else { continue };
        track.desperate = needed.map(|_| track.desperate.unwrap_or(at).min(at));
        let lasts = track.desperate.is_some_and(|since| at.since(since) >= PATIENCE);
        if let Some(needed) = needed.filter(|_| lasts) {
            kill(turn, &gpu, needed);
        }
    }
}

/// Bytes above what emergency may be left at; `None` where nobody has to die for them. What is promised is not used yet, and
/// between the two thresholds somebody who only grows has room.
fn needed(turn: &Turn<'_>, gpu: &GpuId) -> Option<Bytes> {
    let seen = turn.assessed.report.gpus.get(gpu)?;
    let short = seen.tier == Tier::Emergency && seen.contested && !seen.is_stale();
    let reading = turn.sample.gpus.get(gpu).filter(|_| short)?;
    let (total, used) = reading.total.zip(reading.used)?;
    let limits = &turn.config.gpu.emergency;
    let within = turn.config.gpu.contested_for;
    let track = turn.state.gpus.get(gpu);
    // However much is free, it is less than one of the protected needs at a time.
    let refused = track.and_then(|track| track.refused.as_ref()).filter(|it| it.tier() == Tier::Emergency);
    let least = refused.map_or(Bytes::ZERO, |_| Bytes(total.0 / SMALL));
    let above = used.saturating_sub(total.share(limits.leave)).max(least);
    let full = used >= total.share(limits.used);
    let fails = track.is_some_and(|track| track.appetite.fails(turn.at(), within));
    let lacks = full || fails || turn.state.admission.waits_for(gpu);
    (lacks && above > Bytes::ZERO).then_some(above)
}

fn kill(turn: &mut Turn<'_>, gpu: &GpuId, needed: Bytes) {
    let Some(Case { id, holds, by, claim }) = case(turn, gpu) else { return };
    let gentler = turn.promised_on(gpu);
    if gentler >= needed || is_asked_below(turn, gpu, &id) {
        return;
    }
    let evidence = turn.gpu_because(gpu).into_iter().chain(
        [
            Evidence::Tier { tier: Tier::Emergency, deficit: needed },
            Evidence::Claimed { by, claim },
            Evidence::NothingGentler { gentler, needed },
            Evidence::Yield { expected: holds },
        ]
        .map(|fact| fact.on(gpu)),
    );
    let evidence: Vec<Evidence> = evidence.collect();
    if evict::instead(turn, &id, &evidence) {
        return;
    }
    let taken = explain(turn, gpu, &id, holds);
    turn.put(&id, Rung::Kill, evidence);
    turn.explained(&id, taken);
    turn.state.gpus.values_mut().for_each(|track| track.desperate = None);
}

/// Who would die, and for whom.
struct Case {
    id: WorkloadId,
    holds: Bytes,
    by: WorkloadId,
    claim: Claim,
}

/// The one that matters least of those who hold memory there, if somebody who matters more wants it, or it takes it from others
/// itself. Of equals the one that grows, then the one that holds most. While it is not known what somebody holds who would come
/// first, nobody dies in its place.
fn case(turn: &Turn<'_>, gpu: &GpuId) -> Option<Case> {
    let track = turn.state.gpus.get(gpu)?;
    let total = turn.sample.gpus.get(gpu)?.total?;
    let (at, within) = (turn.at(), turn.config.gpu.contested_for);
    let could_die = |w: &Workload, track: &Track| {
        let allowed = roles::is_eligible(turn.config, w) && roles::allows(turn.config, w, Rung::Kill);
        allowed && track.held.rung < Rung::Kill && w.current.is_some()
    };
    let grows = |id: &WorkloadId| track.holders.get(id).is_some_and(|it| it.grows(at, within));
    let holders = turn.tracked().filter_map(|(id, w, t)| Some((id, w, t, *w.gpus.get(gpu)?)));
    let candidates = holders
        .filter(|(_, w, t, held)| could_die(w, t) && held.is_none_or(|held| held >= Bytes(total.0 / SMALL)));
    let (id, workload, _, held) = candidates.min_by_key(|(id, w, _, held)| {
        let spec = &w.spec;
        (roles::rank(spec), !grows(id), std::cmp::Reverse(*held), spec.restart_cost_ms, *id)
    })?;
    let holds = held?;
    let above = claims(turn, gpu, track).find(|claimant| claimant.class > roles::class(&workload.spec));
    let itself = || {
        let others = turn.sample.workloads.iter().any(|(other, w)| {
            let held = w.gpus.get(gpu).copied().flatten().unwrap_or_default();
            other != id && held >= Bytes(total.0 / SMALL)
        });
        (grows(id) && others).then(|| Claimant { id: id.clone(), class: (false, 0), claim: Claim::Grows })
    };
    let Claimant { id: by, claim, .. } = above.or_else(itself)?;
    Some(Case { id: id.clone(), holds, by, claim })
}

/// Somebody who wants room.
struct Claimant {
    id: WorkloadId,
    class: Class,
    claim: Claim,
}

fn claims<'t>(
    turn: &'t Turn<'_>,
    gpu: &'t GpuId,
    track: &'t GpuTrack,
) -> impl Iterator<Item = Claimant> + use<'t> {
    let (at, within) = (turn.at(), turn.config.gpu.contested_for);
    let present = track.holders.iter().filter_map(|(id, it)| Some((turn.sample.workloads.get(id)?, id, it)));
    let holders = present.filter_map(move |(workload, id, appetite)| {
        let claim = appetite.claim(at, within)?;
        Some(Claimant { id: id.clone(), class: roles::class(&workload.spec), claim })
    });
    let waiting = turn.state.admission.waiting.iter().filter(move |w| w.lacks.as_ref() == Some(gpu));
    let waiting = waiting.map(|w| {
        let known = workload_of(turn.sample, &w.wants.holder);
        let id = known.map_or(&w.wants.holder, |(id, _)| id).clone();
        let class = known.map_or((false, w.wants.priority), |(_, w)| roles::class(&w.spec));
        Claimant { id, class, claim: Claim::Waits }
    });
    holders.chain(waiting)
}

/// Whether one that matters no more than the victim is being asked for memory of this GPU, or can still be.
fn is_asked_below(turn: &Turn<'_>, gpu: &GpuId, victim: &WorkloadId) -> bool {
    let Some(class) = turn.sample.workloads.get(victim).map(|w| roles::class(&w.spec)) else { return false };
    turn.volunteers().any(|(_, w, t)| roles::class(&w.spec) <= class && wish::gives_on(turn, w, t, gpu))
}

/// What the kill will bring, and what was not done instead: by the victim's own doing, and to those who matter less.
fn explain(turn: &Turn<'_>, gpu: &GpuId, id: &WorkloadId, holds: Bytes) -> Taken {
    let Some((workload, track)) = turn.sample.workloads.get(id).zip(turn.state.workloads.get(id)) else {
        return Taken::default();
    };
    let estimate = turn.candidate(workload, track, Bytes::ZERO).map(|c| c.estimate(Rung::Kill));
    let expected = Expected {
        bytes: holds,
        takes: estimate.as_ref().map_or(Span::ZERO, |e| e.takes(holds)),
        observations: estimate.map_or(0, |e| e.observations),
        ..Expected::default()
    };
    let asked = wish::why_not(turn, workload, track, Level::Unload)
        .or_else(|| wish::why_not(turn, workload, track, Level::Offload));
    let own = asked.map(|why| Refused { workload: id.clone(), rung: Rung::Offload, why });
    let rank = roles::rank(&workload.spec);
    let lower = turn.tracked().filter(|(_, w, _)| roles::rank(&w.spec) < rank && w.gpus.contains_key(gpu));
    let lower = lower.map(|(id, w, t)| {
        let why = match w.spec.preference {
            Preference::Omit => Refusal::Omit,
            _ if roles::is_protected(turn.config, w) => Refusal::Protected,
            _ if t.held.rung == Rung::Kill => Refusal::Undying,
            _ if !roles::allows(turn.config, w, Rung::Kill) => Refusal::NotAllowed,
            _ => Refusal::Nothing,
        };
        Refused { workload: id.clone(), rung: Rung::Kill, why }
    });
    Taken { expected, refused: own.into_iter().chain(lower).take(Refused::MOST).collect() }
}
