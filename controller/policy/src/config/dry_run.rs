//! Which rungs are only talked about.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ladder::RUNGS;
use super::node::Node;
use super::scalar::Kind;
use crate::sample::Rung;

/// `true`, `false`, or the rungs that are decided and not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DryRun {
    /// Everything, protection and the gate included; or nothing.
    Whole(bool),
    /// These rungs.
    Rungs(Vec<Rung>),
}

impl Default for DryRun {
    fn default() -> Self {
        Self::Whole(false)
    }
}

impl DryRun {
    /// Whether this rung is only talked about.
    #[must_use]
    pub fn covers(&self, rung: Rung) -> bool {
        match self {
            Self::Whole(whole) => *whole && rung > Rung::Free,
            Self::Rungs(rungs) => rungs.contains(&rung),
        }
    }

    /// Whether nothing at all is touched.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(true))
    }

    /// Whether everything that is decided is done.
    #[must_use]
    pub fn is_off(&self) -> bool {
        match self {
            Self::Whole(whole) => !whole,
            Self::Rungs(rungs) => rungs.is_empty(),
        }
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(true) => f.write_str("everything"),
            Self::Rungs(rungs) if !rungs.is_empty() => {
                let words: Vec<&str> = rungs.iter().map(|rung| rung.name()).collect();
                f.write_str(&words.join(", "))
            }
            Self::Whole(false) | Self::Rungs(_) => f.write_str("nothing"),
        }
    }
}

impl std::str::FromStr for DryRun {
    type Err = String;
    /// From an argument: `all`, or rungs with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::Whole(true));
        }
        let rungs = text.split(',').map(|word| RUNGS.read(&Node::Text(word.trim().into())));
        let rungs = rungs.collect::<Option<Vec<Rung>>>();
        rungs.map(sorted).ok_or_else(|| format!("expected all, or a list of {}", RUNGS.expected()))
    }
}

/// The value of `ladder.dry_run`.
pub(super) struct Dry;

impl Kind for Dry {
    type Value = DryRun;
    fn read(&self, node: &Node) -> Option<DryRun> {
        match node {
            Node::Bool(whole) => Some(DryRun::Whole(*whole)),
            Node::List(items) => {
                items.iter().map(|item| RUNGS.read(item)).collect::<Option<Vec<Rung>>>().map(sorted)
            }
            _ => None,
        }
    }
    fn expected(&self) -> String {
        format!("true, false, or a list, each item {}", RUNGS.expected())
    }
}

/// Gentlest first whatever the order it was written in, each once.
fn sorted(mut rungs: Vec<Rung>) -> DryRun {
    rungs.sort();
    rungs.dedup();
    DryRun::Rungs(rungs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_said() {
        let read = |text: &str| text.parse::<DryRun>();
        assert_eq!(read("all"), Ok(DryRun::Whole(true)));
        assert_eq!(read("kill,freeze"), Ok(DryRun::Rungs(vec![Rung::Freeze, Rung::Kill])));
        assert!(read("kill,eat").is_err_and(|error| error.contains("freeze or kill")));
        assert_eq!(read("kill, freeze").map(|dry| dry.to_string()), Ok("freeze, kill".into()));
        assert_eq!(DryRun::default().to_string(), "nothing");
    }

    #[test]
    fn what_it_covers() {
        let some = DryRun::Rungs(vec![Rung::Kill]);
        assert_eq!((some.covers(Rung::Kill), some.covers(Rung::Freeze), some.is_off()), (true, false, false));
        let all = DryRun::Whole(true);
        assert_eq!((all.covers(Rung::Trim), all.covers(Rung::Free), all.is_whole()), (true, false, true));
        assert!(DryRun::default().is_off());
    }

    #[test]
    fn it_is_written_as_it_is_configured() {
        for (dry, json) in [(DryRun::Whole(false), "false"), (DryRun::Rungs(vec![Rung::Kill]), "[\"kill\"]")]
        {
            assert_eq!(serde_json::to_string(&dry).ok().as_deref(), Some(json));
            assert_eq!(serde_json::from_str::<DryRun>(json).ok(), Some(dry));
        }
    }
}
