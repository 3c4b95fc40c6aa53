//! Metrics of the control socket: who is connected, who can be asked, and what programs report.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::MetricType::{Counter, Gauge};

use super::Family;
use crate::control::counts::CudaError;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_control_clients",
        help: "Clients that are connected to the control socket.",
        kind: Gauge,
        samples: |state, out| out.whole(&[], now(&state.about.control.clients)),
    },
    Family {
        name: "plimsoll_control_sessions",
        help: "Programs that registered and can be asked to give memory back.",
        kind: Gauge,
        samples: |state, out| out.whole(&[], now(&state.about.control.sessions)),
    },
    Family {
        name: "plimsoll_control_streams",
        help: "Clients that are told of tiers and requests as they change.",
        kind: Gauge,
        samples: |state, out| out.whole(&[], now(&state.about.control.streams)),
    },
    Family {
        name: "plimsoll_control_turned_away",
        help: "Clients that were not let in, since there were too many. On a rise: somebody opens connections and does not close them.",
        kind: Counter,
        samples: |state, out| out.counter(&[], now(&state.about.control.turned_away)),
    },
    Family {
        name: "plimsoll_cuda_errors",
        help: "Failed CUDA calls that programs reported. On out_of_memory: place models elsewhere; on sticky: the program has to be restarted.",
        kind: Counter,
        samples: |state, out| {
            CudaError::ALL
                .iter()
                .try_for_each(|kind| out.counter(&[("kind", kind.name())], state.about.control.cuda(*kind)))
        },
    },
    Family {
        name: "plimsoll_paused_seconds",
        help: "What is left of a pause by an operator, in which nothing is done; 0 where there is none. Alert where it is above 0 for long.",
        kind: Gauge,
        samples: |state, out| out.gauge(&[], state.paused_seconds().unwrap_or_default()),
    },
];

fn now(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
