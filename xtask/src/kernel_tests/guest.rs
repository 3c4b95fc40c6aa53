//! One guest that runs the kernel tests, and what came of it.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use plimsoll_init::outcome::{Outcome, TestLine};

use super::{Progress, log};
use crate::tally::Tally;
use crate::vm::Boot;
use crate::vm_command::SwapKind;
use crate::{build, setup};

/// Guest seconds that one test may take.
const TEST_SECONDS: u32 = 120;
/// Wall-clock limit for one guest.
const GUEST_LIMIT: Duration = Duration::from_secs(25 * 60);
/// Guest RAM: small enough that a test can fill it in seconds.
const MEMORY_MIB: u32 = 1024;

/// What runs in the guest.
pub(super) struct Programs {
    files: Vec<(PathBuf, &'static str)>,
}

impl Programs {
    /// Builds the test binary and the programs that it starts.
    pub(super) fn build() -> Result<Self> {
        // One call of cargo: two would choose different features for shared dependencies, and build those twice.
        let packages =
            ["plimsoll", "plimsoll-workload", "plimsoll-init", "plimsoll-tests"].map(|name| ["-p", name]);
        let targets = ["--features", "plimsoll-tests/kernel", "--bins", "--test", "kernel"];
        let programs = build::build(&[&["build"], packages.as_flattened(), &targets].concat())?;
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
        Ok(Self { files: places.into_iter().map(find).collect::<Result<_>>()? })
    }
}

/// Boots one guest and runs the tests in it.
pub(super) fn run(
    programs: &Programs,
    series: &str,
    swap: SwapKind,
    filter: &[String],
    progress: &mut Progress,
) -> Result<Verdict> {
    let command = ["/plimsoll-each", "/kernel", &TEST_SECONDS.to_string()].map(str::to_owned);
    let mut boot = Boot::new(
        setup::kernel(series)?,
        command.into_iter().chain(filter.iter().cloned()),
        log(series, swap),
    );
    boot.memory_mib = MEMORY_MIB;
    boot.swap = swap.of_size(MEMORY_MIB);
    boot.timeout = GUEST_LIMIT;
    for (host, place) in &programs.files {
        boot.add_file(host, place);
    }
    for (name, value) in [("PLIMSOLL_BIN", "/plimsoll"), ("PLIMSOLL_WORKLOAD", "/plimsoll-workload")] {
        boot.env.insert(name.to_owned(), value.to_owned());
    }
    let mut verdict = Verdict::default();
    let report = boot.run(&mut |line| {
        verdict.take(line);
        progress.show(verdict.tests.len(), verdict.announced, verdict.tests.last());
    });
    match report {
        Ok(report) => verdict.end(&report),
        Err(error) => verdict.broken.push(format!("{error:#}")),
    }
    Ok(verdict)
}

/// What came of one guest.
#[derive(Default)]
pub(super) struct Verdict {
    release: String,
    announced: usize,
    /// Each finished test with what it printed when it failed.
    pub(super) tests: Vec<(TestLine, String)>,
    /// What is wrong beside single tests.
    pub(super) broken: Vec<String>,
    retried: u32,
}

impl Verdict {
    /// A guest that never ran.
    pub(super) fn lost(error: &anyhow::Error) -> Self {
        Self { broken: vec![format!("{error:#}")], ..Self::default() }
    }

    /// One line of the guest's output.
    fn take(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("plimsoll-tests: ") {
            self.announced = count.parse().unwrap_or(0);
        } else if let Some(test) = TestLine::parse(line) {
            self.tests.push((test, String::new()));
        } else if let Some((TestLine { outcome: Outcome::Fail, .. }, output)) = self.tests.last_mut() {
            // What a failed test printed follows its line.
            output.push_str("    ");
            output.push_str(line);
            output.push('\n');
        }
    }

    /// What only the end shows.
    fn end(&mut self, report: &crate::vm::Report) {
        self.release.clone_from(&report.release);
        self.retried = report.retried;
        if self.tests.len() != self.announced || report.code > 1 {
            let (done, all) = (self.tests.len(), self.announced);
            self.broken
                .push(format!("the runner ended with code {} after {done} of {all} tests", report.code));
        }
        // A starved host makes CPUs look stuck; that is no fault of ours.
        let stuck =
            |line: &&String| !(line.contains("stall") || line.contains("lockup") || line.contains("blocked"));
        self.broken.extend(report.warnings.iter().filter(stuck).map(|line| format!("kernel: {line}")));
    }

    /// Counts; whatever is broken beside tests counts as one failure each.
    pub(super) fn tally(&self) -> Tally {
        let count = |outcome| self.tests.iter().filter(|(test, _)| test.outcome == outcome).count();
        Tally {
            passed: count(Outcome::Pass),
            failed: count(Outcome::Fail) + self.broken.len(),
            skipped: count(Outcome::Skip),
        }
    }

    /// `pass  6.12.117 zram  12 passed, 0 failed, 1 skipped  31 s`
    pub(super) fn line(&self, series: &str, swap: SwapKind, wall: Duration) -> String {
        let tally = self.tally();
        let word = if tally.failed == 0 { "pass" } else { "FAIL" };
        let release = if self.release.is_empty() { series } else { &self.release };
        let retried =
            if self.retried > 0 { format!(", {} lost boots repeated", self.retried) } else { String::new() };
        format!(
            "{word}  {release:<28} swap {:<5} {tally}  ({:.0} s{retried})",
            swap.to_string(),
            wall.as_secs_f64()
        )
    }

    /// A paragraph for each failure, and a line for each skip.
    pub(super) fn failures(&self, series: &str, swap: SwapKind) -> Vec<String> {
        let place = format!("{series} swap {swap}");
        let failed = self.tests.iter().filter(|(test, _)| test.outcome == Outcome::Fail);
        let tests =
            failed.map(|(test, output)| format!("FAIL {} on {place}: {}\n{output}", test.name, test.reason));
        let broken = self.broken.iter().map(|what| format!("FAIL {place}: {what}"));
        tests.chain(broken).collect()
    }
}
