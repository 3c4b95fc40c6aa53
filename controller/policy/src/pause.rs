//! What an operator holds off for a while: everything, or what is done to one workload.
//!
//! A pause is a dry run of everything with an end: what is held is let go, and what would be done is still told. It is asked for
//! by a request in a sample, so a journal tells it, and a replay of that journal pauses as well.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::admission::{Answer, Call, Caller, Reply, Request};
use crate::config::{Config, DryRun};
use crate::sample::{Rung, Sample, Trigger, WorkloadId};
use crate::state::State;
use crate::units::{Monotonic, Span};

/// What is held off at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// Nothing is done before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Monotonic>,
    /// Nothing is taken from these before then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub spared: BTreeMap<WorkloadId, Monotonic>,
}

/// Does as operators say, and forgets what is over.
pub(crate) fn obey(state: &mut State, sample: &Sample) -> Vec<Answer> {
    // Everything is let go then, and whoever asks is told that nobody is left to ask.
    if sample.trigger == Trigger::Shutdown {
        return Vec::new();
    }
    state.pause.until = state.pause.until.filter(|until| *until > sample.at);
    state.pause.spared.retain(|_, until| *until > sample.at);
    sample.requests.iter().filter_map(|request| answer(state, sample, request)).collect()
}

fn answer(state: &mut State, sample: &Sample, request: &Request) -> Option<Answer> {
    let reply = match &request.call {
        // Whoever is no operator does not come this far; a journal from elsewhere may tell of one.
        Call::Pause { .. } | Call::Resume | Call::LetGo { .. } if request.caller != Caller::Root => {
            Reply::LetGo { held: BTreeMap::new() }
        }
        Call::Pause { lasts } => {
            state.pause.until = Some(sample.at + *lasts);
            Reply::LetGo { held: held(state, None) }
        }
        Call::LetGo { workload, lasts } => {
            let until = sample.at + *lasts;
            let standing = match workload {
                Some(id) => state.pause.spared.entry(id.clone()).or_default(),
                None => state.pause.until.get_or_insert_default(),
            };
            *standing = until.max(*standing);
            Reply::LetGo { held: held(state, workload.as_ref()) }
        }
        Call::Resume => {
            let paused = std::mem::take(&mut state.pause) != Pause::default();
            Reply::Resumed { paused }
        }
        _ => return None,
    };
    Some(Answer { ticket: request.ticket, reply })
}

/// What there is to be let go of this workload, or of all.
fn held(state: &State, only: Option<&WorkloadId>) -> BTreeMap<WorkloadId, Rung> {
    let asked_for = |id: &WorkloadId| only.is_none_or(|only| only == id);
    let tracks = state.workloads.iter().filter(|(id, track)| asked_for(id) && track.rung() > Rung::Free);
    tracks.map(|(id, track)| (id.clone(), track.rung())).collect()
}

/// The configuration that is in force.
pub(crate) fn config<'a>(config: &'a Config, state: &State) -> Cow<'a, Config> {
    if state.pause.until.is_none() {
        return Cow::Borrowed(config);
    }
    let mut paused = config.clone();
    paused.ladder.dry_run = DryRun::Whole(true);
    Cow::Owned(paused)
}

/// The sample as the decisions are to see it: no rung may be used on those that are spared.
pub(crate) fn sample<'a>(sample: &'a Sample, state: &State) -> Cow<'a, Sample> {
    let is_spared = |id: &&WorkloadId| sample.workloads.contains_key(*id);
    let spared: Vec<&WorkloadId> = state.pause.spared.keys().filter(is_spared).collect();
    if spared.is_empty() {
        return Cow::Borrowed(sample);
    }
    let mut seen = sample.clone();
    for id in spared {
        if let Some(workload) = seen.workloads.get_mut(id) {
            workload.spec.rungs.clear();
        }
    }
    Cow::Owned(seen)
}

/// The longest that a pause may last: who forgets it finds the machine protected the next day.
pub const LONGEST: Span = Span::secs(86_400);
