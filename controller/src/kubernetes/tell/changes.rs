//! What changed from one pass to the next that the owner of a pod would want to hear of.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::jiff::Timestamp;
use plimsoll_policy::concession::{Concession, Gains, Level};
use plimsoll_policy::plan::{Act, ActResult, Evidence, Outcome, Plan, Wanted};
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};
use plimsoll_policy::units::{Bytes, Monotonic, Span};

use super::happening::{About, Happening, Reason, plain};
use crate::kubernetes::PodRef;

/// What has gone is remembered so long: the end of a kill is heard of after its cgroup was removed.
const REMEMBERED: Span = Span::secs(60);

/// All workloads of pods that something was done to.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<WorkloadId, Known>);

/// What was last wanted of one, and since when.
#[derive(Debug, Default)]
struct Known {
    pod: PodRef,
    rung: Rung,
    throttled: Option<Monotonic>,
    frozen: Option<Monotonic>,
    action: u64,
    because: String,
    seen: Monotonic,
}

impl Changes {
    /// Takes a pass; returns what happened.
    pub(super) fn pass(
        &mut self,
        sample: &Sample,
        plan: &Plan,
        pod: impl Fn(&WorkloadId) -> Option<PodRef>,
    ) -> Vec<Happening> {
        // What ended was wanted by an earlier plan.
        let mut told: Vec<_> = sample.outcomes.iter().filter_map(|outcome| self.ended(outcome)).collect();
        told.extend(sample.conceded.iter().filter_map(|conceded| self.conceded(conceded)));
        for (id, wanted) in &plan.workloads {
            let Some(pod) = self.0.get(id).map(|known| known.pod.clone()).or_else(|| pod(id)) else {
                continue;
            };
            let known = self.0.entry(id.clone()).or_insert_with(|| Known { pod, ..Known::default() });
            let current = sample.workloads.get(id).and_then(|workload| workload.current);
            told.extend(known.wants(wanted, current, sample.at));
        }
        let free = Wanted::default();
        for (id, known) in &mut self.0 {
            if !plan.workloads.contains_key(id) && sample.workloads.contains_key(id) {
                told.extend(known.wants(&free, None, sample.at));
            }
        }
        self.0.retain(|_, known| {
            let busy = known.rung > Rung::Free || known.frozen.is_some();
            sample.at.since(known.seen) < if busy { REMEMBERED } else { Span::secs(5) }
        });
        told
    }

    /// What is let go since the daemon ends.
    pub(super) fn end(&mut self) -> Vec<Happening> {
        let over = std::mem::take(&mut self.0).into_values();
        over.filter_map(|known| {
            let reason = match (known.frozen, known.throttled) {
                (Some(_), _) => Reason::ModelThawed,
                (None, Some(_)) => Reason::ModelReleased,
                (None, None) => return None,
            };
            Some(known.tell(reason, "let go: the controller of this node ends".into()))
        })
        .collect()
    }

    /// An action ended.
    fn ended(&mut self, outcome: &Outcome) -> Option<Happening> {
        let known = self.0.get_mut(&outcome.workload)?;
        let freed = outcome.freed.map_or_else(String::new, |freed| format!(", {freed} freed"));
        let took = outcome.took;
        match (&outcome.act, &outcome.result) {
            (Act::Freeze, ActResult::Done) if known.frozen.is_none() => {
                known.frozen = Some(outcome.begun);
                Some(known.tell(Reason::ModelFrozen, "stopped for its memory to be taken back".into()))
            }
            (Act::Thaw, ActResult::Done) => {
                let lasted = outcome.begun.since(known.frozen.take()?);
                Some(known.tell_only(Reason::ModelThawed, &format!("runs again after {lasted}")))
            }
            (Act::Kill, ActResult::Done | ActResult::Gone) => {
                (known.frozen, known.throttled) = (None, None);
                Some(known.tell(Reason::ModelKilled, format!("killed in {took}{freed}")))
            }
            (Act::Kill, ActResult::Failed(why)) => {
                Some(known.tell(Reason::ModelNotKilled, format!("could not be killed, {why}")))
            }
            (Act::Evict, ActResult::Done) => {
                let text = "asked to end here and start on another node, which the API server granted";
                Some(known.tell(Reason::ModelEvicted, text.into()))
            }
            (Act::Evict, ActResult::Blocked(why)) => {
                Some(known.tell(Reason::EvictionBlocked, format!("may not be evicted, {why}")))
            }
            (Act::Evict, ActResult::Failed(why)) => {
                Some(known.tell(Reason::EvictionFailed, format!("could not be evicted, {why}")))
            }
            _ => None,
        }
    }

    /// An asking ended.
    fn conceded(&self, conceded: &Concession) -> Option<Happening> {
        let known = self.0.get(&conceded.workload)?;
        let Concession { by, took, freed, result, .. } = conceded;
        let restored = match conceded.level {
            Level::Gc | Level::Aggressive => return None,
            Level::Offload | Level::Unload => false,
            Level::Nothing => true,
        };
        Some(match (restored, result) {
            (false, ActResult::Done | ActResult::Partial) => {
                let text = format!("gave back {} by {by} in {took}", gains(freed));
                known.tell(Reason::ModelOffloaded, text)
            }
            (true, ActResult::Done) => {
                known.tell_only(Reason::ModelRestored, &format!("serves again after {took}, by {by}"))
            }
            (false, ActResult::Failed(why)) => {
                known.tell(Reason::ModelNotOffloaded, format!("asked by {by} and did not give back: {why}"))
            }
            (true, ActResult::Failed(why)) => {
                known.tell_only(Reason::ModelNotRestored, &format!("asked by {by} and is not back: {why}"))
            }
            _ => return None,
        })
    }
}

impl Known {
    /// Takes what is wanted now; returns what is to be told at once. The end of a freeze and of a kill is told when it is there.
    fn wants(&mut self, wanted: &Wanted, current: Option<Bytes>, at: Monotonic) -> Option<Happening> {
        let former = std::mem::replace(&mut self.rung, wanted.rung);
        self.seen = at;
        if wanted.action > 0 && (wanted.rung > former || wanted.evict) {
            self.action = wanted.action;
            self.because = said(&wanted.evidence);
        }
        let throttled = wanted.rung == Rung::Throttle && !wanted.leash;
        if throttled && self.throttled.is_none() {
            self.throttled = Some(at);
            let high = wanted.high.filter(|_| former < Rung::Throttle)?;
            let current = current.map_or_else(String::new, |current| format!(", it uses {current}"));
            return Some(self.tell(Reason::ModelThrottled, format!("memory.high set to {high}{current}")));
        }
        if wanted.rung < Rung::Throttle && self.frozen.is_none() {
            let lasted = at.since(self.throttled.take()?);
            return Some(self.tell_only(Reason::ModelReleased, &format!("throttled no more after {lasted}")));
        }
        None
    }

    /// With why it was done.
    fn tell(&self, reason: Reason, mut text: String) -> Happening {
        if !self.because.is_empty() {
            let _ = write!(text, ": {}", self.because);
        }
        self.tell_only(reason, &text)
    }

    /// With the number that `explain` knows it by.
    fn tell_only(&self, reason: Reason, text: &str) -> Happening {
        let mut note = plain(text);
        if self.action > 0 {
            let _ = write!(note, "; action {0}, `plimsoll explain {0}` says more", self.action);
        }
        Happening { about: About::Pod(self.pod.clone()), reason, note, at: Timestamp::now() }
    }
}

fn said(evidence: &[Evidence]) -> String {
    evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// By resource.
fn gains(freed: &Gains) -> String {
    let host = u64::try_from(freed.host)
        .ok()
        .filter(|bytes| *bytes > 0)
        .map(|bytes| format!("{} of host memory", Bytes(bytes)));
    let gpus = freed.gpus.iter().map(|(gpu, bytes)| format!("{bytes} of gpu:{gpu}"));
    let all: Vec<_> = host.into_iter().chain(gpus).collect();
    if all.is_empty() { "nothing that could be measured".into() } else { all.join(", ") }
}

#[cfg(test)]
mod tests;
