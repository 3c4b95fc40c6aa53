//! Runs steps one after the other, whatever becomes of each, and keeps the account.
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::tally::Tally;

/// A finished step.
struct Step {
    name: &'static str,
    tally: Tally,
    error: Option<anyhow::Error>,
    took: Duration,
}

/// All steps so far.
#[derive(Default)]
pub(super) struct Steps(Vec<Step>);

impl Steps {
    /// Runs a step. An error counts as one failure.
    pub(super) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<Tally>) {
        println!("\n== {name}");
        let start = Instant::now();
        let (tally, error) = match run() {
            Ok(tally) => (tally, None),
            Err(error) => {
                println!("{name} failed: {error:#}");
                (Tally { failed: 1, ..Tally::default() }, Some(error))
            }
        };
        self.0.push(Step { name, tally, error, took: start.elapsed() });
    }

    /// Prints the account; its last line is the sum.
    pub(super) fn finish(self) -> ExitCode {
        let mut sum = Tally::default();
        println!("\n== summary");
        for step in self.0 {
            println!("{}", step.line());
            sum += step.tally;
        }
        println!("{sum}");
        sum.exit_code()
    }
}

impl Step {
    fn line(&self) -> String {
        let word = if self.tally.failed == 0 { "ok" } else { "FAIL" };
        let what = match &self.error {
            // The whole error stands above, where it happened.
            Some(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
            None if self.tally == Tally::default() => String::new(),
            None => self.tally.to_string(),
        };
        format!("{:<13} {word:<4} {:>6.1} s  {what}", self.name, self.took.as_secs_f64())
            .trim_end()
            .to_owned()
    }
}
