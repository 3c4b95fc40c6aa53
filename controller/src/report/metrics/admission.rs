//! Metrics of admission: what is promised, and who got no room.

use plimsoll_policy::admission::{Reason, Stage};
use plimsoll_policy::plan::Plan;
use prometheus_client::metrics::MetricType::{Counter, Gauge};

use super::{Family, Samples};
use crate::report::state::State;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_reserved_bytes",
        help: "Bytes promised to models and not used yet; they count as used. High for long: somebody reserves more than it loads.",
        kind: Gauge,
        samples: |state, out| {
            let Some((_, record)) = &state.last else { return Ok(()) };
            let all = || record.plan.reservations.iter();
            out.whole(&[("resource", "host")], all().map(|r| r.unsettled().0).sum())?;
            record.assessment.gpus.keys().try_for_each(|id| {
                let bytes = all().map(|r| r.unsettled_on(id).0).sum();
                out.whole(&[("resource", &super::host::resource(id))], bytes)
            })
        },
    },
    Family {
        name: "plimsoll_reservations",
        help: "Reservations that hold something, or may do so again.",
        kind: Gauge,
        samples: |state, out| {
            with(state, out, |plan| plan.reservations.iter().filter(|r| !r.stage.is_over()).count() as u64)
        },
    },
    Family {
        name: "plimsoll_admission_waiting",
        help: "Requests that wait for room. Above zero for long: the machine is too small for what is asked of it.",
        kind: Gauge,
        samples: |state, out| with(state, out, |plan| plan.waiting.len() as u64),
    },
    Family {
        name: "plimsoll_admission_granted",
        help: "Requests for memory that were granted.",
        kind: Counter,
        samples: |state, out| out.counter(&[], state.totals.admission.granted),
    },
    Family {
        name: "plimsoll_admission_refused",
        help: "Requests for memory that were refused, by reason. On no_room and tier: place models elsewhere.",
        kind: Counter,
        samples: |state, out| {
            let refused = &state.totals.admission.refused;
            Reason::ALL.iter().try_for_each(|reason| {
                out.counter(&[("reason", reason.name())], refused.get(reason).copied().unwrap_or_default())
            })
        },
    },
    Family {
        name: "plimsoll_reservations_ended",
        help: "Reservations that ended: settled (used), released, or expired. Many expired: loaders ask for more than they use.",
        kind: Counter,
        samples: |state, out| {
            let ended = &state.totals.admission.ended;
            Stage::ALL.iter().filter(|stage| stage.is_over()).try_for_each(|stage| {
                out.counter(&[("end", stage.name())], ended.get(stage).copied().unwrap_or_default())
            })
        },
    },
];

/// Nothing before the first pass.
fn with(state: &State, out: &mut Samples<'_>, number: impl FnOnce(&Plan) -> u64) -> std::fmt::Result {
    state.last.as_ref().map_or(Ok(()), |(_, record)| out.whole(&[], number(&record.plan)))
}
