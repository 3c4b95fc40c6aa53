//! Who is sensed on, who may be acted on, and with which rungs.

use crate::config::Config;
use crate::sample::{Preference, Qos, Rung, Sample, Spec, Workload, WorkloadId};

/// Sensed on, given `memory.low`, never a victim.
pub(crate) fn is_protected(config: &Config, workload: &Workload) -> bool {
    protects(config, &workload.spec)
}

/// Whether what was declared of a workload makes it a protected one.
pub(crate) fn protects(config: &Config, spec: &Spec) -> bool {
    spec.priority >= config.protect_priority
}

/// How much a workload matters: those that ask to be avoided most, then by priority.
pub(crate) type Class = (bool, i32);

/// What is a reason to take from one for another's sake. The lint has its own.
pub(crate) fn class(spec: &Spec) -> Class {
    (spec.preference == Preference::Avoid, spec.priority)
}

/// The order in which workloads yield, the first one lowest: by class, and within it by what Kubernetes was promised of them. A
/// higher quality of service is no reason to take from a lower one, only to take there first.
pub(crate) type Rank = (Class, Qos);

/// The place of a workload in it.
pub(crate) fn rank(spec: &Spec) -> Rank {
    (class(spec), spec.qos)
}

/// May be a victim of some rung.
pub(crate) fn is_eligible(config: &Config, workload: &Workload) -> bool {
    workload.spec.preference != Preference::Omit
        && !is_protected(config, workload)
        && workload.populated != Some(false)
}

/// Whether both the ladder and the workload's own rungs have this one.
pub(crate) fn allows(config: &Config, workload: &Workload, rung: Rung) -> bool {
    config.ladder.rungs.contains(&rung) && workload.spec.rungs.contains(&rung)
}

/// The protected workloads of a sample.
pub(crate) fn protected<'a>(
    config: &'a Config,
    sample: &'a Sample,
) -> impl Iterator<Item = (&'a WorkloadId, &'a Workload)> {
    sample.workloads.iter().filter(|(_, w)| is_protected(config, w))
}
