//! Which tests may be skipped where. Any other skip is a failure, or a test could stop running unnoticed.
use anyhow::{Context as _, Result, bail};
use plimsoll_init::outcome::Outcome;

use super::Verdict;
use crate::vm_command::SwapKind;

/// The allow-list, below the root of the checkout.
const FILE: &str = "tests/skips.txt";

/// Lines of `TEST KERNEL SWAP  # why`; `*` stands for any kernel or swap.
pub(super) struct Skips(Vec<[String; 3]>);

impl Skips {
    pub(super) fn read() -> Result<Self> {
        let path = crate::build::root().join(FILE);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut allowed = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let (rule, why) = line.split_once('#').with_context(|| format!("{line:?} does not say why"))?;
            let words: Vec<_> = rule.split_whitespace().map(str::to_owned).collect();
            match <[String; 3]>::try_from(words) {
                Ok(rule) if !why.trim().is_empty() => allowed.push(rule),
                _ => bail!("{line:?}: expected TEST KERNEL SWAP  # why"),
            }
        }
        Ok(Self(allowed))
    }

    /// Turns every skip that is not on the list into a failure.
    pub(super) fn judge(&self, mut verdict: Verdict, series: &str, swap: SwapKind) -> Verdict {
        for (test, _) in &mut verdict.tests {
            if test.outcome == Outcome::Skip && !self.allows(&test.name, series, &swap.to_string()) {
                test.outcome = Outcome::Fail;
                test.reason = format!("skipped, and {FILE} does not allow it: {}", test.reason);
            }
        }
        verdict
    }

    fn allows(&self, test: &str, series: &str, swap: &str) -> bool {
        let fits = |rule: &str, value: &str| rule == "*" || rule == value;
        self.0.iter().any(|[name, kernel, kind]| name == test && fits(kernel, series) && fits(kind, swap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_test_kernel_swap_and_reason() {
        let skips = Skips::parse("# title\n\ngate::remote 6.1 *  # since 6.13\n").unwrap();
        assert!(skips.allows("gate::remote", "6.1", "zram"));
        assert!(!skips.allows("gate::remote", "6.12", "zram"));
        assert!(Skips::parse("gate::remote 6.1 *").is_err());
        assert!(Skips::parse("gate::remote 6.1  # why").is_err());
    }
}
