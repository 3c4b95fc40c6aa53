//! Boots the guest for one run and follows it.
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::material::Material;
use super::runs::{Protection, Run};
use crate::build;
use crate::vm::{Boot, Kernel, Report, Timing};

/// The controller's configuration in the guest.
const CONFIG: &str = include_str!("plimsoll.yaml");
/// Where the programs lie in the guest.
const WORKLOAD: &str = "/bin/plimsoll-workload";
const CONTROLLER: &str = "/bin/plimsoll";
/// Runs whose guest kernel got into trouble by itself are repeated this often.
const REPEATS: u32 = 2;
/// Calm before memory runs short.
const CALM_SECONDS: u32 = 6;
/// The disk for weights and journal.
const DATA_MIB: u32 = 512;
/// A run takes 40 to 60 s; a crowded machine makes it some minutes.
const TIMEOUT: Duration = Duration::from_secs(900);

/// What goes into the guest.
pub(super) struct Programs {
    workload: PathBuf,
    controller: Option<PathBuf>,
}

impl Programs {
    /// Builds them; the controller only where a run needs it.
    pub(super) fn build(runs: &[Run]) -> Result<Self> {
        println!("building the programs of the guest");
        let protected = runs.iter().any(|run| run.protection == Protection::Plimsoll);
        Ok(Self {
            workload: build::program("plimsoll-workload")?,
            controller: protected.then(|| build::program("plimsoll")).transpose()?,
        })
    }
}

/// One run that was played.
pub(super) struct Take {
    /// Which.
    pub(super) run: Run,
    /// What the guest wrote down.
    pub(super) material: Material,
    /// Takes before it whose guest kernel warned of itself.
    pub(super) faults: u32,
    /// Boots that the emulator lost.
    pub(super) lost_boots: u32,
    /// Wall time of the boot.
    pub(super) wall: Duration,
}

/// Plays a run until the guest's kernel has nothing to complain about.
pub(super) fn play(run: &Run, kernel: &Kernel, programs: &Programs, place: &Path) -> Result<Take> {
    let mut lost_boots = 0;
    for faults in 0..=REPEATS {
        let report = boot(run, kernel, programs, place)?.run(&mut progress())?;
        lost_boots += report.retried;
        if report.warnings.is_empty() {
            ensure!(report.passed(), "{} failed in the guest:\n{}", run.name(), failure(&report));
            let material = Material::read(&report.out)?;
            return Ok(Take { run: *run, material, faults, lost_boots, wall: report.wall });
        }
        print!("\n      the guest's kernel is in trouble ({}), once more:", report.warnings[0]);
    }
    bail!("{}: {} guests in a row had kernel warnings; logs in {}", run.name(), REPEATS + 1, place.display())
}

/// CPUs of the guest: as many as the kernel comes up with.
pub(super) fn cpus(kernel: &Kernel) -> u32 {
    if kernel.starts_cpus_one_by_one() { 1 } else { 2 }
}

fn boot(run: &Run, kernel: &Kernel, programs: &Programs, place: &Path) -> Result<Boot> {
    let config = place.join("plimsoll.yaml");
    std::fs::write(&config, CONFIG)?;
    let mut command = vec![WORKLOAD.to_owned(), "story".into(), run.story.name().into()];
    command.extend(["--calm".into(), format!("{CALM_SECONDS}s")]);
    command.extend(["--watch".into(), format!("{}s", run.story.watch_seconds())]);
    let controller = programs.controller.as_ref().filter(|_| run.protection == Protection::Plimsoll);
    if controller.is_some() {
        command.extend(["--controller", CONTROLLER, "--config", "/etc/plimsoll.yaml"].map(str::to_owned));
    }
    let mut boot = Boot::new(kernel.clone(), command, place.join(format!("{}.log", run.name())));
    boot.timing = Timing::Icount;
    boot.smp = cpus(kernel);
    boot.swap = run.swap.space();
    boot.data_mib = Some(DATA_MIB);
    boot.timeout = TIMEOUT;
    boot.add_file(&programs.workload, WORKLOAD);
    if let Some(controller) = controller {
        boot.add_file(controller, CONTROLLER);
        boot.add_file(&config, "/etc/plimsoll.yaml");
    }
    Ok(boot)
}

/// Shows each phase that the guest names, with the seconds since the start.
fn progress() -> impl FnMut(&str) {
    let start = Instant::now();
    move |line| {
        if let Some(phase) = line.strip_prefix("demo: ") {
            print!("  {phase} ({} s)", start.elapsed().as_secs());
            // Progress that can't be shown stops nothing.
            let _ = std::io::stdout().flush();
        }
    }
}

/// What there is to say about a guest that failed: its own words, and the controller's last ones.
fn failure(report: &Report) -> String {
    let log = std::fs::read_to_string(report.out.join("plimsoll.log")).unwrap_or_default();
    let tail = log.lines().rev().take(15).collect::<Vec<_>>();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    format!("code {}\n{}\n{tail}", report.code, report.stdout.trim())
}
