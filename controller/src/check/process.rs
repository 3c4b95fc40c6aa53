//! What this process may do: root, capabilities, limits.

use std::fs;

use super::{Capability, HostPaths};

const DAC_OVERRIDE: u32 = 1;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const SYS_NICE: u32 = 23;
const SYS_RESOURCE: u32 = 24;
const IPC_LOCK: u32 = 14;
const KILL: u32 = 5;
/// 5.8 took these two out of `CAP_SYS_ADMIN`.
const PERFMON: u32 = 38;
const BPF: u32 = 39;

pub(super) fn probe(paths: &HostPaths) -> Vec<Capability> {
    let status = fs::read_to_string(paths.proc.join("self/status")).unwrap_or_default();
    let limits = fs::read_to_string(paths.proc.join("self/limits")).unwrap_or_default();
    let may = Powers::of(&status);
    vec![root(&status, &may), bpf(&may), real_time(&may, &limits), memlock(&may, &limits)]
}

/// `CapEff`.
struct Powers(u64);

impl Powers {
    fn of(status: &str) -> Self {
        Self(field(status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default())
    }

    const fn has(&self, capability: u32) -> bool {
        self.0 & (1 << capability) != 0
    }
}

/// What a container may have dropped of root, and what is lost without.
const OF_ROOT: [(u32, &str, &str); 4] = [
    (KILL, "CAP_KILL", "killing by pid, and asking by signal"),
    (SYS_RESOURCE, "CAP_SYS_RESOURCE", "PSI windows below 2 s, and lowering oom_score_adj"),
    (DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "oom_score_adj of processes of other users"),
    (SYS_PTRACE, "CAP_SYS_PTRACE", "what processes of other users hold of GPUs"),
];

/// cgroup files want uid 0; the rest wants capabilities.
fn root(status: &str, may: &Powers) -> Capability {
    let uid = field(status, "Uid:").unwrap_or("unknown");
    let found = Capability::there("root", format!("user id {uid}"));
    let dropped: Vec<_> = OF_ROOT.iter().filter(|(capability, ..)| !may.has(*capability)).collect();
    let listed = |all: Vec<&str>| all.join(", ");
    match (uid, dropped.is_empty()) {
        ("0", true) => found,
        ("0", false) => {
            let names = listed(dropped.iter().map(|(_, name, _)| *name).collect());
            let lost = listed(dropped.iter().map(|(.., lost)| *lost).collect());
            let mend = format!("give the container {names}: securityContext.capabilities.add, without CAP_");
            Capability { detail: format!("root without {names}"), ..found }.lost(lost, mend)
        }
        _ => Capability { detail: format!("not root (user id {uid})"), ..found }.required(
            "everything: cgroup files can only be written by root",
            "run it as root, or by its systemd unit",
        ),
    }
}

fn bpf(may: &Powers) -> Capability {
    if may.has(SYS_ADMIN) || (may.has(BPF) && may.has(PERFMON)) {
        return Capability::there("bpf", "allowed to load eBPF programs");
    }
    Capability::there("bpf", "neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON")
        .lost("reclaim events and the gate: reaction is by PSI and polling", "add CAP_BPF and CAP_PERFMON")
}

fn real_time(may: &Powers, limits: &str) -> Capability {
    let priority = field(limits, "Max realtime priority").unwrap_or("0");
    if may.has(SYS_NICE) || priority != "0" {
        return Capability::there("real_time", "real-time priority is allowed");
    }
    Capability::there("real_time", "no CAP_SYS_NICE, and a limit of 0").lost(
        "reaction before busy tasks: the reaction thread waits for its turn",
        "add CAP_SYS_NICE, or LimitRTPRIO=2 in the unit",
    )
}

/// The kernel ignores the limit for who has `CAP_IPC_LOCK`.
fn memlock(may: &Powers, limits: &str) -> Capability {
    let limit = field(limits, "Max locked memory").unwrap_or("unknown");
    let found = Capability::there("memlock", format!("limit of locked memory: {limit}"));
    if may.has(IPC_LOCK) || limit == "unlimited" {
        return found;
    }
    found.lost(
        "its own pages can be reclaimed, so that it is slow when it is needed",
        "LimitMEMLOCK=infinity in the unit, or CAP_IPC_LOCK",
    )
}

/// The first value after a key of `/proc/self/status`, or the soft limit of one of `/proc/self/limits`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()
}
