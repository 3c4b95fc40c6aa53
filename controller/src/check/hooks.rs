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
            Err(why) => Capability::there(name, why).lost("what this hook tells", "use a kernel that has it"),
        }
    };
    hooks.iter().map(one).collect()
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
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
