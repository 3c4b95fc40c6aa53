//! Metrics of telling the API server: how often it was spoken to, what became of what there was to tell, how the node stands there.

use prometheus_client::metrics::MetricType::{Counter, Gauge};

use super::Family;
use crate::kubernetes::tell::counts::{Ending, Fate, What};

/// What the node's taint does, by its number.
const EFFECTS: [&str; 3] = ["none", "PreferNoSchedule", "NoSchedule"];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_kubernetes_requests",
        help: "Requests to the API server, by what they were about. On refused: the service account lacks rights; on away: see the log.",
        kind: Counter,
        samples: |state, out| {
            let Some(counts) = &state.about.telling else { return Ok(()) };
            let both = What::ALL.into_iter().flat_map(|what| Ending::ALL.map(|how| (what, how)));
            both.into_iter().try_for_each(|(what, how)| {
                out.counter(&[("what", what.name()), ("result", how.name())], counts.requests(what, how))
            })
        },
    },
    Family {
        name: "plimsoll_kubernetes_told",
        help: "What there was to tell pods, by what became of it. On suppressed: a pod flaps; on dropped: the API server was away.",
        kind: Counter,
        samples: |state, out| {
            let Some(counts) = &state.about.telling else { return Ok(()) };
            Fate::ALL.iter().try_for_each(|fate| out.counter(&[("fate", fate.name())], counts.fates(*fate)))
        },
    },
    Family {
        name: "plimsoll_kubernetes_annotation_problems",
        help: "Mistakes in annotations of pods of this node. Each has its safe default; an Event of the pod says which it is.",
        kind: Gauge,
        samples: |state, out| {
            let counts = state.about.telling.as_ref();
            counts.map_or(Ok(()), |counts| out.whole(&[], counts.problems()))
        },
    },
    Family {
        name: "plimsoll_kubernetes_taint",
        help: "1 for what the node's taint does to new pods. Alert where it keeps them away for long: the node holds too much.",
        kind: Gauge,
        samples: |state, out| {
            let Some(counts) = &state.about.telling else { return Ok(()) };
            (0..).zip(EFFECTS).try_for_each(|(number, effect)| {
                out.whole(&[("effect", effect)], u64::from(counts.taint() == number))
            })
        },
    },
    Family {
        name: "plimsoll_kubernetes_condition_timestamp_seconds",
        help: "When the node's condition was last written, in seconds since 1970. Alert where it is older than 15 minutes.",
        kind: Gauge,
        samples: |state, out| {
            let at = state.about.telling.as_ref().and_then(|counts| counts.condition());
            at.map_or(Ok(()), |at| out.whole(&[], at))
        },
    },
];
