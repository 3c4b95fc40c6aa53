//! Room on GPUs: which device a request is about, what is to be held of it, and whether it has that.
//!
//! A GPU that shares the host's memory has none of its own: what is asked of it is asked of the host.

use std::collections::BTreeMap;

use super::Session;
use super::answer::{GpuRoom, Reason, Refusal};
use super::desk::Hold;
use super::request::{Call, Caller, Request, Reserve};
use super::room::Vacancy;
use super::settle::workload_of;
use crate::assess::Assessed;
use crate::config::Config;
use crate::gpu::GpuId;
use crate::plan::{GpuAssessment, Tier};
use crate::sample::{Sample, WorkloadId};
use crate::units::{Bytes, Share};

/// Why a request is not granted, and which device lacks the room; `None` = the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denied {
    pub(super) reason: Reason,
    pub(super) gpu: Option<GpuId>,
}

impl From<Reason> for Denied {
    fn from(reason: Reason) -> Self {
        Self { reason, gpu: None }
    }
}

/// What those want who come first.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    pub(super) host: Bytes,
    pub(super) gpus: BTreeMap<GpuId, Bytes>,
}

impl Ahead {
    pub(super) fn on(&self, gpu: &GpuId) -> Bytes {
        self.gpus.get(gpu).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, host: Bytes, gpus: &BTreeMap<GpuId, Hold>) {
        self.host = self.host + host;
        for (gpu, hold) in gpus {
            let ahead = self.gpus.entry(gpu.clone()).or_default();
            *ahead = *ahead + hold.promised;
        }
    }
}

/// What there is on every GPU.
pub(super) fn vacancies(
    config: &Config,
    sample: &Sample,
    assessed: &Assessed,
    reserved: impl Fn(&GpuId) -> Bytes,
) -> BTreeMap<GpuId, Vacancy> {
    let one = |(id, report): (&GpuId, &GpuAssessment)| {
        let reading = sample.gpus.get(id)?;
        let total = reading.total.unwrap_or_default();
        // Kept back is what keeps it out of critical: from there on others are made to leave. Engines take nine tenths of a GPU as
        // a matter of course, so that keeping it out of constrained would refuse them on an empty one.
        let least_margin = total.saturating_sub(total.share(config.gpu.critical.used));
        let vacancy = Vacancy {
            tier: report.tier,
            total,
            headroom: reading.used.filter(|_| !report.is_stale()).map(|used| total.saturating_sub(used)),
            margin: (report.tier < Tier::Critical).then_some(least_margin),
            least_margin,
            reserved: reserved(id),
            dwell: config.gpu.dwell_down,
        };
        Some((id.clone(), vacancy))
    };
    assessed.report.gpus.iter().filter_map(one).collect()
}

impl Session<'_> {
    /// What a request asks of GPUs that share the host's memory, and what is to be held of each that does not.
    pub(super) fn of_gpus(&self, wants: &Reserve, ahead: &Ahead) -> (Bytes, BTreeMap<GpuId, Hold>) {
        let (mut of_host, mut holds) = (Bytes::ZERO, BTreeMap::new());
        let named = wants.gpus.iter().filter(|(id, _)| !id.is_any());
        for (id, asked) in named.chain(wants.gpus.iter().filter(|(id, _)| id.is_any())) {
            match self.device(id, &holds, ahead) {
                Some(device) => {
                    let promised = *asked + asked.share(self.error_on(&wants.holder, &device));
                    holds.insert(device, Hold { asked: *asked, promised, ..Hold::default() });
                }
                None => of_host = of_host + *asked,
            }
        }
        (of_host, holds)
    }

    /// The device that an id stands for; `None` where that one's memory is the host's.
    fn device(&self, id: &GpuId, taken: &BTreeMap<GpuId, Hold>, ahead: &Ahead) -> Option<GpuId> {
        let unified = |id| self.sample.gpus.get(id).is_some_and(|gpu| gpu.unified);
        if !id.is_any() {
            return (!unified(id)).then(|| id.clone());
        }
        let room = |(id, vacancy): &(&GpuId, &Vacancy)| vacancy.free(ahead.on(id));
        let free = self.devices.iter().filter(|(id, _)| !taken.contains_key(*id));
        // Of equals the first.
        let best = free.rev().max_by_key(room).map(|(id, _)| id.clone());
        if best.is_none() && self.sample.gpus.keys().any(unified) {
            None
        } else {
            Some(best.unwrap_or(id.clone()))
        }
    }

    /// Whether every device has what is to be held of it. What will never do is said first.
    pub(super) fn admit_on_gpus(&self, holds: &BTreeMap<GpuId, Hold>, ahead: &Ahead) -> Result<(), Denied> {
        let denied = |(id, hold): (&GpuId, &Hold)| {
            let vacancy = self.devices.get(id);
            let admitted = vacancy.map_or(Err(Reason::Unknown), |v| v.admit(hold.promised, ahead.on(id)));
            admitted.err().map(|reason| Denied { reason, gpu: Some(id.clone()) })
        };
        // Of equals the first.
        let worst = holds.iter().rev().filter_map(denied).max_by_key(|denied| !denied.reason.may_pass());
        worst.map_or(Ok(()), Err)
    }

    /// A refusal with the numbers of the device that is to blame.
    pub(super) fn refusal(&self, denied: &Denied, wants: &Reserve) -> Refusal {
        let Denied { reason, gpu: Some(gpu) } = denied else {
            let (asked, promised) = self.least(wants);
            return self.vacancy.refusal(denied.reason, asked, promised);
        };
        let (_, holds) = self.of_gpus(wants, &Ahead::default());
        let Hold { asked, promised, .. } = holds.get(gpu).copied().unwrap_or_default();
        let vacancy = self.devices.get(gpu).copied().unwrap_or_default();
        Refusal { gpu: Some(gpu.clone()), ..vacancy.refusal(*reason, asked, promised) }
    }

    /// For whoever only wants to know.
    pub(super) fn rooms(&self, ahead: &Ahead) -> BTreeMap<GpuId, GpuRoom> {
        let room = |(id, vacancy): (&GpuId, &Vacancy)| {
            let room = vacancy.room(ahead.on(id));
            let (tier, available, reserved) = (room.tier, room.available, room.reserved);
            (id.clone(), GpuRoom { tier, available, reserved, admissible: room.admissible })
        };
        self.devices.iter().map(room).collect()
    }

    /// An allocation failed there: the next time more is held for this workload. Devices and workloads that the sample does not know
    /// are not remembered, or whoever has many cgroups could fill what is.
    pub(super) fn learn_of_gpu(&mut self, request: &Request) -> Option<Share> {
        let Call::CudaOutOfMemory { cgroup, gpu } = &request.call else { return None };
        let (id, workload) = workload_of(self.sample, cgroup)?;
        let may = match &request.caller {
            Caller::Root => true,
            Caller::Cgroup(caller) => workload_of(self.sample, caller).is_some_and(|(own, _)| own == id),
        };
        let meant = |device: &&GpuId| match gpu {
            Some(gpu) => gpu == *device,
            None => workload.gpus.is_empty() || workload.gpus.contains_key(*device),
        };
        let devices = self.devices.keys().filter(meant).filter(|_| may);
        let (path, at) = (id.path.as_ref(), self.sample.at);
        devices.map(|device| self.desk.failed_on(path, device, at)).max()
    }

    fn error_on(&self, holder: &WorkloadId, gpu: &GpuId) -> Share {
        let path = workload_of(self.sample, holder).map_or(&holder.path, |(id, _)| &id.path);
        self.desk.error_on(path, gpu, self.sample.at)
    }
}
