//! Keeps the kernel's gate as the plan wants it: written down first, then armed; disarmed first, then continued.

use plimsoll_policy::plan::Gate;
use plimsoll_policy::sample::WorkloadId;

use crate::act::Actor;
use crate::act::react::{Order, StandingTarget};
use crate::sense::Senses;
use crate::sense::probes::Probes;

/// The gate as it stands in the kernel.
#[derive(Default)]
pub(super) struct Gatekeeper {
    now: Gate,
    ids: (Vec<u64>, Vec<u64>),
}

impl Gatekeeper {
    /// Brings the kernel's gate to what is wanted.
    pub(super) fn hold(&mut self, wanted: &Gate, probes: &mut Probes, senses: &Senses, actor: &mut Actor) {
        let ids = (ids(&wanted.targets, senses), ids(&wanted.protected, senses));
        if *wanted != self.now || ids != self.ids {
            let done = if wanted.armed() {
                self.arm(wanted, &ids, probes, senses, actor)
            } else {
                actor.reaction().order(Order::Standing(Vec::new()));
                probes.disarm()
            };
            match done {
                Ok(()) => (self.now, self.ids) = (wanted.clone(), ids),
                Err(error) => {
                    tracing::warn!(error = %error, armed = wanted.armed(), "could not set the gate");
                }
            }
        }
        actor.settle_gate(&self.now.targets);
    }

    fn arm(
        &self,
        wanted: &Gate,
        ids: &(Vec<u64>, Vec<u64>),
        probes: &mut Probes,
        senses: &Senses,
        actor: &Actor,
    ) -> Result<(), crate::sense::probes::ProbesError> {
        actor.mark_gate(&wanted.targets);
        let targets = wanted
            .targets
            .iter()
            .map(|id| StandingTarget { inode: id.inode, ids: self::ids(std::slice::from_ref(id), senses) });
        actor.reaction().order(Order::Standing(targets.collect()));
        probes.arm(&ids.0, &ids.1)?;
        if !self.now.armed() {
            tracing::info!(targets = wanted.targets.len(), "gate armed");
        }
        Ok(())
    }
}

/// Cgroup ids of workloads and of all below them.
fn ids(workloads: &[WorkloadId], senses: &Senses) -> Vec<u64> {
    workloads
        .iter()
        .filter_map(|id| senses.tracked().get(id))
        .flat_map(|tracked| tracked.ids.clone())
        .collect()
}
