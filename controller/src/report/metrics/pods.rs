//! Metrics of what is known of the pods, and of whether the API server tells it.

use prometheus_client::metrics::MetricType::{Counter, Gauge, Info};

use super::Family;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_pod",
        help: "The container that a workload is. Join by `workload` to see other series by pod.",
        kind: Info,
        samples: |state, out| {
            let Some((_, record)) = &state.last else { return Ok(()) };
            record.sample.workloads.iter().try_for_each(|(id, seen)| {
                let Some(pod) = state.pods.get(id) else { return Ok(()) };
                out.info(&[
                    ("workload", &seen.spec.name),
                    ("namespace", &pod.namespace),
                    ("pod", &pod.pod),
                    ("container", &pod.container),
                    ("uid", &pod.uid),
                ])
            })
        },
    },
    Family {
        name: "plimsoll_kubernetes_connected",
        help: "Whether the API server tells about this node's pods. On 0 new pods are not known; see the log for why.",
        kind: Gauge,
        samples: |state, out| {
            let Some(contact) = &state.about.kubernetes else { return Ok(()) };
            out.whole(&[], u64::from(contact.standing().connected))
        },
    },
    Family {
        name: "plimsoll_kubernetes_last_contact_timestamp_seconds",
        help: "When the API server last answered the watch. Alert beyond 15 minutes: a watch is begun again every 5.",
        kind: Gauge,
        samples: |state, out| {
            let answered = state.about.kubernetes.as_ref().and_then(|contact| contact.standing().answered_ms);
            answered.map_or(Ok(()), |ms| out.whole(&[], ms / 1000))
        },
    },
    Family {
        name: "plimsoll_kubernetes_watch_failures",
        help: "Times that the watch of pods failed, by what was in the way. On forbidden: apply the RBAC of manifests/.",
        kind: Counter,
        samples: |state, out| {
            let Some(contact) = &state.about.kubernetes else { return Ok(()) };
            let standing = contact.standing();
            standing.failures.iter().try_for_each(|(kind, count)| out.counter(&[("kind", kind)], *count))
        },
    },
    Family {
        name: "plimsoll_kubernetes_restarts",
        help: "Times that a task that speaks to the API server panicked and was begun again. That is a bug: report it with the log.",
        kind: Counter,
        samples: |state, out| {
            let watch = state.about.kubernetes.as_ref().map(|contact| contact.standing().restarts);
            let telling = state.about.telling.as_ref().map(|counts| counts.restarts());
            let both = [("watch", watch), ("telling", telling)];
            both.into_iter().try_for_each(|(task, count)| match count {
                Some(count) => out.counter(&[("task", task)], count),
                None => Ok(()),
            })
        },
    },
];
