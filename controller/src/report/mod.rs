//! Tells what a pass saw and did: metrics, status, journal. A pass hands over one record and waits for nobody.

mod about;
mod admission;
mod asking;
mod client;
mod gpus;
mod histogram;
mod http;
mod journal;
mod metrics;
mod screen;
mod state;
pub mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_ebpf::Histogram;
use plimsoll_policy::config::Config;
use plimsoll_policy::plan::{Assessment, Finding, Plan};
use plimsoll_policy::sample::{Sample, WorkloadId};
use plimsoll_policy::state::State as Before;
use plimsoll_policy::units::{Monotonic, Span};

pub use self::about::About;
pub use self::client::{ClientError, status};
use self::http::{News, Server, Shared};
use self::journal::Journal;
#[cfg(test)]
pub(crate) use self::journal::journal_by_hand;
pub use self::journal::journal_files;
pub use self::screen::render;
use self::state::State;
pub(crate) use self::state::result;
use self::status::Status;
use crate::act::others::Others;
use crate::kubernetes::PodRef;

/// How long the end waits for the journal to take what is left. A disk that hangs must not keep the machine from
/// being released.
const DRAIN: Duration = Duration::from_secs(1);

/// What one pass took and gave. It outlives the pass.
#[derive(Debug, Default)]
pub struct Record {
    /// The state before the pass, where [`Reporter::wants_state`] asked for it.
    pub before: Option<Before>,
    /// What was seen, with the outcomes of earlier actions.
    pub sample: Sample,
    /// What it means.
    pub assessment: Assessment,
    /// What is wanted.
    pub plan: Plan,
    /// What lint had to say.
    pub findings: Vec<Finding>,
    /// What others do to the workloads, until the pass.
    pub others: Arc<Others>,
    /// How long the pass took, from the beginning of the sample to the plan.
    pub took: Span,
}

/// Why reporting can't begin.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The address of `daemon.listen` is not to be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said; "address already in use" where another process has the port.
        #[source]
        error: std::io::Error,
    },
    /// The kernel gives no thread.
    #[error("cannot start the {name} thread")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        error: std::io::Error,
    },
}

/// Everything that is shown, for those who ask for it in another way than HTTP.
#[derive(Clone, Debug)]
pub struct Showing(Arc<Shared>);

impl Showing {
    /// The daemon as it is now. Waits while a scrape is served.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::from(&*self.0.lock())
    }
}

/// Takes records and has threads of its own for what can block.
pub struct Reporter {
    server: Server,
    journal: Option<Journal>,
}

impl Reporter {
    /// Listens and opens the journal. A journal that can't be written is a warning: protection goes on without it.
    ///
    /// # Errors
    /// When the address is not to be had, or the kernel gives no thread.
    pub fn start(config: &Config, about: About) -> Result<Self, ReportError> {
        let journal = Journal::start(config)?;
        let state = State::new(config, about, journal.as_ref().map(Journal::counts));
        let server = Server::start(config.daemon.listen, state)?;
        Ok(Self { server, journal })
    }

    /// What is kept for those who ask.
    #[must_use]
    pub fn showing(&self) -> Showing {
        Showing(Arc::clone(self.server.shared()))
    }

    /// Whether the pass that begins now shall keep a copy of the state before it, for its [`Record`].
    #[must_use]
    pub fn wants_state(&self, at: Monotonic) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.wants_state(at))
    }

    /// Hands over one pass and never waits: what nobody has room for is counted as dropped.
    pub fn pass(&mut self, record: Record) {
        let record = Arc::new(record);
        if let Some(journal) = &mut self.journal {
            journal.write(Arc::clone(&record));
        }
        self.server.show(News::Pass(record));
    }

    /// Hands over the reclaim stalls that eBPF counted, by cgroup id. Every few seconds is enough.
    pub fn stalls(&self, stalls: BTreeMap<u64, Histogram>) {
        self.server.show(News::Stalls(stalls));
    }

    /// Hands over which workloads are containers of which pods, when that changed. False where it has to be tried again.
    #[must_use]
    pub fn pods(&self, pods: BTreeMap<WorkloadId, PodRef>) -> bool {
        self.server.show(News::Pods(pods))
    }

    /// Ends: the journal gets a moment to take what is left. The server ends with the process.
    pub fn drain(self) {
        if let Some(journal) = self.journal {
            journal.drain(DRAIN);
        }
    }
}
