//! What the log says of passes: each change once, a mistake of ours once for each kind.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::plan::{Assessment, Evidence, Finding, Plan, Tier};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::Monotonic;

use crate::kubernetes::PodRef;
use crate::kubernetes::needs::Unmet;
use crate::sense::clock::now;

/// What was said last.
#[derive(Default)]
pub(super) struct Voice {
    tier: Tier,
    gpus: BTreeMap<GpuId, Tier>,
    paused: Option<Monotonic>,
    rungs: BTreeMap<WorkloadId, Rung>,
    /// Number of the newest action that was only talked about.
    talked: u64,
    held_off: BTreeMap<WorkloadId, Monotonic>,
    complained: BTreeSet<(u8, bool)>,
}

impl Voice {
    /// Says what is new.
    pub(super) fn pass(&mut self, assessment: &Assessment, plan: &Plan, findings: &[Finding]) {
        self.say(assessment, plan);
        self.talk(plan);
        self.say_paused(plan.paused);
        self.complain(findings);
    }

    /// Says once that the tier or a rung changed.
    fn say(&mut self, assessment: &Assessment, plan: &Plan) {
        let tier = assessment.tier;
        if self.tier != tier {
            tracing::info!(tier.from = %self.tier, tier.to = %tier, "host tier changed");
            self.tier = tier;
        }
        for (gpu, seen) in &assessment.gpus {
            let from = self.gpus.get(gpu).copied().unwrap_or_default();
            if from != seen.tier {
                let (to, contested) = (seen.tier, seen.contested);
                tracing::info!(%gpu, tier.from = %from, tier.to = %to, contested, "gpu tier changed");
            }
        }
        self.gpus = assessment.gpus.iter().map(|(gpu, seen)| (gpu.clone(), seen.tier)).collect();
        let let_go = self.rungs.keys().filter(|id| !plan.workloads.contains_key(*id));
        for id in plan.workloads.keys().chain(let_go) {
            let (from, wanted) = (self.rungs.get(id).copied().unwrap_or_default(), &plan.workloads[id]);
            if from != wanted.rung {
                let because = said(&wanted.evidence);
                tracing::info!(
                    workload = %id, rung.from = %from, rung.to = %wanted.rung, action = wanted.action, because,
                    "rung changed"
                );
            }
        }
        self.rungs = plan.workloads.iter().map(|(id, wanted)| (id.clone(), wanted.rung)).collect();
    }

    /// Says once what a dry rung would have done, and who is not let go any more.
    fn talk(&mut self, plan: &Plan) {
        for (id, wanted) in &plan.workloads {
            if let Some(would) = wanted.would.as_ref().filter(|would| would.action > self.talked) {
                let because = said(&would.evidence);
                tracing::info!(
                    workload = %id, rung = %wanted.rung, rung.would = %would.rung, action = would.action, because,
                    "dry run: would change the rung"
                );
            }
            match wanted.held_off {
                Some(until) if self.held_off.insert(id.clone(), until) != Some(until) => {
                    tracing::info!(
                        workload = %id, held_off = %until.since(now()), because = said(&wanted.evidence),
                        "a workload flaps: it is not let go for a while"
                    );
                }
                Some(_) => {}
                None => drop(self.held_off.remove(id)),
            }
        }
        let newest = plan.workloads.values().filter_map(|wanted| Some(wanted.would.as_ref()?.action)).max();
        self.talked = self.talked.max(newest.unwrap_or_default());
    }

    /// Says once that a pause began, lasts longer, or is over.
    fn say_paused(&mut self, until: Option<Monotonic>) {
        match until {
            Some(until) if self.paused != Some(until) => {
                tracing::warn!(lasts = %until.since(now()), "paused: everything is let go and nothing is done");
            }
            None if self.paused.is_some() => tracing::info!("the pause is over"),
            _ => {}
        }
        self.paused = until;
    }

    /// Lint has found a mistake of ours. Each kind is told once; the metric counts them all.
    fn complain(&mut self, findings: &[Finding]) {
        for finding in findings {
            let Finding { workload, invariant, fatal, message } = finding;
            if self.complained.insert((*invariant, *fatal)) {
                let workload = workload.as_ref().map(ToString::to_string);
                tracing::error!(invariant, blocked = fatal, workload, message, "a plan broke an invariant");
            }
        }
    }
}

/// A container that is not promised what it needs.
pub(super) fn say_unmet(unmet: &Unmet) {
    let Unmet { of: PodRef { namespace, pod, container, uid: _ }, needs, refusal } = unmet;
    tracing::warn!(namespace, pod, container, %needs, because = %refusal, "no room for what a pod needs");
}

fn said(evidence: &[Evidence]) -> String {
    evidence.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
