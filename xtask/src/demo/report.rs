//! The result of the demo, as people and programs read it: `target/demo/result.json`.
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// All runs of one demo.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DemoReport {
    /// The command that made it.
    pub(crate) command: String,
    /// What the emulated machine was.
    pub(crate) machine: String,
    /// Kernel release.
    pub(crate) kernel: String,
    /// The runs, in the order in which they were played.
    pub(crate) runs: Vec<RunReport>,
    /// Runs that came to no end.
    pub(crate) failed: Vec<Failed>,
}

/// A run that came to no end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failed {
    /// Which.
    pub(crate) name: String,
    /// Why.
    pub(crate) error: String,
}

/// One run. Times are in guest time; what is counted is counted from the moment when memory begins to run short.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunReport {
    /// `a-none-bare`.
    pub(crate) name: String,
    /// `a` or `b`.
    pub(crate) story: String,
    /// `none`, `zram` or `disk`.
    pub(crate) swap: String,
    /// `bare` or `plimsoll`.
    pub(crate) protection: String,
    /// Kernel release.
    pub(crate) kernel: String,
    /// The high-priority server's requests.
    pub(crate) protected: Requests,
    /// The same before memory ran short.
    pub(crate) calm: Requests,
    /// From the onset of pressure to the first action by anybody, 0 where it came no later; none where nobody ever
    /// acted. See `docs/demo.md`.
    pub(crate) onset_to_first_action_ms: Option<f64>,
    /// From the moment when the source begins to grow to the first action.
    pub(crate) growth_to_first_action_ms: Option<f64>,
    /// From there to the onset of pressure; none where there never was any.
    pub(crate) growth_to_onset_ms: Option<f64>,
    /// What the first action was, and whose.
    pub(crate) first_action: Option<String>,
    /// Loads that were killed, and by whom.
    pub(crate) killed: Vec<Killed>,
    /// Victims of the kernel's OOM killer.
    pub(crate) kernel_oom_kills: u64,
    /// Bytes that the controller's actions freed by its own measurement.
    pub(crate) freed_bytes: u64,
    /// Time that tasks of the server waited for memory.
    pub(crate) server_stall_ms: f64,
    /// Whether every load was alive, thawed and unlimited again at the end of the watch; none without Plimsoll.
    pub(crate) restored: Option<bool>,
    /// When that was, after growth began.
    pub(crate) restored_after_ms: Option<f64>,
    /// Whether nothing was left frozen or limited after the controller had been told to go; none without Plimsoll.
    pub(crate) released: Option<bool>,
    /// The highest tier.
    pub(crate) tier: Option<String>,
    /// The hardest rung, of any load.
    pub(crate) rung: Option<String>,
    /// eBPF hooks that the controller had attached.
    pub(crate) hooks: Option<usize>,
    /// The controller's exit code after SIGTERM.
    pub(crate) controller_exit: Option<i32>,
    /// The most memory its cgroup used.
    pub(crate) controller_peak_bytes: Option<u64>,
    /// Its share of one CPU while memory was short.
    pub(crate) controller_cpu_share: Option<f64>,
    /// Takes before this one whose guest kernel warned of itself.
    pub(crate) guest_faults: u32,
    /// Boots that the emulator lost.
    pub(crate) lost_boots: u32,
    /// Wall time.
    pub(crate) wall_seconds: f64,
}

/// Requests of an open-loop client. Lost ones count in the percentiles with the time until their late answer came, or,
/// where none came, until the client stopped waiting: what a lost request really cost is at least that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Requests {
    /// Answered within a second.
    pub(crate) answered: usize,
    /// Of these: after more than 100 ms, the objective of an interactive service.
    pub(crate) late: usize,
    /// Refused, never answered, or answered later than a second.
    pub(crate) lost: usize,
    /// Median latency from the moment when the request was due.
    pub(crate) p50_ms: f64,
    /// 99th percentile.
    pub(crate) p99_ms: f64,
    /// The worst.
    pub(crate) max_ms: f64,
}

/// A load that was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Killed {
    /// `server` or `batch`.
    pub(crate) load: String,
    /// `kernel` or `plimsoll`.
    pub(crate) by: String,
}

impl DemoReport {
    /// Puts the runs together.
    pub(super) fn new(kernel: &str, cpus: u32, runs: Vec<RunReport>, failed: Vec<Failed>) -> Self {
        Self {
            command: "cargo xtask demo".into(),
            machine: format!("1 GiB of RAM, {cpus} CPUs, emulated at 250 million instructions a second"),
            kernel: kernel.into(),
            runs,
            failed,
        }
    }

    /// Writes it as JSON.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }
}
