//! `cargo xtask test`: all that a merge has to pass. A step that fails does not hide the later ones.
mod coverage;
mod fleet;
mod host;
mod lint;
mod python;
mod steps;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::kernel_tests::{self, Selection};
use crate::tally::Tally;
use crate::{build, demo, node, setup};
use steps::Steps;

/// How much to test.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Runs a real model server, real engines and a real control plane as well, plays the demo and checks what it promises, and checks the types
    /// and the style of the Python client
    #[arg(long)]
    all: bool,
    /// Measures only how much of the policy its tests cover
    #[arg(long, conflicts_with_all = ["all", "host_only"])]
    coverage: bool,
    /// Runs only the tests with a real control plane
    #[arg(long, conflicts_with_all = ["all", "host_only", "coverage"])]
    cluster: bool,
    /// Leaves out what needs the virtual machine
    #[arg(long, conflicts_with = "all")]
    host_only: bool,
}

/// Runs every step, and ends with a table of them and the sum of all tests.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut steps = Steps::default();
    if arguments.coverage {
        steps.step("coverage", coverage::policy);
        return Ok(steps.finish());
    }
    if arguments.cluster {
        steps.step("cluster", host::cluster);
        return Ok(steps.finish());
    }
    steps.step("set-up", || prepare(arguments));
    steps.step("format", || host::quiet(build::cargo().args(["fmt", "--all", "--check"])));
    steps.step("lint", lint::run);
    steps.step("clippy", host::clippy);
    if setup::has("cargo-deny") {
        steps.step("licences", host::deny);
    } else {
        println!("\n== licences: left out, because cargo-deny is not installed");
    }
    steps.step("host tests", host::tests);
    steps.step("doc tests", host::doc_tests);
    steps.step("python client", python::tests);
    steps.step("coverage", coverage::policy);
    if !arguments.host_only {
        steps.step("kernel tests", || kernel_tests::run(&Selection::default()));
    }
    if arguments.all {
        steps.step("python lint", python::lint);
        steps.step("model server", || kernel_tests::run(&Selection::model_server()));
        steps.step("engines", host::engines);
        steps.step("cluster", host::cluster);
        steps.step("kubernetes node", node::test);
        steps.step("fleet", fleet::run);
        steps.step("demo", play_demo);
    }
    Ok(steps.finish())
}

/// Only the lints that no compiler knows.
pub(crate) fn lint() -> Result<ExitCode> {
    lint::run()?;
    Ok(ExitCode::SUCCESS)
}

fn prepare(arguments: &Arguments) -> Result<Tally> {
    if arguments.all {
        setup::all()?;
    } else {
        setup::usual()?;
    }
    Ok(Tally::default())
}

/// Two tests: the demo keeps its promises, and so does Plimsoll in it on the other kernel.
fn play_demo() -> Result<Tally> {
    let mut tally = Tally::default();
    for arguments in [demo::Arguments::all(), demo::Arguments::protected(setup::SERIES[0])] {
        let broken = demo::check(&demo::run(&arguments)?);
        tally.passed += usize::from(broken.is_empty());
        tally.failed += usize::from(!broken.is_empty());
        for promise in broken {
            println!("not kept: {promise}");
        }
    }
    Ok(tally)
}
