//! `cargo xtask bench`: what a pass of the policy costs.
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::build;

/// Builds the benchmark with the release profile and runs it; its table says what it found.
pub(crate) fn run() -> Result<ExitCode> {
    let mut command = build::cargo();
    command.args(["bench", "-p", "plimsoll-policy", "--bench", "pass"]).args(build::silence("--quiet"));
    let status = command.stdin(Stdio::null()).status().context("running cargo bench")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
