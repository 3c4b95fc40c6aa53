//! The line that shows how far each guest is, where a person watches.
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_init::outcome::TestLine;

use crate::vm_command::SwapKind;

/// A status line on standard error that is overwritten as tests end; finished guests scroll up above it.
#[derive(Default)]
pub(super) struct Progress(Mutex<BTreeMap<String, String>>);

impl Progress {
    /// `done` of `all` tests of a guest have ended, `last` with what it printed.
    pub(super) fn show(
        &self,
        series: &str,
        swap: SwapKind,
        (done, all): (usize, usize),
        last: Option<&(TestLine, String)>,
    ) {
        let name = last.map_or("booting", |(test, _)| test.name.as_str());
        let mut guests = self.lock();
        guests.insert(format!("{series} swap {swap}"), format!("{done}/{all} {name}"));
        draw(&guests);
    }

    /// A guest has ended with a verdict.
    pub(super) fn end(&self, series: &str, swap: SwapKind, verdict: &str) {
        let mut guests = self.lock();
        guests.remove(&format!("{series} swap {swap}"));
        clear();
        println!("{verdict}");
        draw(&guests);
    }

    /// What a thread that panicked was showing is as good as any.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clear() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

fn draw(guests: &BTreeMap<String, String>) {
    if std::io::stderr().is_terminal() {
        let texts: Vec<_> = guests.iter().map(|(guest, text)| format!("{guest}: {text}")).collect();
        let line: String = texts.join("  |  ").chars().take(WIDTH).collect();
        eprint!("\r\x1b[K{line}");
        // A terminal that is gone needs no progress.
        let _ = std::io::stderr().flush();
    }
}

/// A longer line would wrap, and could not be overwritten.
const WIDTH: usize = 79;
