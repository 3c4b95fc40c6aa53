//! What a load says of itself: one JSON line on standard output per event, with the shared clock.

use std::io::{BufRead, Write};
use std::time::Duration;

use crate::time::now_ns;

/// Prints `{"at_ns":..,"event":..,"mib":..}` at once. A closed output ends nothing: the load is what counts.
pub(crate) fn say(event: &str, mib: usize) {
    let mut out = std::io::stdout().lock();
    let _ =
        writeln!(out, r#"{{"at_ns":{},"event":"{event}","mib":{mib}}}"#, now_ns()).and_then(|()| out.flush());
}

/// When a load begins to grow.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Start {
    /// Begin to grow after this long
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse_span, default_value = "0s")]
    grow_after: Duration,
    /// Begin to grow when a line comes on standard input, instead
    #[arg(long, conflicts_with = "grow_after")]
    grow_on_line: bool,
}

impl Start {
    /// Waits for the moment; an input that ends without a line never starts anything.
    pub(crate) fn wait(self) {
        if !self.grow_on_line {
            std::thread::sleep(self.grow_after);
            return;
        }
        let mut line = String::new();
        if !matches!(std::io::stdin().lock().read_line(&mut line), Ok(1..)) {
            rest();
        }
    }
}

/// Does nothing any more, until a signal ends the process.
pub(crate) fn rest() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
