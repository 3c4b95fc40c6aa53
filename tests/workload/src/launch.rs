//! Starts a program inside a cgroup: joins first and becomes the program then, since charges do not move.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Join a cgroup, take an OOM score, and become another program.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directory of the cgroup
    #[arg(long, value_name = "DIRECTORY")]
    cgroup: PathBuf,
    /// What is written to /proc/self/oom_score_adj
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    oom_score_adj: Option<i32>,
    /// In a cgroup namespace of its own, as a container is
    #[arg(long)]
    cgroup_namespace: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Returns only where something failed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let procs = args.cgroup.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("joining {}", args.cgroup.display()))?;
    if let Some(score) = args.oom_score_adj {
        fs::write("/proc/self/oom_score_adj", score.to_string()).context("setting oom_score_adj")?;
    }
    if args.cgroup_namespace {
        // SAFETY: only this flag is given, which shares no descriptors and no memory.
        unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }.context("unsharing the cgroup namespace")?;
    }
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    Err(error).with_context(|| format!("starting {}", args.command[0]))
}
