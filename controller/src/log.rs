//! Where log lines go: to stderr, at the level of `PLIMSOLL_LOG`, for people or as JSON.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// The environment variable with the level, or with levels by target.
const LEVEL: &str = "PLIMSOLL_LOG";

/// kube logs each failure of each request, and its caller says what is to be said of it. Who wants to see more names its crates.
const SILENT: [&str; 2] = ["kube_client=off", "kube_runtime=off"];

/// Starts logging. A level that can't be understood is `info`, with a warning: a typo there must not stop protection.
pub(crate) fn start(format: LogFormat) {
    let asked = std::env::var(LEVEL).ok();
    let filter = asked.as_deref().map(EnvFilter::try_new);
    let wrong = matches!(filter, Some(Err(_)));
    let mut filter = filter.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new(Level::INFO.as_str()));
    if !asked.as_deref().is_some_and(|asked| asked.contains("kube_")) {
        filter = SILENT.iter().filter_map(|level| level.parse().ok()).fold(filter, EnvFilter::add_directive);
    }
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    if wrong {
        tracing::warn!(value = asked, "PLIMSOLL_LOG is not understood");
    }
}
