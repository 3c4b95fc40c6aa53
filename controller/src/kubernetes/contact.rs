//! How it stands with the API server: whether it answers, since when it does not, and what was in the way how often.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::watcher;

use crate::sense::clock::wall_ms;

/// Shared by the watch, which writes it, and a scrape, which reads it.
#[derive(Clone, Debug, Default)]
pub struct Contact(Arc<Mutex<Standing>>);

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the last thing heard was an answer.
    pub connected: bool,
    /// When the server last answered the watch, in milliseconds since 1970; none before it ever did.
    pub answered_ms: Option<u64>,
    /// How often the watch was begun again, by what was in the way.
    pub failures: BTreeMap<&'static str, u64>,
    /// How often the watch panicked and was begun again.
    pub restarts: u64,
    /// What has been said since the last answer.
    said: Vec<&'static str>,
}

impl Contact {
    /// How it stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.lock().clone()
    }

    pub(super) fn answered(&self) {
        let mut now = self.lock();
        if !now.connected {
            tracing::info!("the API server answers");
        }
        now.said.clear();
        (now.connected, now.answered_ms) = (true, Some(wall_ms()));
    }

    /// Said once for each kind until it works again: it may last for days.
    pub(super) fn failed(&self, kind: &'static str, error: &(dyn Error + 'static)) {
        let mut now = self.lock();
        now.connected = false;
        *now.failures.entry(kind).or_default() += 1;
        if !now.said.contains(&kind) {
            now.said.push(kind);
            let error = causes(error);
            tracing::warn!(
                kind,
                error,
                "the API server does not tell about pods; going on with the last known ones"
            );
        }
    }

    /// The watch panicked, and is begun again.
    pub(super) fn fell(&self) {
        let mut now = self.lock();
        now.connected = false;
        now.restarts += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with what caused it, each said once: kube repeats causes in its messages.
fn causes(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| (*error).source());
    chain.map(ToString::to_string).fold(String::new(), |said, next| match said.as_str() {
        "" => next,
        so_far if so_far.contains(&next) => said,
        so_far => format!("{so_far}: {next}"),
    })
}

/// What kind of failure it is, as one of a few words.
pub(super) fn kind(error: &watcher::Error) -> &'static str {
    match error {
        watcher::Error::WatchError(status) => by_code(status.code),
        watcher::Error::NoResourceVersion => "answer",
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => by_code(status.code),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => "answer",
            kube::Error::Auth(_) => "unauthorized",
            other => by_cause(other),
        },
    }
}

fn by_code(code: u16) -> &'static str {
    match code {
        401 => "unauthorized",
        403 => "forbidden",
        410 => "expired",
        429 => "throttled",
        500.. => "server",
        _ => "answer",
    }
}

fn by_cause(error: &(dyn Error + 'static)) -> &'static str {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let io = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>()).last();
    match io.map(std::io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => "refused",
        Some(ErrorKind::TimedOut) => "timeout",
        Some(ErrorKind::InvalidData) => "tls",
        _ => "connection",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_kind_and_an_answer_makes_good() {
        let contact = Contact::default();
        let error = std::io::Error::from(ErrorKind::ConnectionRefused);
        (0..3).for_each(|_| contact.failed("refused", &error));
        contact.failed("forbidden", &error);
        assert_eq!(contact.standing().said, ["refused", "forbidden"]);
        contact.answered();
        let now = contact.standing();
        assert!(now.connected && now.answered_ms.is_some() && now.said.is_empty());
        assert_eq!(now.failures, BTreeMap::from([("forbidden", 1), ("refused", 3)]));
    }

    #[test]
    fn a_failure_is_known_by_its_deepest_cause() {
        let refused = std::io::Error::from(ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(std::io::Error::other(refused)));
        assert_eq!(
            kind(&watcher::Error::WatchStartFailed(error)),
            "connection",
            "other() hides its own cause"
        );
        let error = kube::Error::ReadEvents(std::io::Error::from(ErrorKind::TimedOut));
        assert_eq!(kind(&watcher::Error::WatchFailed(error)), "timeout");
        assert_eq!(kind(&watcher::Error::NoResourceVersion), "answer");
    }
}
