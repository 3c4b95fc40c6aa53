//! One test's outcome as a line of text, from the guest's runner to the host.
use std::fmt;

/// What begins the line.
const MARK: &str = "plimsoll-test: ";
/// What begins a line by which a test says that this kernel can't run it.
pub const SKIP_MARK: &str = "plimsoll-skip: ";

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Pass,
    /// It failed, crashed or did not end in time.
    Fail,
    /// It said that it can't run here.
    Skip,
}

/// A finished test.
#[derive(Debug, Clone, PartialEq)]
pub struct TestLine {
    /// How it ended.
    pub outcome: Outcome,
    /// Its name.
    pub name: String,
    /// Guest time that it took.
    pub seconds: f64,
    /// Why it was skipped or failed; empty when it passed.
    pub reason: String,
}

impl TestLine {
    /// Reads a line of the guest's output; `None` if it is something else.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(MARK)?.splitn(4, ' ');
        let outcome = match words.next()? {
            "pass" => Outcome::Pass,
            "fail" => Outcome::Fail,
            "skip" => Outcome::Skip,
            _ => return None,
        };
        let name = words.next()?.to_owned();
        let seconds = words.next()?.strip_suffix('s')?.parse().ok()?;
        Some(Self { outcome, name, seconds, reason: words.next().unwrap_or_default().to_owned() })
    }
}

impl fmt::Display for TestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Skip => "skip",
        };
        let Self { outcome: _, name, seconds, reason } = self;
        write!(f, "{MARK}{word} {name} {seconds:.2}s")?;
        if reason.is_empty() { Ok(()) } else { write!(f, " {reason}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_the_journey() {
        let line = TestLine {
            outcome: Outcome::Skip,
            name: "gate::stops".into(),
            seconds: 0.25,
            reason: "no btf here".into(),
        };
        assert_eq!(TestLine::parse(&line.to_string()), Some(line));
        assert_eq!(TestLine::parse("test gate::stops ... ok"), None);
        assert_eq!(TestLine::parse("plimsoll-test: pass"), None);
    }
}
