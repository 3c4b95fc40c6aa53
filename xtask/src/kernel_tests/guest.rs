//! One guest that runs the kernel tests.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Progress, Selection, Verdict, log};
use crate::vm::{Boot, Timing};
use crate::vm_command::SwapKind;
use crate::{build, setup};

/// Guest seconds that one test may take: a minute at most where the host is quiet, but the guest's clock goes on while a busy host
/// lets it wait. Longer than a test waits for one thing, which then says what did not come.
const TEST_SECONDS: u32 = 300;
/// The same where a real model is loaded, asked, unloaded and loaded again: half a second for an embedding.
const PYTHON_SECONDS: u32 = 900;
/// Wall-clock limit for one guest.
const GUEST_LIMIT: Duration = Duration::from_secs(45 * 60);
/// The disk at `/data`: room for a file that is larger than the guest's memory.
const DATA_MIB: u32 = 1200;
/// Guest RAM: small enough that a test can fill it in seconds.
const MEMORY_MIB: u32 = 1024;

/// Where the stand-in for NVIDIA's management library is in the guest. Not where the loader looks: tests copy it.
const NVML: &str = "/nvml/libnvidia-ml.so.1";

/// What runs in the guest.
pub(super) struct Programs {
    files: Vec<(PathBuf, &'static str)>,
}

impl Programs {
    /// Builds the test binary and the programs that it starts.
    pub(super) fn build() -> Result<Self> {
        let mut programs = build::programs()?;
        // Alone: beside tests, cargo would give the programs what only their own tests need.
        let tests = ["-p", "plimsoll-tests", "--features", "plimsoll-tests/kernel", "--test", "kernel"];
        programs.extend(build::build(&[&["build"], &tests[..]].concat())?);
        let places = [
            ("plimsoll", "/plimsoll"),
            ("plimsoll-workload", "/plimsoll-workload"),
            ("plimsoll-each", "/plimsoll-each"),
            ("kernel", "/kernel"),
        ];
        let find = |(name, place): (&str, &'static str)| {
            let found = programs.iter().find(|artifact| artifact.name == name);
            Ok((found.with_context(|| format!("cargo built no {name}"))?.path.clone(), place))
        };
        let mut files = places.into_iter().map(find).collect::<Result<Vec<_>>>()?;
        let tests =
            programs.iter().find(|artifact| artifact.name == "kernel").context("cargo built no tests")?;
        // cargo puts libraries of the workspace beside the tests that need them.
        files.push((tests.path.with_file_name("libnvidia_ml.so"), NVML));
        Ok(Self { files })
    }
}

/// Boots one guest and runs the tests in it.
pub(super) fn run(
    programs: &Programs,
    series: &str,
    swap: SwapKind,
    selection: &Selection,
    progress: &Progress,
) -> Result<Verdict> {
    let seconds = if selection.python { PYTHON_SECONDS } else { TEST_SECONDS };
    let command = ["/plimsoll-each", "/kernel", &seconds.to_string()].map(str::to_owned);
    let mut boot = Boot::new(
        setup::kernel(series)?,
        command.into_iter().chain(selection.filter.iter().cloned()),
        log(series, swap),
    );
    boot.memory_mib = MEMORY_MIB;
    // Tests attach tracepoints while pages fault.
    boot.timing = Timing::Turns;
    boot.swap = swap.of_size(MEMORY_MIB);
    boot.timeout = GUEST_LIMIT;
    boot.data_mib = Some(DATA_MIB);
    for (host, place) in &programs.files {
        boot.add_file(host, place);
    }
    for (name, value) in
        [("PLIMSOLL_BIN", "/plimsoll"), ("PLIMSOLL_WORKLOAD", "/plimsoll-workload"), ("PLIMSOLL_NVML", NVML)]
    {
        boot.env.insert(name.to_owned(), value.to_owned());
    }
    if selection.python {
        boot.data_mib = Some(DATA_MIB + setup::PYTHON_MIB);
        setup::add_python(&mut boot)?;
    }
    let mut verdict = Verdict::default();
    let report = boot.run(&mut |line| {
        verdict.take(line);
        progress.show(series, swap, (verdict.tests.len(), verdict.announced), verdict.tests.last());
    });
    match report {
        Ok(report) => verdict.end(&report),
        Err(error) => verdict.broken.push(format!("{error:#}")),
    }
    Ok(verdict)
}
