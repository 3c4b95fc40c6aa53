//! Dry rungs: what would be done is decided beside what is done.
//!
//! Every pass decides twice on the same state: once without the dry rungs, which is what happens, and once with them on a copy
//! that is thrown away, which is what would happen. So nothing that is really decided ever rests on an action that was not taken:
//! no memory on its way, no kill in flight, no workload that has stopped growing. The talk in turn is about the machine as
//! it is; what would have followed from an action that was not taken, nobody knows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::assess::Assessed;
use crate::config::Config;
use crate::decide::wanted;
use crate::lint::Before;
use crate::pass::decided;
use crate::plan::{Finding, Plan, Tier, Wanted, Would};
use crate::sample::{Rung, Sample, Trigger, WorkloadId};
use crate::state::{State, Track};
use crate::units::Span;

/// Where a dry rung would do, nothing harsher is done in its place for so long: what is really put on a rung has about as
/// long to show that it helps. Nobody is killed in place of a dry rung, ever.
const PATIENCE: Span = Span::secs(1);

/// What a pass would do with the dry rungs.
#[derive(Default)]
pub(crate) struct Talk {
    wants: BTreeMap<WorkloadId, Wanted>,
    findings: Vec<Finding>,
}

/// The configuration without the dry rungs.
pub(crate) fn without(config: &Config) -> Cow<'_, Config> {
    let dry = &config.ladder.dry_run;
    if dry.is_off() {
        return Cow::Borrowed(config);
    }
    let mut real = config.clone();
    real.ladder.rungs.retain(|rung| !dry.covers(*rung));
    Cow::Owned(real)
}

/// Decides with the dry rungs, on a copy of the state.
pub(crate) fn talk(
    config: &Config,
    state: &State,
    sample: &Sample,
    assessed: &Assessed,
    before: &Before,
) -> Talk {
    let dry = &config.ladder.dry_run;
    // Nothing is ever begun in calm, and copying the state has its price.
    let calm = assessed.report.worst_tier() == Tier::Normal;
    if dry.is_off() || calm || sample.trigger == Trigger::Shutdown {
        return Talk::default();
    }
    let (plan, findings) = decided(config, &mut state.clone(), sample, assessed, before);
    let evicts = |w: &Wanted| w.evict && dry.covers(Rung::Kill);
    let wants = plan.workloads.into_iter().filter(|(_, w)| dry.covers(w.rung) || evicts(w));
    Talk { wants: wants.collect(), findings }
}

/// Puts the talk into the plan, and into the state, so that it is not news again in the next pass.
pub(crate) fn keep(
    config: &Config,
    talk: Talk,
    before: &Before,
    state: &mut State,
    sample: &Sample,
    (plan, findings): (&mut Plan, &mut Vec<Finding>),
) {
    if config.ladder.dry_run.is_off() {
        return;
    }
    for (id, Wanted { rung, .. }) in &talk.wants {
        let (former, track) = (before.rung(id), state.workloads.get_mut(id));
        if let (Some(track), Some(entry)) = (track, plan.workloads.get_mut(id))
            && entry.rung > *rung.max(&former)
            && (entry.kill
                || track.would.as_ref().is_none_or(|would| sample.at.since(would.since) < PATIENCE))
        {
            before.restore(id, track);
            *entry = wanted(track, &config.ladder, sample.at);
        }
    }
    findings
        .extend(talk.findings.into_iter().filter(|finding| !findings.contains(finding)).collect::<Vec<_>>());
    note(config, &talk.wants, state, sample, plan);
}

/// The highest that was called for stands until it has not been called for during a hold time.
fn note(
    config: &Config,
    wants: &BTreeMap<WorkloadId, Wanted>,
    state: &mut State,
    sample: &Sample,
    plan: &mut Plan,
) {
    let spoken_of = |(id, track): &(&WorkloadId, &mut Track)| {
        let told = track.would.is_some() || wants.contains_key(*id);
        told && sample.workloads.contains_key(*id)
    };
    for (id, track) in state.workloads.iter_mut().filter(spoken_of) {
        let real = plan.workloads[id].rung;
        let over = sample.at.since(track.would_at) >= config.ladder.hold;
        if track.would.as_ref().is_some_and(|old| over || (old.rung <= real && !old.evict)) {
            track.would = None;
        }
        if let Some(Wanted { rung, evict, evidence, .. }) = wants.get(id).filter(|w| w.rung > real || w.evict)
        {
            let old = track.would.as_ref().map_or((Rung::Free, false), |old| (old.rung, old.evict));
            if (*rung, *evict) > old {
                state.action = state.action.saturating_add(1);
                let (rung, evict, action, evidence) = (*rung, *evict, state.action, evidence.clone());
                track.would = Some(Would { rung, evict, action, since: sample.at, evidence });
            }
            if (*rung, *evict) >= old {
                track.would_at = sample.at;
            }
        }
        if track.would.is_some() {
            plan.workloads.entry(id.clone()).or_default().would.clone_from(&track.would);
        }
    }
}
