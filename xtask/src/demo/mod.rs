//! `cargo xtask demo`: real processes on a real kernel, with Plimsoll and without, and what came of it.
mod check;
mod journal;
mod judge;
mod material;
mod play;
mod plot;
mod report;
mod runs;
mod table;

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

pub(crate) use check::check;
pub(crate) use report::DemoReport;
use report::Failed;
use runs::{Protection, Story, SwapKind};

use crate::{build, setup};

/// The kernel series of the demo.
const DEFAULT: &str = "6.12";

/// Which runs.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Kernel series
    #[arg(long, default_value = DEFAULT)]
    kernel: String,
    /// Only this story
    #[arg(long, value_enum)]
    story: Option<Story>,
    /// Only these kinds of swap space; the default is none and zram
    #[arg(long, value_enum)]
    swap: Vec<SwapKind>,
    /// Only with, or only without, Plimsoll
    #[arg(long, value_enum)]
    protection: Option<Protection>,
}

impl Arguments {
    /// The whole demo.
    pub(crate) fn all() -> Self {
        Self { kernel: DEFAULT.to_owned(), story: None, swap: Vec::new(), protection: None }
    }

    /// The runs with Plimsoll, on another kernel.
    pub(crate) fn protected(kernel: &str) -> Self {
        Self { kernel: kernel.to_owned(), protection: Some(Protection::Plimsoll), ..Self::all() }
    }
}

/// Plays the runs, shows table and plots, writes `result.json`.
pub(crate) fn run(arguments: &Arguments) -> Result<DemoReport> {
    setup::emulator()?;
    let kernel = setup::kernel(&arguments.kernel)?;
    let runs = runs::chosen(arguments.story, &arguments.swap, arguments.protection);
    let programs = play::Programs::build(&runs)?;
    // The demo of the default kernel is the one that the README speaks of.
    let name =
        if arguments.kernel == DEFAULT { "demo".to_owned() } else { format!("demo-{}", arguments.kernel) };
    let place = build::root().join("target").join(name);
    std::fs::create_dir_all(&place).with_context(|| place.display().to_string())?;
    println!("{} runs of about 40 s each, on kernel {}, 1 GiB of RAM, emulated", runs.len(), kernel.release);
    let (mut played, mut failed) = (Vec::new(), Vec::new());
    for (number, run) in (1..).zip(&runs) {
        print!("[{number}/{}] {:<16}", runs.len(), run.name());
        match play::play(run, &kernel, &programs, &place) {
            Ok(take) => {
                let judged = judge::judge(&take);
                println!("\n      {}", table::one_line(&judged));
                played.push((*run, take, judged));
            }
            Err(error) => {
                println!("\n      failed: {error:#}");
                failed.push(Failed { name: run.name(), error: format!("{error:#}") });
            }
        }
    }
    let judged = played.iter().map(|(_, _, judged)| judged.clone()).collect();
    let report = DemoReport::new(&kernel.release, play::cpus(&kernel), judged, failed);
    report.write(&place.join("result.json"))?;
    println!("\n{}", table::table(&report));
    for file in plot::plot(&played, &place).context("plotting")? {
        println!("{}", file.display());
    }
    println!("{}", place.join("result.json").display());
    Ok(report)
}

/// The command: fails where a promise was broken.
pub(crate) fn command(arguments: &Arguments) -> Result<ExitCode> {
    let broken = check(&run(arguments)?);
    ensure!(broken.is_empty(), "promises that were not kept:\n  {}", broken.join("\n  "));
    Ok(ExitCode::SUCCESS)
}
