//! What this host offers, what is missing, what that disables, and how to mend it.

mod api;
mod capability;
mod cgroup;
mod gpu;
mod hooks;
mod kernel;
mod place;
mod pod;
mod process;
mod table;

use std::fmt;
use std::path::PathBuf;

pub use self::api::{NEEDS, Need, api};
pub use self::capability::{Capability, Missing};
pub use self::gpu::gpus;
pub use self::hooks::{hooks, load_hooks};
pub use self::pod::{SERVICE_ACCOUNT, pod};
pub use self::table::render;

/// Where the kernel's files are; tests point it at trees of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPaths {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// Where cgroup v2 should be.
    pub cgroup: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), cgroup: "/sys/fs/cgroup".into() }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    capabilities: Vec<Capability>,
}

/// How much of the protection is left on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All of it.
    Full,
    /// Less: what is lost, one for each capability that is missing.
    Degraded(Vec<String>),
    /// None: `run` refuses.
    Refused,
}

/// What `run` refuses a host for: every capability that it requires and misses, with how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host can't be protected:{}", listed(.0))]
pub struct CheckError(pub Vec<Capability>);

fn listed(lacking: &[Capability]) -> String {
    let line = |capability: &Capability| {
        let mend = capability.missing.as_ref().map_or("", |missing| &missing.mend);
        format!("\n  {}: {}; {mend}", capability.name, capability.detail)
    };
    lacking.iter().map(line).collect()
}

/// Looks at everything once. Changes nothing that outlives the look.
#[must_use]
pub fn probe(paths: &HostPaths) -> Host {
    let kernel = kernel::release(paths);
    let groups = [process::probe(paths), kernel::probe(paths, kernel), cgroup::probe(paths, kernel)];
    Host { capabilities: groups.into_iter().flatten().collect() }
}

impl Host {
    /// All that was looked for.
    #[must_use]
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// Adds what was found elsewhere, such as the hooks of the eBPF programs.
    #[must_use]
    pub fn with(mut self, more: Vec<Capability>) -> Self {
        self.capabilities.extend(more);
        self
    }

    /// Whether a capability of this name was found.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.capabilities.iter().any(|capability| capability.name == name && capability.available())
    }

    /// How much of the protection is left.
    #[must_use]
    pub fn mode(&self) -> Mode {
        if self.require().is_err() {
            return Mode::Refused;
        }
        let lost = |capability: &Capability| capability.missing.as_ref().map(|missing| missing.lost.clone());
        let lost: Vec<String> = self.capabilities.iter().filter_map(lost).collect();
        if lost.is_empty() { Mode::Full } else { Mode::Degraded(lost) }
    }

    /// Refuses a host on which nothing can be protected.
    ///
    /// # Errors
    /// With everything that is lacking.
    pub fn require(&self) -> Result<(), CheckError> {
        let needed =
            |capability: &&Capability| capability.missing.as_ref().is_some_and(|missing| missing.required);
        let lacking: Vec<Capability> = self.capabilities.iter().filter(needed).cloned().collect();
        if lacking.is_empty() { Ok(()) } else { Err(CheckError(lacking)) }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full: nothing is missing"),
            Self::Degraded(lost) => write!(f, "degraded: {} of the capabilities are missing", lost.len()),
            Self::Refused => f.write_str("refused: `plimsoll run` would end at once"),
        }
    }
}

#[cfg(test)]
mod tests;
