//! The line that shows how far a guest is, where a person watches.
use std::io::{IsTerminal as _, Write as _};

use plimsoll_init::outcome::TestLine;

use crate::vm_command::SwapKind;

/// A status line on standard error that is overwritten as tests end.
pub(super) struct Progress {
    place: String,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(series: &str, swap: SwapKind) -> Self {
        let progress =
            Self { place: format!("{series} swap {swap}"), terminal: std::io::stderr().is_terminal() };
        progress.write("booting");
        progress
    }

    /// `done` of `all` tests have ended, `last` with what it printed.
    pub(super) fn show(&self, done: usize, all: usize, last: Option<&(TestLine, String)>) {
        let name = last.map(|(test, _)| test.name.as_str()).unwrap_or_default();
        self.write(&format!("{done}/{all} {name}"));
    }

    pub(super) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        if self.terminal {
            eprint!("\r\x1b[K      {}: {text}", self.place);
            // A terminal that is gone needs no progress.
            let _ = std::io::stderr().flush();
        }
    }
}
