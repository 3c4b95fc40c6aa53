//! How it stands with every resource, and what is done to whom: for all who want to be told when it changes.
//!
//! The pass compares, and publishes only what differs. Whoever listens looks at the newest state when he has the time, and works
//! out what he has not been told yet ([`super::notices`]): nothing is queued for anybody, so nobody can be late for anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_policy::assess::thrashing::ThrashState;
use plimsoll_policy::concession::{Level, Wish};
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::plan::{Assessment, Plan, Tier, Wanted};
use plimsoll_policy::sample::{Rung, Spec, WorkloadId};
use plimsoll_policy::units::Span;
use tokio::sync::watch;

/// One moment, as far as clients are concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Tier of the host.
    pub(super) host: Tier,
    /// Tiers of the GPUs.
    pub(super) gpus: BTreeMap<GpuId, Tier>,
    /// What the faults of the protected amount to.
    pub(super) thrash: ThrashState,
    /// Every workload.
    pub(super) workloads: Arc<BTreeMap<WorkloadId, Known>>,
    /// What is done to those to whom something is done.
    pub(super) doing: BTreeMap<WorkloadId, Doing>,
    /// The daemon is about to leave.
    pub(super) stopping: bool,
}

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) priority: i32,
    pub(super) protected: bool,
}

/// What is done to a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Doing {
    pub(super) rung: Rung,
    pub(super) level: Level,
    /// GPUs that it is asked for.
    pub(super) gpus: Vec<GpuId>,
    /// From the asking to the end of verification.
    pub(super) deadline: Span,
}

impl Doing {
    /// `None` where nothing is done.
    fn of(wanted: &Wanted) -> Option<Self> {
        let Wish { level, gpus, deadline, .. } = wanted.wish.clone().unwrap_or_default();
        let idle = wanted.rung == Rung::Free && level == Level::Nothing;
        (!idle).then_some(Self { rung: wanted.rung, level, gpus, deadline })
    }

    /// Whether this is what a plan wants, without a copy of it.
    fn is(&self, wanted: &Wanted) -> bool {
        let (level, gpus) =
            wanted.wish.as_ref().map_or((Level::Nothing, &[][..]), |wish| (wish.level, &wish.gpus));
        (self.rung, self.level) == (wanted.rung, level) && self.gpus == gpus
    }
}

impl Conditions {
    /// The tiers of all resources, by the word for each.
    pub(super) fn tiers(&self) -> impl Iterator<Item = (String, Tier)> {
        let gpus = self.gpus.iter().map(|(id, tier)| (format!("gpu:{id}"), *tier));
        [("host".to_owned(), self.host)].into_iter().chain(gpus)
    }

    /// The workload that a cgroup is, or is within.
    pub(super) fn workload_of(&self, cgroup: &WorkloadId) -> Option<(&WorkloadId, &Known)> {
        let holds = |id: &WorkloadId| {
            let below = cgroup.path.strip_prefix(&*id.path);
            below.is_some_and(|below| if below.is_empty() { cgroup == id } else { below.starts_with('/') })
        };
        self.workloads.iter().find(|(id, _)| holds(id))
    }

    fn is(&self, assessment: &Assessment, plan: &Plan) -> bool {
        let gpus = || assessment.gpus.iter().map(|(id, gpu)| (id, gpu.tier));
        let busy = || plan.workloads.iter().filter(|(_, wanted)| Doing::of(wanted).is_some());
        (self.host, self.thrash) == (assessment.tier, assessment.thrash)
            && self.gpus.iter().map(|(id, tier)| (id, *tier)).eq(gpus())
            && self.doing.len() == busy().count()
            && busy().zip(&self.doing).all(|((id, wanted), (was, doing))| id == was && doing.is(wanted))
    }
}

/// Tells how it stands. Held by the owner of the state; nobody can make it wait.
#[derive(Clone, Debug)]
pub struct Herald(watch::Sender<Arc<Conditions>>);

impl Default for Herald {
    fn default() -> Self {
        Self(watch::Sender::new(Arc::default()))
    }
}

impl Herald {
    /// For whoever wants to be told.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<Arc<Conditions>> {
        self.0.subscribe()
    }

    /// After a pass.
    pub fn pass(&self, assessment: &Assessment, plan: &Plan) {
        if self.0.borrow().is(assessment, plan) {
            return;
        }
        self.change(|now| {
            (now.host, now.thrash) = (assessment.tier, assessment.thrash);
            now.gpus = assessment.gpus.iter().map(|(id, gpu)| (id.clone(), gpu.tier)).collect();
            let doing = plan.workloads.iter().filter_map(|(id, w)| Some((id.clone(), Doing::of(w)?)));
            now.doing = doing.collect();
        });
    }

    /// After a look for workloads; those of at least this priority are protected.
    pub fn workloads<'a>(
        &self,
        found: impl Iterator<Item = (&'a WorkloadId, &'a Spec)> + Clone,
        protect_priority: i32,
    ) {
        let known = |spec: &Spec| Known {
            name: spec.name.clone(),
            priority: spec.priority,
            protected: spec.priority >= protect_priority,
        };
        let same = |(id, spec): (&WorkloadId, &Spec), (was, known): (&WorkloadId, &Known)| {
            id == was && spec.name == known.name && spec.priority == known.priority
        };
        let now = Arc::clone(&self.0.borrow());
        let count = found.clone().count();
        if count != now.workloads.len() || !found.clone().zip(&*now.workloads).all(|(f, w)| same(f, w)) {
            let workloads = found.map(|(id, spec)| (id.clone(), known(spec))).collect();
            self.change(|now| now.workloads = Arc::new(workloads));
        }
    }

    /// Before the daemon leaves.
    pub fn stop(&self) {
        self.change(|now| now.stopping = true);
    }

    fn change(&self, change: impl FnOnce(&mut Conditions)) {
        self.0.send_modify(|now| change(Arc::make_mut(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rung: Rung) -> Plan {
        let id = WorkloadId { path: "m/a".into(), inode: 1 };
        let wanted = Wanted { rung, action: 1, ..Wanted::default() };
        Plan { workloads: [(id, wanted)].into_iter().collect(), ..Plan::default() }
    }

    #[test]
    fn only_what_differs_is_published() {
        let herald = Herald::default();
        let mut heard = herald.listen();
        let normal = Assessment::default();
        let short = Assessment { tier: Tier::Critical, ..Assessment::default() };
        for (assessment, plan, news) in [
            (&normal, plan(Rung::Free), false),
            (&short, plan(Rung::Free), true),
            (&short, plan(Rung::Free), false),
            (&short, plan(Rung::Freeze), true),
            (&short, plan(Rung::Freeze), false),
            (&short, plan(Rung::Free), true),
        ] {
            herald.pass(assessment, &plan);
            assert_eq!(heard.has_changed().unwrap(), news, "{:?}", plan.workloads);
            heard.mark_unchanged();
        }
    }

    #[test]
    fn a_cgroup_belongs_to_the_workload_that_it_is_within() {
        let herald = Herald::default();
        let id = |path: &str, inode| WorkloadId { path: path.into(), inode };
        let (a, spec) = (id("m/a", 1), Spec::default());
        herald.workloads([(&a, &spec)].into_iter(), 10);
        let now = herald.listen().borrow().clone();
        let check = |path, inode, found| {
            assert_eq!(now.workload_of(&id(path, inode)).is_some(), found, "{path}");
        };
        check("m/a", 1, true);
        check("m/a", 2, false);
        check("m/a/b/c", 7, true);
        check("m/ab", 7, false);
        check("m", 7, false);
    }
}
