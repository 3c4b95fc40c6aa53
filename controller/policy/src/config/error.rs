//! What can be wrong with a configuration, and where: one error per mistake.

use std::fmt;

/// One mistake. A configuration with several is refused with all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", if path.is_empty() { "configuration" } else { path })]
pub struct ConfigError {
    /// The key, from the root: `host.critical.leave`, `workloads[2].priority`.
    pub path: String,
    /// What is the matter with it.
    pub problem: Problem,
}

/// What is the matter with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// There is no such key.
    Unknown {
        /// The key that was most likely meant.
        meant: Option<&'static str>,
        /// The keys that exist here.
        known: Vec<&'static str>,
    },
    /// The key stands there twice.
    Repeated,
    /// The key has to be given.
    Missing {
        /// What it takes.
        expected: String,
    },
    /// The value is of the wrong kind or out of range.
    Value {
        /// What was written.
        found: String,
        /// What it takes, with the allowed range.
        expected: String,
    },
    /// The value is fine by itself and contradicts another one.
    Conflict(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { meant: Some(key), .. } => write!(f, "unknown key, did you mean `{key}`?"),
            Self::Unknown { meant: None, known } => {
                write!(f, "unknown key, known here are {}", known.join(", "))
            }
            Self::Repeated => f.write_str("is given twice"),
            Self::Missing { expected } => write!(f, "is missing, expected {expected}"),
            Self::Value { found, expected } => write!(f, "is {found}, expected {expected}"),
            Self::Conflict(sentence) => f.write_str(sentence),
        }
    }
}
