//! Metrics of the workloads that are present, by name.

use std::fmt;

use plimsoll_policy::plan::Wanted;
use plimsoll_policy::sample::{Probes, Rung, Workload};
use plimsoll_policy::units::{Bytes, Limit, Span};
use prometheus_client::metrics::MetricType::{Counter, Gauge, Histogram};

use super::{Family, Labels, Samples};
use crate::report::state::State;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_workload_memory_bytes",
        help: "memory.current of the workload.",
        kind: Gauge,
        samples: |state, out| each(state, out, |out, of, seen, _| bytes(out, of, seen.current)),
    },
    Family {
        name: "plimsoll_workload_swap_bytes",
        help: "memory.swap.current of the workload. Much of it in a protected one: it answers slowly until it is back.",
        kind: Gauge,
        samples: |state, out| each(state, out, |out, of, seen, _| bytes(out, of, seen.swap)),
    },
    Family {
        name: "plimsoll_workload_high_bytes",
        help: "memory.high as it stands, whoever set it; absent where there is no limit.",
        kind: Gauge,
        samples: |state, out| each(state, out, |out, of, seen, _| limit(out, of, seen.high)),
    },
    Family {
        name: "plimsoll_workload_low_bytes",
        help: "memory.low as it stands: what reclaim leaves alone.",
        kind: Gauge,
        samples: |state, out| each(state, out, |out, of, seen, _| limit(out, of, seen.low)),
    },
    Family {
        name: "plimsoll_workload_priority",
        help: "Priority of the workload: the lowest yields first.",
        kind: Gauge,
        samples: |state, out| {
            each(state, out, |out, of, seen, _| out.gauge(of, f64::from(seen.spec.priority)))
        },
    },
    Family {
        name: "plimsoll_workload_rung",
        help: "1 for the rung that the workload is on. A workload that is often frozen needs a machine of its own.",
        kind: Gauge,
        samples: |state, out| {
            each(state, out, |out, of, _, wanted| out.states(of, "rung", &Rung::ALL, &wanted.rung))
        },
    },
    Family {
        name: "plimsoll_workload_would",
        help: "1 for the rung that the workload would be on if that were not dry; absent where what is wanted is done.",
        kind: Gauge,
        samples: |state, out| {
            each(state, out, |out, of, _, wanted| {
                let would = wanted.would.as_ref();
                would.map_or(Ok(()), |would| out.states(of, "rung", &Rung::ALL, &would.rung))
            })
        },
    },
    Family {
        name: "plimsoll_workload_held_off",
        help: "1 while it is not let go however calm it is, since it flapped: does it fit on this machine?",
        kind: Gauge,
        samples: |state, out| {
            each(state, out, |out, of, _, wanted| out.whole(of, u64::from(wanted.held_off.is_some())))
        },
    },
    Family {
        name: "plimsoll_workload_foreign",
        help: "1 for what somebody else has set on the workload, and what we live with: no_swap leaves its anon unreclaimable.",
        kind: Gauge,
        samples: foreign,
    },
    Family {
        name: "plimsoll_workload_reclaims",
        help: "Reclaims counted by eBPF: direct = its tasks entered global reclaim, memcg = its own memory was reclaimed.",
        kind: Counter,
        samples: |state, out| {
            probes(state, out, |out, of, counted| {
                out.counter(&with(of, "direct"), counted.direct_reclaims)?;
                out.counter(&with(of, "memcg"), counted.memcg_reclaims)
            })
        },
    },
    Family {
        name: "plimsoll_workload_stall_seconds",
        help: "Time its tasks waited, counted by eBPF: in direct or memcg reclaim, throttled by vmscan, over memory.high.",
        kind: Counter,
        samples: |state, out| {
            probes(state, out, |out, of, counted| {
                let waits = [
                    ("direct", counted.direct_reclaim_ns),
                    ("memcg", counted.memcg_reclaim_ns),
                    ("vmscan", counted.vmscan_throttled_ns),
                    ("high", counted.over_high_ns),
                ];
                waits
                    .into_iter()
                    .try_for_each(|(kind, ns)| out.seconds(&with(of, kind), Span(ns).as_secs_f64()))
            })
        },
    },
    Family {
        name: "plimsoll_workload_reclaim_stall_seconds",
        help: "How long single reclaims made its tasks wait, counted by eBPF. Above 10 ms clients notice.",
        kind: Histogram,
        samples: stalls,
    },
    Family {
        name: "plimsoll_workload_major_faults",
        help: "Major page faults counted by eBPF.",
        kind: Counter,
        samples: |state, out| probes(state, out, |out, of, counted| out.counter(of, counted.major_faults)),
    },
    Family {
        name: "plimsoll_workload_gate_stops",
        help: "Threads of the workload that the gate stopped at a page fault.",
        kind: Counter,
        samples: |state, out| probes(state, out, |out, of, counted| out.counter(of, counted.gate_stops)),
    },
];

/// Calls for every workload, with its label.
fn each(
    state: &State,
    out: &mut Samples<'_>,
    samples: impl Fn(&mut Samples<'_>, Labels<'_>, &Workload, &Wanted) -> fmt::Result,
) -> fmt::Result {
    let Some((_, record)) = &state.last else { return Ok(()) };
    for (id, seen) in &record.sample.workloads {
        let wanted = &record.plan.workloads[id];
        samples(out, &[("workload", &seen.spec.name)], seen, wanted)?;
    }
    Ok(())
}

fn probes(
    state: &State,
    out: &mut Samples<'_>,
    samples: impl Fn(&mut Samples<'_>, Labels<'_>, &Probes) -> fmt::Result,
) -> fmt::Result {
    each(state, out, |out, of, seen, _| {
        seen.probes.as_ref().map_or(Ok(()), |counted| samples(out, of, counted))
    })
}

fn foreign(state: &State, out: &mut Samples<'_>) -> fmt::Result {
    let Some((_, record)) = &state.last else { return Ok(()) };
    for (id, set) in &record.others.set {
        let Some(seen) = record.sample.workloads.get(id) else { continue };
        set.words().try_for_each(|what| out.whole(&[("workload", &seen.spec.name), ("what", what)], 1))?;
    }
    Ok(())
}

fn stalls(state: &State, out: &mut Samples<'_>) -> fmt::Result {
    let Some((_, record)) = &state.last else { return Ok(()) };
    for (id, seen) in &record.sample.workloads {
        if let Some(stalls) = state.stalls.get(&id.inode) {
            let sum = Span(stalls.sum_ns).as_secs_f64();
            out.classes(&[("workload", &seen.spec.name)], sum, &coarse(&stalls.buckets))?;
        }
    }
    Ok(())
}

/// Powers of two of a microsecond that are bounds: each is 16 times the one before. All 31 of them, for every workload,
/// would be more series than anybody looks at.
const POWERS: [u32; 7] = [0, 4, 8, 12, 16, 20, 24];

/// The classes of eBPF, `n` counting stalls below 2^n us, put together between coarser bounds.
fn coarse(fine: &[u64]) -> Vec<(f64, u64)> {
    let mut classes: Vec<(f64, u64)> = POWERS.map(|power| (f64::from(1 << power) / 1e6, 0)).into();
    classes.push((f64::MAX, 0));
    for (power, count) in fine.iter().enumerate() {
        let class = POWERS.partition_point(|bound| (*bound as usize) < power);
        classes[class].1 += count;
    }
    classes
}

fn with<'a>(labels: Labels<'a>, kind: &'a str) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().chain([("kind", kind)]).collect()
}

fn bytes(out: &mut Samples<'_>, of: Labels<'_>, value: Option<Bytes>) -> fmt::Result {
    value.map_or(Ok(()), |bytes| out.whole(of, bytes.0))
}

fn limit(out: &mut Samples<'_>, of: Labels<'_>, value: Option<Limit>) -> fmt::Result {
    match value {
        Some(Limit::Bytes(bytes)) => out.whole(of, bytes.0),
        Some(Limit::Max) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stall_is_lost_between_the_bounds() {
        let mut fine = [0; 31];
        (fine[0], fine[1], fine[4], fine[5], fine[24], fine[25], fine[30]) = (1, 2, 4, 8, 16, 32, 64);
        let counts: Vec<u64> = coarse(&fine).into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 6, 8, 0, 0, 0, 16, 96]);
        assert!((coarse(&fine)[3].0 - 0.004096).abs() < 1e-12);
    }
}
