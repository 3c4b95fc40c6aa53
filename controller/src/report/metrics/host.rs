//! Metrics of the resources: how short the host is, and every GPU whose memory is its own.

use std::fmt;

use plimsoll_policy::assess::forecast::Forecast;
use plimsoll_policy::assess::thrashing::ThrashState;
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::plan::{Assessment, GpuAssessment, Tier};
use plimsoll_policy::units::{Bytes, Share, Span};
use prometheus_client::metrics::MetricType::{Counter, Gauge};

use super::{Family, Labels, Samples};
use crate::report::state::State;

const HOST: Labels<'static> = &[("resource", "host")];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_tier",
        help: "1 for the tier that the resource is in. Alert when critical or emergency lasts: add memory or move work away.",
        kind: Gauge,
        samples: |state, out| each(state, |labels, it| out.states(labels, "tier", &Tier::ALL, &it.tier)),
    },
    Family {
        name: "plimsoll_used_ratio",
        help: "Used share of the resource. Close to the threshold of elevated for long: it is loaded too deep.",
        kind: Gauge,
        samples: |state, out| {
            each(state, |labels, it| it.used.map_or(Ok(()), |share| out.gauge(labels, ratio(share))))
        },
    },
    Family {
        name: "plimsoll_headroom_bytes",
        help: "Bytes until the resource is exhausted, file pages of protected workloads not counted as free. \
               Do not start a model that needs more.",
        kind: Gauge,
        samples: |state, out| {
            each(state, |labels, it| it.headroom.map_or(Ok(()), |bytes| out.whole(labels, bytes.0)))
        },
    },
    Family {
        name: "plimsoll_forecast_seconds",
        help: "Time until exhaustion at the present growth; absent while it does not fill or nobody can say.",
        kind: Gauge,
        samples: |state, out| {
            let left = |it: &Resource| it.forecast.left().map(Span::as_secs_f64);
            each(state, |labels, it| left(&it).map_or(Ok(()), |left| out.gauge(labels, left)))
        },
    },
    Family {
        name: "plimsoll_stall_ratio",
        help: "Share of time that protected workloads wait for memory. Above a few per cent their clients notice.",
        kind: Gauge,
        samples: |state, out| with(state, |now| maybe(out, now.stall.map(ratio))),
    },
    Family {
        name: "plimsoll_thrash_rate",
        help: "Pages per second that protected workloads fault back in. Lasting: their working sets do not fit.",
        kind: Gauge,
        samples: |state, out| {
            with(state, |now| now.thrash_per_second.map_or(Ok(()), |rate| out.whole(HOST, rate)))
        },
    },
    Family {
        name: "plimsoll_thrash_state",
        help: "1 for the state that the faults of protected workloads amount to. Emergency or panic: the protected do \
               little but fault; give them more memory.",
        kind: Gauge,
        samples: |state, out| with(state, |now| out.states(HOST, "state", &ThrashState::ALL, &now.thrash)),
    },
    Family {
        name: "plimsoll_deficit_bytes",
        help: "Bytes wanted back to be calm again. Above zero for long: the workloads that may yield have nothing left.",
        kind: Gauge,
        samples: |state, out| each(state, |labels, it| out.whole(labels, it.deficit.0)),
    },
    Family {
        name: "plimsoll_contested",
        help: "1 where somebody wants more of the GPU: its use grows, an allocation failed, or a reservation waits. With tier \
               emergency for long: nobody there can yield; move work away.",
        kind: Gauge,
        samples: |state, out| {
            let contested = |it: &Resource| it.contested.map(u64::from);
            each(state, |labels, it| contested(&it).map_or(Ok(()), |value| out.whole(labels, value)))
        },
    },
    Family {
        name: "plimsoll_tier_changes",
        help: "Changes of the tier. Many in an hour: widen the distance between used and leave, or lengthen dwell_down.",
        kind: Counter,
        samples: |state, out| {
            out.counter(HOST, state.totals.tier_changes)?;
            let gpus = &state.totals.gpu_tier_changes;
            gpus.iter().try_for_each(|(id, count)| out.counter(&[("resource", &resource(id))], *count))
        },
    },
    Family {
        name: "plimsoll_kernel_oom_victims",
        help: "Victims of the kernel's OOM killer since boot. It should stay where it is: a rise means the race was lost.",
        kind: Counter,
        samples: |state, out| {
            let last = state.last.as_ref();
            let kills = last.and_then(|(_, record)| record.sample.host.vmstat).map(|stat| stat.oom_kills);
            kills.map_or(Ok(()), |kills| out.counter(HOST, kills))
        },
    },
];

/// What is told of every resource alike.
struct Resource {
    tier: Tier,
    used: Option<Share>,
    headroom: Option<Bytes>,
    forecast: Forecast,
    deficit: Bytes,
    /// Of a GPU.
    contested: Option<bool>,
}

/// The host, then the GPUs.
fn each(state: &State, mut sample: impl FnMut(Labels<'_>, Resource) -> fmt::Result) -> fmt::Result {
    let Some((_, record)) = &state.last else { return Ok(()) };
    let Assessment { tier, used, headroom, forecast, deficit, .. } = record.assessment;
    sample(HOST, Resource { tier, used, headroom, forecast, deficit, contested: None })?;
    record.assessment.gpus.iter().try_for_each(|(id, gpu)| {
        let GpuAssessment { tier, used, headroom, forecast, deficit, contested, because: _ } = *gpu;
        let gpu = Resource { tier, used, headroom, forecast, deficit, contested: Some(contested) };
        sample(&[("resource", &resource(id))], gpu)
    })
}

pub(super) fn resource(gpu: &GpuId) -> String {
    format!("gpu:{gpu}")
}

fn with(state: &State, samples: impl FnOnce(&Assessment) -> fmt::Result) -> fmt::Result {
    state.last.as_ref().map_or(Ok(()), |(_, record)| samples(&record.assessment))
}

fn maybe(out: &mut Samples<'_>, value: Option<f64>) -> fmt::Result {
    value.map_or(Ok(()), |value| out.gauge(HOST, value))
}

fn ratio(share: Share) -> f64 {
    f64::from(share.0) / f64::from(Share::ONE.0)
}
