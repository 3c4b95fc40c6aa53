//! What came of one guest that ran the kernel tests.
use std::time::Duration;

use plimsoll_init::outcome::{Outcome, TestLine};

use super::log;
use crate::tally::Tally;
use crate::vm::Report;
use crate::vm_command::SwapKind;

/// What came of one guest.
#[derive(Default)]
pub(super) struct Verdict {
    release: String,
    /// How many tests the runner said it would run.
    pub(super) announced: usize,
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
    pub(super) fn take(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("plimsoll-tests: ") {
            self.announced = count.parse().unwrap_or(0);
            // A boot that the emulator lost half-way begins again.
            self.tests.clear();
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
    pub(super) fn end(&mut self, report: &Report) {
        self.release.clone_from(&report.release);
        self.retried = report.retried;
        if self.announced == 0 {
            self.broken.push("there is no such test".to_owned());
        }
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

    /// A paragraph for each failure.
    pub(super) fn failures(&self, series: &str, swap: SwapKind) -> Vec<String> {
        let place = format!("{series} swap {swap}");
        let failed = self.tests.iter().filter(|(test, _)| test.outcome == Outcome::Fail);
        let tests =
            failed.map(|(test, output)| format!("FAIL {} on {place}: {}\n{output}", test.name, test.reason));
        let broken = self.broken.iter().map(|what| format!("FAIL {place}: {what}"));
        let mut failures: Vec<_> = tests.chain(broken).collect();
        if !failures.is_empty() {
            failures.push(format!("log of {place}: {}", log(series, swap).display()));
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_test_printed_is_kept() {
        let mut verdict = Verdict::default();
        for line in [
            "plimsoll-tests: 2",
            "plimsoll-test: fail a 0.1s exit status: 101",
            "boom",
            "",
            "plimsoll-test: pass b 0.1s",
        ] {
            verdict.take(line);
        }
        assert_eq!(verdict.tally(), Tally { passed: 1, failed: 1, skipped: 0 });
        assert!(verdict.failures("6.12", SwapKind::None)[0].contains("boom"));
    }

    #[test]
    fn a_guest_that_ran_fewer_tests_than_announced_has_failed() {
        let mut verdict = Verdict { announced: 3, ..Verdict::default() };
        verdict.end(&Report {
            code: 137,
            release: "6.12".into(),
            warnings: vec![],
            seconds: 1.0,
            stdout: String::new(),
            out: "out".into(),
            retried: 0,
            wall: Duration::ZERO,
        });
        assert_eq!(verdict.tally().failed, 1);
    }
}
