//! The account of a story: what was to be shown, and whether it was. Each sentence counts as a test.
use std::time::Instant;

use anyhow::{Result, bail};

use crate::tally::Tally;

/// What a story has shown so far.
#[derive(Debug)]
pub(super) struct Account {
    story: String,
    tally: Tally,
}

impl Account {
    /// Nothing yet.
    pub(super) fn new(story: impl Into<String>) -> Self {
        Self { story: story.into(), tally: Tally::default() }
    }

    /// Something that is to be shown; the story goes on without it.
    pub(super) fn check(&mut self, what: &str, look: impl FnOnce() -> Result<()>) {
        // Whether it was shown stands in the account.
        let _ = self.must(what, look);
    }

    /// Something that the rest of the story builds on.
    pub(super) fn must<T>(&mut self, what: &str, look: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let shown = look();
        let word = if shown.is_ok() { "pass" } else { "FAIL" };
        println!("{word}  {}: {what}  ({:.0} s)", self.story, start.elapsed().as_secs_f64());
        match shown {
            Ok(value) => {
                self.tally.passed += 1;
                Ok(value)
            }
            Err(error) => {
                self.tally.failed += 1;
                println!("      {}", format!("{error:#}").replace('\n', "\n      "));
                bail!("{}: not shown: {what}", self.story)
            }
        }
    }

    /// What was shown.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }
}
