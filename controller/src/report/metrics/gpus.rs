//! Readings of the GPUs, and what of them the workloads hold.

use std::fmt;

use plimsoll_policy::gpu::Gpu;
use plimsoll_policy::units::Bytes;
use prometheus_client::metrics::MetricType::{Counter, Gauge};

use super::{Family, Labels, Samples};
use crate::report::state::State;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_gpu_memory_bytes",
        help: "Memory of the GPU: total, and used by whomever, the driver included; absent where it could not be read.",
        kind: Gauge,
        samples: |state, out| {
            each(state, out, |out, id, gpu| {
                let kinds = [("total", gpu.total), ("used", gpu.used)];
                kinds
                    .into_iter()
                    .try_for_each(|(kind, bytes)| maybe(out, &[("gpu", id), ("kind", kind)], bytes))
            })
        },
    },
    Family {
        name: "plimsoll_gpu_unified",
        help: "1 where the memory of the GPU is the host's: the tiers of the host are its tiers.",
        kind: Gauge,
        samples: |state, out| {
            each(state, out, |out, id, gpu| out.whole(&[("gpu", id)], u64::from(gpu.unified)))
        },
    },
    Family {
        name: "plimsoll_gpu_lost",
        help: "1 where the GPU fell off the bus or its driver is gone. Alert on it: it wants a reset, a reboot or a hand.",
        kind: Gauge,
        samples: |state, out| each(state, out, |out, id, gpu| out.whole(&[("gpu", id)], u64::from(gpu.lost))),
    },
    Family {
        name: "plimsoll_gpu_xids",
        help: "Errors that NVIDIA's driver reported, by their number. 31, 43 and 45 are ends of applications; look up the others.",
        kind: Counter,
        samples: |state, out| {
            let Some(xids) = &state.about.xids else { return Ok(()) };
            xids.counts().iter().try_for_each(|((gpu, number), count)| {
                let number = if *number == 0 { "other".to_owned() } else { number.to_string() };
                out.counter(&[("gpu", &gpu.0), ("xid", &number)], *count)
            })
        },
    },
    Family {
        name: "plimsoll_workload_gpu_memory_bytes",
        help: "GPU memory that the processes of the workload hold; absent where the driver does not tell.",
        kind: Gauge,
        samples: |state, out| {
            held(state, |workload, gpu, bytes| maybe(out, &[("workload", workload), ("gpu", gpu)], bytes))
        },
    },
    Family {
        name: "plimsoll_workload_gpu_unknown",
        help: "1 where the workload uses the GPU by an amount that nobody knows. See per-process bytes in `plimsoll check`.",
        kind: Gauge,
        samples: |state, out| {
            held(state, |workload, gpu, bytes| {
                out.whole(&[("workload", workload), ("gpu", gpu)], u64::from(bytes.is_none()))
            })
        },
    },
];

fn each(
    state: &State,
    out: &mut Samples<'_>,
    samples: impl Fn(&mut Samples<'_>, &str, &Gpu) -> fmt::Result,
) -> fmt::Result {
    let Some((_, record)) = &state.last else { return Ok(()) };
    record.sample.gpus.iter().try_for_each(|(id, gpu)| samples(out, &id.0, gpu))
}

fn held(state: &State, mut sample: impl FnMut(&str, &str, Option<Bytes>) -> fmt::Result) -> fmt::Result {
    let Some((_, record)) = &state.last else { return Ok(()) };
    for workload in record.sample.workloads.values() {
        for (gpu, bytes) in &workload.gpus {
            sample(&workload.spec.name, &gpu.0, *bytes)?;
        }
    }
    Ok(())
}

fn maybe(out: &mut Samples<'_>, labels: Labels<'_>, bytes: Option<Bytes>) -> fmt::Result {
    bytes.map_or(Ok(()), |bytes| out.whole(labels, bytes.0))
}
