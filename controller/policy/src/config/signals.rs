//! The section `ask.signal` of a rule: which signal says what, and who gets it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::node::Node;
use super::scalar::{Kind, OneOf};
use super::section::Section;
use crate::concession::Level;
use crate::units::is_default;

/// Which signal says what. A level without one can't be asked for by signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Signals {
    /// For [`Level::Gc`].
    #[serde(skip_serializing_if = "is_default")]
    pub gc: Option<Signal>,
    /// For [`Level::Aggressive`].
    #[serde(skip_serializing_if = "is_default")]
    pub aggressive: Option<Signal>,
    /// For [`Level::Offload`].
    #[serde(skip_serializing_if = "is_default")]
    pub offload: Option<Signal>,
    /// For [`Level::Unload`].
    #[serde(skip_serializing_if = "is_default")]
    pub unload: Option<Signal>,
    /// After an offload or an unload; without one the program comes back by itself.
    #[serde(skip_serializing_if = "is_default")]
    pub restore: Option<Signal>,
    /// Who gets it.
    pub to: Recipients,
}

impl Signals {
    /// Sets the signal of a level; that of [`Level::Nothing`] restores.
    pub const fn set(&mut self, level: Level, signal: Signal) {
        let place = match level {
            Level::Nothing => &mut self.restore,
            Level::Gc => &mut self.gc,
            Level::Aggressive => &mut self.aggressive,
            Level::Offload => &mut self.offload,
            Level::Unload => &mut self.unload,
        };
        *place = Some(signal);
    }

    /// The signal of a level; that of [`Level::Nothing`] restores.
    #[must_use]
    pub const fn of(&self, level: Level) -> Option<Signal> {
        match level {
            Level::Nothing => self.restore,
            Level::Gc => self.gc,
            Level::Aggressive => self.aggressive,
            Level::Offload => self.offload,
            Level::Unload => self.unload,
        }
    }
}

/// Which processes of a workload get a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipients {
    /// The one that was started first.
    #[default]
    Main,
    /// All that catch it.
    All,
}

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::All => "all",
        })
    }
}

/// A signal that programs use for purposes of their own: none that stops, ends or continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Signal {
    /// `SIGHUP`.
    Hup,
    /// `SIGUSR1`.
    Usr1,
    /// `SIGUSR2`.
    Usr2,
    /// `SIGURG`.
    Urg,
    /// `SIGWINCH`.
    Winch,
    /// `SIGRTMIN+n`, where `SIGRTMIN` is the C library's.
    Realtime(u8),
}

/// Real-time signals beyond `SIGRTMIN` that every machine has.
const REALTIME: u8 = 29;

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hup => f.write_str("SIGHUP"),
            Self::Usr1 => f.write_str("SIGUSR1"),
            Self::Usr2 => f.write_str("SIGUSR2"),
            Self::Urg => f.write_str("SIGURG"),
            Self::Winch => f.write_str("SIGWINCH"),
            Self::Realtime(n) => write!(f, "SIGRTMIN+{n}"),
        }
    }
}

/// A text that is no signal that may be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {WORDS}")]
pub struct BadSignal(String);

const WORDS: &str = "SIGUSR1, SIGUSR2, SIGHUP, SIGURG, SIGWINCH, SIGRTMIN+0 to SIGRTMIN+29";

impl FromStr for Signal {
    type Err = BadSignal;
    fn from_str(text: &str) -> Result<Self, BadSignal> {
        if let Some(n) = text.strip_prefix("SIGRTMIN+").and_then(|n| n.parse().ok()) {
            return if n <= REALTIME { Ok(Self::Realtime(n)) } else { Err(BadSignal(text.to_owned())) };
        }
        [Self::Hup, Self::Usr1, Self::Usr2, Self::Urg, Self::Winch]
            .into_iter()
            .find(|signal| signal.to_string() == text)
            .ok_or_else(|| BadSignal(text.to_owned()))
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl TryFrom<String> for Signal {
    type Error = BadSignal;
    fn try_from(text: String) -> Result<Self, BadSignal> {
        text.parse()
    }
}

/// The value of a signal's key.
struct AnySignal;

impl Kind for AnySignal {
    type Value = Signal;
    fn read(&self, node: &Node) -> Option<Signal> {
        let Node::Text(text) = node else { return None };
        text.parse().ok()
    }
    fn expected(&self) -> String {
        format!("one of {WORDS}")
    }
}

pub(super) fn signals(section: &mut Section<'_>) -> Signals {
    let signals = Signals {
        gc: section.get("gc", &AnySignal),
        aggressive: section.get("aggressive", &AnySignal),
        offload: section.get("offload", &AnySignal),
        unload: section.get("unload", &AnySignal),
        restore: section.get("restore", &AnySignal),
        to: section.get("to", &OneOf(&[Recipients::Main, Recipients::All])).unwrap_or_default(),
    };
    if section.clean() && Level::ALL.iter().all(|level| signals.of(*level).is_none()) {
        section.conflict("", "names no signal for gc, aggressive, offload or unload".into());
    }
    signals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_that_programs_use_for_themselves() {
        for word in ["SIGUSR1", "SIGHUP", "SIGWINCH", "SIGRTMIN+0", "SIGRTMIN+29"] {
            assert_eq!(word.parse::<Signal>().map(|signal| signal.to_string()), Ok(word.to_owned()));
        }
        for word in ["SIGKILL", "SIGSTOP", "SIGTERM", "SIGCONT", "9", "USR1", "SIGRTMIN+30", "SIGRTMIN+", ""]
        {
            assert!(word.parse::<Signal>().is_err(), "{word}");
        }
    }
}
