//! A machine with many workloads, few of which do anything: what a pass is timed and counted on.

use plimsoll_policy::config::Config;
use plimsoll_policy::pass::step;
use plimsoll_policy::plan::{Plan, Wanted};
use plimsoll_policy::sample::{
    Events, Host, Meminfo, MemoryStat, Psi, Rung, Sample, Spec, Vmstat, Workload, WorkloadId,
};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Limit, Monotonic, Span};

/// Time between two samples: the busy pace.
const APART: Span = Span::millis(50);
/// What everybody has at the start.
const BASE: u64 = 200 << 20;
/// The active ones fill a fifth of the machine within this many samples.
const FILL: u64 = 100;
/// How often `memory.stat` is read again, in samples.
const STAT_EVERY: u64 = 10;

/// The machine, the policy's state, and the sample that comes next.
pub(crate) struct Crowd {
    config: Config,
    state: State,
    sample: Sample,
    active: Vec<WorkloadId>,
    total: u64,
    number: u64,
    most_held: usize,
}

impl Crowd {
    /// `all` workloads on a machine that they fill by three quarters. `active` of them grow until they are
    /// stopped, and every other one of these may only be trimmed, so that it goes on growing, gives it back, and begins anew.
    pub(crate) fn new(all: usize, active: usize) -> Self {
        let ids: Vec<WorkloadId> = (0..all).map(id).collect();
        // Spread over the whole order of the ids.
        let chosen: Vec<_> = (0..active).map(|n| ids[n * all / active].clone()).collect();
        let workload = |id: &WorkloadId| workload(id, chosen.iter().position(|c| c == id));
        let workloads = ids.iter().map(|id| (id.clone(), workload(id))).collect();
        let config = Config { protect_priority: 1000, ..Config::default() };
        let sample = Sample { at: Monotonic(60_000_000_000), workloads, ..Sample::default() };
        let total = all as u64 * BASE * 4 / 3;
        let mut crowd =
            Self { config, state: State::default(), sample, active: chosen, total, number: 0, most_held: 0 };
        crowd.host();
        crowd
    }

    /// One pass over the sample. Nothing but the policy runs in here.
    pub(crate) fn pass(&mut self) -> Plan {
        let pass = step(&self.config, std::mem::take(&mut self.state), &self.sample);
        self.state = pass.state;
        pass.plan
    }

    /// The next sample, on a machine that did what the plan says.
    pub(crate) fn advance(&mut self, plan: &Plan) {
        self.number += 1;
        let held = plan.workloads.values().filter(|w| w.rung > Rung::Free).count();
        self.most_held = self.most_held.max(held);
        self.sample.at = self.sample.at + APART;
        let (at, total, number) = (self.sample.at, self.total, self.number);
        for id in &self.active {
            if let Some(workload) = self.sample.workloads.get_mut(id) {
                live(workload, &plan.workloads[id], total / self.active.len() as u64 / 5);
            }
        }
        if number.is_multiple_of(STAT_EVERY) {
            self.sample.workloads.values_mut().for_each(|w| w.stat_at = at);
        }
        self.host();
    }

    /// How many were on a rung at once.
    pub(crate) fn most_held(&self) -> usize {
        self.most_held
    }

    fn host(&mut self) {
        let used: u64 = self.sample.workloads.values().filter_map(|w| w.current).map(|c| c.0).sum();
        let free = Bytes(self.total.saturating_sub(used));
        let meminfo = Meminfo { total: Bytes(self.total), free, available: free, ..Meminfo::default() };
        let psi = Some(Psi { some_us: self.number * 10, full_us: 0 });
        self.sample.host =
            Host { meminfo: Some(meminfo), vmstat: Some(Vmstat::default()), psi, probes: None };
    }
}

/// As under Kubernetes: long paths that begin alike.
fn id(n: usize) -> WorkloadId {
    let pod =
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{n:08x}_93d2_4f0e_b8a1.slice");
    WorkloadId {
        path: format!("{pod}/cri-containerd-{:064x}.scope", n * 7919).into(),
        inode: 1000 + n as u64,
    }
}

fn workload(id: &WorkloadId, active: Option<usize>) -> Workload {
    let mut spec =
        Spec { name: id.inode.to_string(), priority: (id.inode % 5) as i32 * 10, ..Spec::default() };
    match active {
        Some(n) if n % 2 == 1 => spec.rungs = vec![Rung::Trim],
        Some(_) => spec.rungs = vec![Rung::Trim, Rung::Throttle, Rung::Freeze],
        // One in twenty is protected.
        None if id.inode.is_multiple_of(20) => spec.priority = 1000,
        None => {}
    }
    let stat = MemoryStat { anon: Bytes(BASE), ..MemoryStat::default() };
    Workload {
        spec,
        current: Some(Bytes(BASE)),
        swap: Some(Bytes::ZERO),
        swap_ram: Some(Bytes::ZERO),
        stat: Some(stat),
        stat_at: Monotonic(60_000_000_000),
        high: Some(Limit::Max),
        low: Some(Limit::Bytes(Bytes::ZERO)),
        max: Some(Limit::Max),
        swap_max: Some(Limit::Max),
        events: Some(Events::default()),
        psi: Some(Psi::default()),
        frozen: Some(false),
        populated: Some(true),
        ..Workload::default()
    }
}

/// One that is frozen stands still; one that grew enough gives it all back.
fn live(workload: &mut Workload, wanted: &Wanted, most: u64) {
    workload.frozen = Some(wanted.frozen);
    let current = workload.current.map_or(0, |c| c.0);
    let next = match wanted {
        _ if wanted.frozen => current,
        _ if current >= BASE + most => BASE,
        _ => current + most / FILL,
    };
    workload.current = Some(Bytes(wanted.high.map_or(next, |high| next.min(high.0.max(BASE)))));
}
