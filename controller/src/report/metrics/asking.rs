//! Metrics of asking workloads to give memory back.

use plimsoll_policy::concession::Level;
use prometheus_client::metrics::MetricType::{Counter, Gauge, Histogram};

use super::Family;
use crate::report::asking::word;

/// What can be in force.
const LEVELS: [Level; 5] = [Level::Nothing, Level::Gc, Level::Aggressive, Level::Offload, Level::Unload];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_askings",
        help: "Askings that ended, by level, way and result. On failed and partial: the log and `plimsoll status` say why.",
        kind: Counter,
        samples: |state, out| {
            state.totals.asking.asked.iter().try_for_each(|((level, way, result), count)| {
                out.counter(&[("level", word(*level)), ("way", way), ("result", result)], *count)
            })
        },
    },
    Family {
        name: "plimsoll_asking_freed_bytes",
        help: "Memory that workloads gave when they were asked, by meters that they can't write.",
        kind: Counter,
        samples: |state, out| {
            state.totals.asking.freed.iter().try_for_each(|((level, resource), bytes)| {
                out.counter(&[("level", word(*level)), ("resource", resource)], *bytes)
            })
        },
    },
    Family {
        name: "plimsoll_asking_duration_seconds",
        help: "From an asking to the moment that the meters showed it, or its deadline. Slow restores: is the model on a slow disk?",
        kind: Histogram,
        samples: |state, out| {
            let took = &state.totals.asking.took;
            took.iter().try_for_each(|(level, times)| out.histogram(&[("level", word(*level))], times))
        },
    },
    Family {
        name: "plimsoll_asking_verify_failures",
        help: "Times that a workload said that it was done and the meters showed too little. On a rise: its engine frees nothing.",
        kind: Counter,
        samples: |state, out| out.counter(&[], state.totals.asking.unverified),
    },
    Family {
        name: "plimsoll_workload_level",
        help: "1 for what is in force of a workload by its own word; absent where it does not say.",
        kind: Gauge,
        samples: |state, out| {
            let Some((_, record)) = &state.last else { return Ok(()) };
            let said = record.sample.workloads.values();
            let said =
                said.filter_map(|workload| Some((&workload.spec.name, workload.offer.as_ref()?.level?)));
            said.into_iter()
                .try_for_each(|(name, level)| out.states(&[("workload", name)], "level", &LEVELS, &level))
        },
    },
];
