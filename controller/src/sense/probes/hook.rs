//! The hooks: which program goes where, and what to say where the kernel has no such place.

use std::error::Error;
use std::iter;

use aya::programs::links::FdLink;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, util};
use tracing::debug;

use super::btf::Btf;

/// A place in the kernel that tells us something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name in `plimsoll check` and in metrics.
    pub name: &'static str,
    /// Why it is missing.
    pub attached: Result<(), String>,
}

/// One program and where it can go: the first place that the kernel has is taken.
pub(super) struct Place {
    pub(super) program: &'static str,
    pub(super) at: At,
}

#[derive(Clone, Copy)]
pub(super) enum At {
    Tracepoint(&'static str),
    Entry(&'static [&'static str]),
    Exit(&'static [&'static str]),
}

/// Renamed when it became an inline wrapper (6.12: the first name, 6.18: the second).
const OVER_HIGH: &[&str] = &["mem_cgroup_handle_over_high", "__mem_cgroup_handle_over_high"];

const fn tracepoint(program: &'static str, name: &'static str) -> Place {
    Place { program, at: At::Tracepoint(name) }
}

/// Hooks that are attached at once. A hook of two programs counts only as a whole.
pub(super) const HOOKS: [(&str, &[Place]); 8] = [
    (
        "direct_reclaim",
        &[
            tracepoint("direct_reclaim_begin", "mm_vmscan_direct_reclaim_begin"),
            tracepoint("direct_reclaim_end", "mm_vmscan_direct_reclaim_end"),
        ],
    ),
    (
        "memcg_reclaim",
        &[
            tracepoint("memcg_reclaim_begin", "mm_vmscan_memcg_reclaim_begin"),
            tracepoint("memcg_reclaim_end", "mm_vmscan_memcg_reclaim_end"),
        ],
    ),
    (
        "memcg_reclaim_target",
        &[Place { program: "memcg_reclaim_target", at: At::Entry(&["try_to_free_mem_cgroup_pages"]) }],
    ),
    ("vmscan_throttled", &[tracepoint("vmscan_throttled", "mm_vmscan_throttled")]),
    (
        "over_high",
        &[
            Place { program: "over_high_enter", at: At::Entry(OVER_HIGH) },
            Place { program: "over_high_exit", at: At::Exit(OVER_HIGH) },
        ],
    ),
    ("kswapd_wake", &[tracepoint("kswapd_wake", "mm_vmscan_kswapd_wake")]),
    ("oom_victim", &[tracepoint("oom_victim", "mark_victim")]),
    ("cgroup_rmdir", &[tracepoint("cgroup_rmdir", "cgroup_rmdir")]),
];

/// Where the gate goes, the cheapest first (256 instructions per fault on 6.12 under icount; the second takes about 40 more).
const FAULT: [Place; 2] = [
    tracepoint("page_fault", "page_fault_user"),
    // arm64 has no such tracepoint.
    Place { program: "handle_fault", at: At::Entry(&["handle_mm_fault"]) },
];

/// Both descriptions of the kernel: ours answers questions, aya's is what its loaders take.
#[derive(Clone, Copy)]
pub(super) struct Kernel<'a> {
    pub(super) btf: &'a Btf<'a>,
    pub(super) aya: &'a aya::Btf,
}

/// Loads and attaches everything but the gate. The links keep what is attached.
pub(super) fn attach_all(ebpf: &mut Ebpf, kernel: Kernel<'_>) -> (Vec<Hook>, Vec<FdLink>) {
    let mut links = Vec::new();
    let mut hooks: Vec<Hook> = HOOKS
        .into_iter()
        .map(|(name, places)| {
            // Collected first: half a pair is dropped again, which detaches it.
            let attached: Result<Vec<FdLink>, String> = places
                .iter()
                .map(|place| load(ebpf, kernel, place).and_then(|()| attach(ebpf, place.program)))
                .collect();
            Hook { name, attached: attached.map(|attached| links.extend(attached)) }
        })
        .collect();
    hooks.push(Hook { name: "major_faults", attached: attach_major_faults(ebpf) });
    (hooks, links)
}

/// Loads the gate's program, which is attached on demand, and gives its name.
pub(super) fn load_gate(ebpf: &mut Ebpf, kernel: Kernel<'_>) -> Result<&'static str, String> {
    let mut whys = Vec::new();
    for place in FAULT {
        match load(ebpf, kernel, &place) {
            Ok(()) => return Ok(place.program),
            Err(why) => whys.push(why),
        }
    }
    Err(whys.join("; "))
}

/// Attaches a loaded program. Dropping the link detaches it.
pub(super) fn attach(ebpf: &mut Ebpf, program: &str) -> Result<FdLink, String> {
    let attached = match ebpf.program_mut(program) {
        Some(Program::BtfTracePoint(program)) => {
            program.attach().and_then(|id| program.take_link(id)).map(FdLink::from)
        }
        Some(Program::FEntry(program)) => {
            program.attach().and_then(|id| program.take_link(id)).map(FdLink::from)
        }
        Some(Program::FExit(program)) => {
            program.attach().and_then(|id| program.take_link(id)).map(FdLink::from)
        }
        _ => return Err(format!("the object has no program {program}")),
    };
    attached.map_err(|error| chain(&error))
}

fn load(ebpf: &mut Ebpf, kernel: Kernel<'_>, place: &Place) -> Result<(), String> {
    let symbol = symbol(kernel.btf, place.at)?;
    let loaded = match ebpf.program_mut(place.program) {
        Some(Program::BtfTracePoint(program)) => program.load(symbol, kernel.aya),
        Some(Program::FEntry(program)) => program.load(symbol, kernel.aya),
        Some(Program::FExit(program)) => program.load(symbol, kernel.aya),
        _ => return Err(format!("the object has no program {}", place.program)),
    };
    loaded.map_err(|error| chain(&error))
}

fn symbol(btf: &Btf<'_>, at: At) -> Result<&'static str, String> {
    match at {
        At::Tracepoint(name) if btf.has_tracepoint(name) => Ok(name),
        At::Tracepoint(name) => Err(format!("this kernel has no tracepoint {name}")),
        At::Entry(names) | At::Exit(names) => names
            .iter()
            .find(|name| btf.has_function(name))
            .copied()
            .ok_or_else(|| format!("this kernel has no function {}", names.join(" or "))),
    }
}

/// One event per CPU that is online now. A CPU that comes later is not counted.
fn attach_major_faults(ebpf: &mut Ebpf) -> Result<(), String> {
    let Some(Program::PerfEvent(program)) = ebpf.program_mut("major_fault") else {
        return Err("the object has no program major_fault".to_owned());
    };
    program.load().map_err(|error| chain(&error))?;
    let cpus = util::online_cpus().map_err(|(path, error)| format!("{path}: {error}"))?;
    let event = PerfEventConfig::Software(SoftwareEvent::PageFaultsMaj);
    for cpu in cpus {
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        // The link stays in the program: it is no descriptor alone.
        program
            .attach(event, scope, SamplePolicy::Period(1), false)
            .map_err(|error| format!("cpu {cpu}: {}", chain(&error)))?;
    }
    Ok(())
}

/// An error with its sources. Of a verifier's log the verdict: the whole is thousands of lines and goes to the log.
fn chain(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        debug!(%io_error, log, "the verifier refused a program");
        return format!("the kernel refuses the program: {io_error}: {}", verdict(&log));
    }
    let sources = iter::successors(error.source(), |source| (*source).source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The last line of a verifier's log that is no statistics.
fn verdict(log: &str) -> &str {
    const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];
    let is_verdict =
        |line: &&str| !line.trim().is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word));
    log.lines().rev().find(is_verdict).unwrap_or("it does not say why")
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn the_verdict_is_the_last_line_before_the_statistics() {
        let log = "0: R1=ctx()\nmath between pointer and register is not allowed\nverification time 10 usec\n\
                   stack depth 96+0\nprocessed 637 insns (limit 1000000)\n\n";
        assert_eq!(verdict(log), "math between pointer and register is not allowed");
        assert_eq!(verdict(""), "it does not say why");
    }
}
