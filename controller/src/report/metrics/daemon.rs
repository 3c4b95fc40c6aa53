//! Metrics of the daemon: what it did, how quickly, and what it lacks.

use std::fmt;

use plimsoll_policy::plan::{Act, ActResult};
use plimsoll_policy::sample::Rung;
use prometheus_client::metrics::MetricType::{Counter, Gauge, Histogram, Info};

use super::{Family, Samples};
use crate::report::state::State;

/// The rungs that can be dry.
const RUNGS: [Rung; 5] = [Rung::Trim, Rung::Throttle, Rung::Offload, Rung::Freeze, Rung::Kill];

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "plimsoll_build",
        help: "Version of the daemon.",
        kind: Info,
        samples: |_, out| out.info(&[("version", env!("CARGO_PKG_VERSION"))]),
    },
    Family {
        name: "plimsoll_dry_run",
        help: "1 for a rung that is only talked about, 0 for one that is done. Alert on 1 where protection is wanted.",
        kind: Gauge,
        samples: |state, out| {
            RUNGS.iter().try_for_each(|rung| {
                out.whole(&[("rung", rung.name())], u64::from(state.dry_run.covers(*rung)))
            })
        },
    },
    Family {
        name: "plimsoll_dry_actions",
        help: "Actions of dry rungs, talked about and not done. The journal says what would have been done, and why.",
        kind: Counter,
        samples: |state, out| {
            state
                .totals
                .dry
                .iter()
                .try_for_each(|(rung, count)| out.counter(&[("rung", rung.name())], *count))
        },
    },
    Family {
        name: "plimsoll_hold_offs",
        help: "Times that a workload flapped and was not let go for a while. On a rise: it does not fit on this machine.",
        kind: Counter,
        samples: |state, out| out.counter(&[], state.totals.hold_offs),
    },
    Family {
        name: "plimsoll_capability",
        help: "1 where this host offers the capability. On 0, `plimsoll check` says what is lost and how to mend it.",
        kind: Gauge,
        samples: |state, out| {
            state.about.capabilities.iter().try_for_each(|capability| {
                out.whole(&[("capability", &capability.name)], u64::from(capability.available()))
            })
        },
    },
    Family {
        name: "plimsoll_passes",
        help: "Passes. Alert when the rate is zero: the control loop stands still.",
        kind: Counter,
        samples: |state, out| out.counter(&[], state.totals.passes),
    },
    Family {
        name: "plimsoll_pass_duration_seconds",
        help: "From the beginning of a sample to its plan. Beyond 10 ms: fewer workloads per node, or a slower pace.",
        kind: Histogram,
        samples: |state, out| out.histogram(&[], &state.totals.pass),
    },
    Family {
        name: "plimsoll_reaction_seconds",
        help: "From the sample that an action followed from to the beginning of the action.",
        kind: Histogram,
        samples: |state, out| out.histogram(&[], &state.totals.reaction),
    },
    Family {
        name: "plimsoll_action_duration_seconds",
        help: "How long actions took, until they were seen to be done.",
        kind: Histogram,
        samples: |state, out| {
            state.totals.action.iter().try_for_each(|(act, times)| out.histogram(&[("act", act)], times))
        },
    },
    Family {
        name: "plimsoll_actions",
        help: "Actions by act and result. On failed, see the log: what was decided could not be done.",
        kind: Counter,
        samples: |state, out| {
            state.totals.actions.iter().try_for_each(|((act, result), count)| {
                out.counter(&[("act", act), ("result", result)], *count)
            })
        },
    },
    Family {
        name: "plimsoll_freed_bytes",
        help: "Memory that actions freed, measured before and after.",
        kind: Counter,
        samples: |state, out| {
            state.totals.freed.iter().try_for_each(|(act, bytes)| out.counter(&[("act", act)], *bytes))
        },
    },
    Family {
        name: "plimsoll_kills",
        help: "Workloads killed. Each one is a model that did not fit: see the journal for why nothing gentler could do.",
        kind: Counter,
        samples: |state, out| out.counter(&[], state.totals.of(&Act::Kill, &ActResult::Done)),
    },
    Family {
        name: "plimsoll_foreign_writes",
        help: "Times that somebody else wrote over a value of ours. On a steady rise: find who else manages these cgroups.",
        kind: Counter,
        samples: |state, out| {
            let Some((_, record)) = &state.last else { return Ok(()) };
            record.others.writes.iter().try_for_each(|((file, how), count)| {
                out.counter(&[("file", file.name()), ("how", how.name())], *count)
            })
        },
    },
    Family {
        name: "plimsoll_gaps",
        help: "Readings that failed, by sensor. On a lasting rise decisions are made with less than there should be.",
        kind: Counter,
        samples: |state, out| {
            state.totals.gaps.iter().try_for_each(|(what, count)| out.counter(&[("what", what)], *count))
        },
    },
    Family {
        name: "plimsoll_findings",
        help: "What lint had to say of plans, by invariant; fatal = the action was blocked. Each one is a bug: please report it.",
        kind: Counter,
        samples: |state, out| {
            state.totals.findings.iter().try_for_each(|((invariant, fatal), count)| {
                let labels = [("invariant", &*invariant.to_string()), ("fatal", &*fatal.to_string())];
                out.counter(&labels, *count)
            })
        },
    },
    Family {
        name: "plimsoll_probe_lost_events",
        help: "eBPF events that found no room in the ring buffer. They are edges only: counters stay right.",
        kind: Counter,
        samples: |state, out| {
            let last = state.last.as_ref();
            let lost =
                last.and_then(|(_, record)| record.sample.host.probes).map(|probes| probes.lost_events);
            lost.map_or(Ok(()), |lost| out.counter(&[], lost))
        },
    },
    Family {
        name: "plimsoll_journal_lines",
        help: "Passes for the journal, by result. On dropped: its disk is slow, full or gone, and replay will lack them.",
        kind: Counter,
        samples: journal,
    },
];

fn journal(state: &State, out: &mut Samples<'_>) -> fmt::Result {
    let Some(counts) = &state.journal else { return Ok(()) };
    out.counter(&[("result", "written")], counts.written())?;
    out.counter(&[("result", "dropped")], counts.dropped())
}
