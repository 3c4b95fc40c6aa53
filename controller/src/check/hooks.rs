//! The hooks of the eBPF programs as capabilities.

use super::Capability;
use crate::sense::probes::{Hook, Options, Probes};

/// Each hook, and whether it is attached.
#[must_use]
pub fn hooks(hooks: &[Hook]) -> Vec<Capability> {
    let one = |hook: &Hook| {
        let name = format!("hook:{}", hook.name);
        match &hook.attached {
            Ok(()) => Capability::there(name, "attached"),
            Err(why) => Capability::there(name, why).lost(lost(hook.name), mend(hook.name)),
        }
    };
    hooks.iter().map(one).collect()
}

/// What nobody says without this hook.
fn lost(hook: &str) -> &'static str {
    match hook {
        "direct_reclaim" => "when the host runs out of free pages, and who waits for it",
        "memcg_reclaim" => "how long tasks wait for the limits of their own cgroups",
        "memcg_reclaim_target" => "whose memory is reclaimed when somebody else does it",
        "vmscan_throttled" => "how long tasks are held back because pages can't be written quickly enough",
        "over_high" => "how much of a workload's stall is our own throttling: PSI has to be set off instead",
        "kswapd_wake" => "the first sign that free pages run low",
        "oom_victim" => "at once, that the kernel killed",
        "cgroup_rmdir" => "when a cgroup is gone: its counters keep their place in the maps for longer",
        "major_faults" => "major faults as they happen: memory.stat tells them later",
        "gate" => "the brake at the next page fault: freezing has to wait for the reaction thread",
        _ => "what this hook tells",
    }
}

fn mend(hook: &str) -> &'static str {
    match hook {
        // Where the sysctl is 3 or more, kernels of Debian and Ubuntu want more than CAP_PERFMON.
        "major_faults" => "sysctl kernel.perf_event_paranoid=2 on the node, or CAP_SYS_ADMIN",
        _ => "the reason says what refuses it; all are in Linux 6.1",
    }
}

/// Loads the programs for a moment, to see what the kernel says.
#[must_use]
pub fn load_hooks() -> Vec<Capability> {
    match Probes::load(&Options::default()) {
        Ok(probes) => hooks(probes.hooks()),
        Err(error) => {
            let why = format!("the eBPF programs can't be loaded: {}", chain(&error));
            let lost = "reclaim events and the gate: reaction is by PSI and polling";
            vec![Capability::there("ebpf", why).lost(lost, "see bpf and btf above")]
        }
    }
}

/// An error with its sources: the last one is the kernel's word.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_is_missing_says_what_is_lost() {
        let gate = Hook { name: "gate", attached: Err("no such tracepoint".into()) };
        let rest = Hook { name: "direct_reclaim", attached: Ok(()) };
        let found = hooks(&[gate, rest]);
        assert_eq!((found[0].name.as_str(), found[0].detail.as_str()), ("hook:gate", "no such tracepoint"));
        assert!(found[0].missing.as_ref().unwrap().lost.contains("brake"));
        assert!(found[1].available());
    }
}
