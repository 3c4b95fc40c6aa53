//! `cargo xtask scale`: thousands of nodes, played by one process, at a real API server on this machine.
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{build, setup};

/// How many, and how long.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Nodes; a thousand take about 1 GiB in all
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// Pods of each
    #[arg(long, default_value_t = 2)]
    pods: u32,
    /// Seconds in which they start, one after the other; 0 is all at once. The controller of DaemonSets makes twenty pods a second
    #[arg(long, default_value_t = 0)]
    start_over: u32,
    /// Seconds in which nothing happens; watches and conditions are renewed every five minutes or so
    #[arg(long, default_value_t = 60)]
    calm: u32,
}

/// Prints what the API server was asked, and what that cost it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let kubernetes = setup::kubernetes()?;
    let cargo =
        ["test", "-p", "plimsoll-tests", "--features", "cluster", "--test", "cluster", "--profile", "vm"];
    let mut command = build::cargo();
    command.args(cargo).args(build::silence("--quiet")).args(["--", "--nocapture", "--exact", TEST]);
    command.env("PLIMSOLL_KUBERNETES", kubernetes);
    let Arguments { nodes, pods, start_over, calm } = *arguments;
    for (name, value) in [("NODES", nodes), ("PODS", pods), ("START_OVER", start_over), ("CALM", calm)] {
        command.env(format!("PLIMSOLL_SCALE_{name}"), value.to_string());
    }
    let status = command.status().context("running cargo test")?;
    ensure!(status.success(), "cargo test ended with {status}");
    Ok(ExitCode::SUCCESS)
}

/// What plays them.
const TEST: &str = "scale::what_many_nodes_ask_is_bounded";
