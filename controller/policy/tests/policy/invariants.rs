//! What has to hold of every pass, checked from the outside: from samples and plans alone.

use std::collections::BTreeMap;

use plimsoll_policy::config::Config;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::Wanted;
use plimsoll_policy::sample::{Preference, Rung, Sample, Workload, WorkloadId};
use plimsoll_policy::units::{Bytes, Monotonic};

/// Growth above which a workload that is let run is a better victim than one that matters more.
const FAST: i64 = 16 << 20;

/// Watches passes go by.
#[derive(Default)]
pub(crate) struct Watch {
    former: BTreeMap<WorkloadId, Wanted>,
    killed: BTreeMap<WorkloadId, Monotonic>,
}

impl Watch {
    pub(crate) fn look(&mut self, config: &Config, sample: &Sample, pass: &Pass) {
        assert_eq!(pass.findings, [], "the lint found what decide should not have done");
        let unknown = pass.plan.workloads.keys().find(|id| !sample.workloads.contains_key(*id));
        assert_eq!(unknown, None, "a plan for who is not there");
        for (id, workload) in &sample.workloads {
            let wanted = &pass.plan.workloads[id];
            let former = self.former.get(id).cloned().unwrap_or_default();
            if untouchable(config, workload) {
                assert_eq!(wanted.rung, Rung::Free, "{id} may not be touched");
                assert!(!pass.plan.gate.targets.contains(id), "{id} may not be gated");
            }
            high_is_above_the_floor(sample, id, wanted, &former);
            if wanted.rung > former.rung && (former.rung < Rung::Throttle || wanted.kill) {
                lower_ones_gave_first(config, sample, pass, id, wanted.rung);
            }
            assert!(wanted.rung == former.rung || wanted.action > former.action, "every change has a number");
        }
        self.one_kill_at_a_time(config, sample, pass);
        self.former.clone_from(&pass.plan.workloads);
    }

    fn one_kill_at_a_time(&mut self, config: &Config, sample: &Sample, pass: &Pass) {
        for (id, _) in pass.plan.workloads.iter().filter(|(_, w)| w.kill) {
            self.killed.entry(id.clone()).or_insert(sample.at);
        }
        let deadline = config.ladder.kill_deadline;
        let alive = |id: &WorkloadId| sample.workloads.get(id).is_some_and(|w| w.populated != Some(false));
        let flying = self.killed.iter().filter(|(id, at)| alive(id) && sample.at.since(**at) < deadline);
        assert!(flying.count() <= 1, "two kills in flight");
    }
}

fn untouchable(config: &Config, workload: &Workload) -> bool {
    workload.spec.preference == Preference::Omit || workload.spec.priority >= config.protect_priority
}

fn high_is_above_the_floor(sample: &Sample, id: &WorkloadId, wanted: &Wanted, former: &Wanted) {
    let (Some(high), Some(stat)) =
        (wanted.high.filter(|_| wanted.high != former.high), sample.workloads[id].stat)
    else {
        return;
    };
    let swap = sample.host.meminfo.map_or(Bytes::ZERO, |m| m.swap_free);
    assert!(
        high >= (stat.anon + stat.shmem).saturating_sub(swap),
        "{id}: memory.high {high} below the floor"
    );
}

/// Nobody is braked while one of lower priority runs free and grows, or killed while one could be killed before him.
/// A throttle that turns into a freeze is no new brake.
fn lower_ones_gave_first(config: &Config, sample: &Sample, pass: &Pass, id: &WorkloadId, rung: Rung) {
    let rank = |w: &Workload| (w.spec.preference == Preference::Avoid, w.spec.priority);
    let victim = &sample.workloads[id];
    for (other, workload) in &sample.workloads {
        let lower = rank(workload) < rank(victim);
        if !lower || untouchable(config, workload) || workload.populated == Some(false) {
            continue;
        }
        let (now, may) = (pass.plan.workloads[other].rung, |r| workload.spec.rungs.contains(&r));
        if rung == Rung::Kill && may(Rung::Kill) {
            let anon = workload.stat.map_or(Bytes::ZERO, |s| s.anon);
            assert!(now == Rung::Kill || anon < Bytes::mib(4), "{id} is killed before {other}");
        }
        let growth = pass.assessment.growth.get(other).copied().unwrap_or(0);
        // One that may only be throttled rests from a futile throttle; then it is nobody's alternative.
        if matches!(rung, Rung::Throttle | Rung::Freeze) && may(rung) && may(Rung::Freeze) && growth > FAST {
            assert!(now > Rung::Free, "{id} is put on {rung} while {other} grows by {growth}");
        }
    }
}
