//! The kernel tests on every kernel and kind of swap: all failures are collected, and each guest has one verdict line.
mod guest;
mod progress;
mod skips;
mod verdict;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::setup::{self, SERIES};
use crate::tally::Tally;
use crate::vm_command::SwapKind;
use guest::Programs;
use progress::Progress;
use skips::Skips;
use verdict::Verdict;

/// Which tests on which guests.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Selection {
    /// Only tests whose name contains this (may be repeated)
    #[arg(long)]
    pub(crate) filter: Vec<String>,
    /// Only this kernel series
    #[arg(long)]
    pub(crate) kernel: Option<String>,
    /// Only this kind of swap
    #[arg(long, value_enum)]
    pub(crate) swap: Option<SwapKind>,
}

/// Runs the selected tests on the selected guests, prints verdicts and failures, returns the sum.
pub(crate) fn run(selection: &Selection) -> Result<Tally> {
    setup::emulator()?;
    setup::bpf()?;
    let programs = Programs::build()?;
    let skips = Skips::read()?;
    let mut sum = Tally::default();
    let mut failures = Vec::new();
    for (series, swap) in guests(selection) {
        let start = Instant::now();
        let mut progress = Progress::new(&series, swap);
        let verdict = guest::run(&programs, &series, swap, &selection.filter, &mut progress);
        progress.clear();
        let verdict = verdict.unwrap_or_else(|error| Verdict::lost(&error));
        let verdict = skips.judge(verdict, &series, swap);
        println!("{}", verdict.line(&series, swap, start.elapsed()));
        sum += verdict.tally();
        failures.extend(verdict.failures(&series, swap));
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    Ok(sum)
}

fn guests(selection: &Selection) -> Vec<(String, SwapKind)> {
    let series = match &selection.kernel {
        Some(series) => vec![series.clone()],
        None => SERIES.map(str::to_owned).to_vec(),
    };
    let swaps = match selection.swap {
        Some(swap) => vec![swap],
        None => vec![SwapKind::None, SwapKind::Zram],
    };
    series.iter().flat_map(|series| swaps.iter().map(|swap| (series.clone(), *swap))).collect()
}

/// Where a guest's log goes.
fn log(series: &str, swap: SwapKind) -> PathBuf {
    crate::build::root().join("target/vm").join(format!("kernel-tests-{series}-{swap}.log"))
}
