//! The control socket: Varlink over a Unix socket. It carries calls to the pass and answers back, and decides nothing but who
//! may speak for whom.
//!
//! Everything here runs on tokio. A call goes to the owner of the state over a bounded channel and its answer comes back over a
//! channel of its own, so no client, however slow or hostile, is ever waited for by a pass.

mod advice;
mod calls;
pub mod client;
mod conditions;
mod connection;
pub mod counts;
mod listen;
mod notices;
mod obey;
mod operator;
mod parameters;
mod peer;
mod programs;
mod protocol;
mod sessions;
#[cfg(test)]
mod tests;
pub mod way;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_policy::admission::{Call, Caller, Reply, Request};
use plimsoll_policy::config::{Config, Daemon};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::report::Showing;

pub use self::conditions::{Conditions, Herald};
pub use self::counts::Counts;
pub use self::listen::{ControlError, Listening, listen};
pub use self::operator::OperatorRefusal;
pub use self::protocol::ControlRefusal;
pub use self::sessions::Sessions;

/// The interface, for `GetInterfaceDescription` and for people.
pub const INTERFACE: &str = include_str!("dev.plimsoll.Control.varlink");

/// The one for those who run the machine.
pub const OPERATOR: &str = include_str!("dev.plimsoll.Operator.varlink");

/// The interface that every Varlink service has.
const SERVICE: &str = include_str!("org.varlink.service.varlink");

/// Calls that may be on their way to the pass. Each connection has at most one, and one that reports its end.
const WAITING: usize = 64;

/// A call for the pass, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What to put into the sample.
    pub request: Request,
    /// Where the answer goes; nobody listens any more where the client is gone.
    pub answer: oneshot::Sender<Reply>,
}

/// The way to the pass, for connections.
#[derive(Clone, Debug)]
pub struct Desk {
    calls: mpsc::Sender<Asked>,
    tickets: Tickets,
}

/// Numbers calls in the order in which they come, whoever makes them. Clones go on with the same numbers.
#[derive(Clone, Debug)]
pub struct Tickets(Arc<AtomicU64>);

impl Default for Tickets {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(1)))
    }
}

impl Tickets {
    /// A number that no other call has.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The daemon ends: nobody answers any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the controller is about to leave")]
pub struct Gone;

/// Both ends of the way to the pass.
#[must_use]
pub fn desk() -> (Desk, mpsc::Receiver<Asked>) {
    let (calls, asked) = mpsc::channel(WAITING);
    (Desk { calls, tickets: Tickets::default() }, asked)
}

impl Desk {
    /// Numbers for calls of the daemon's own.
    #[must_use]
    pub fn tickets(&self) -> Tickets {
        self.tickets.clone()
    }

    /// A number for a call.
    fn ticket(&self) -> u64 {
        self.tickets.next()
    }

    /// Brings a call to the pass and waits for its answer.
    async fn ask(&self, ticket: u64, caller: Caller, call: Call) -> Result<Reply, Gone> {
        let (answer, told) = oneshot::channel();
        let request = Request { ticket, caller, call };
        self.calls.send(Asked { request, answer }).await.map_err(|_| Gone)?;
        told.await.map_err(|_| Gone)
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Control {
    desk: Desk,
    conditions: watch::Receiver<Arc<Conditions>>,
    sessions: Arc<Sessions>,
    counts: Arc<Counts>,
    showing: Showing,
    daemon: Daemon,
    /// So long a program waits for its cgroup to be found.
    found_within: Duration,
    /// The journal is read for one operator at a time.
    explaining: Semaphore,
}

impl Control {
    /// Joins the ends of everything that clients may reach.
    #[must_use]
    pub fn new(
        config: &Config,
        desk: Desk,
        conditions: watch::Receiver<Arc<Conditions>>,
        sessions: Arc<Sessions>,
        counts: Arc<Counts>,
        showing: Showing,
    ) -> Self {
        let found_within = Duration::from(config.pace.discover) * 2 + Duration::from_secs(1);
        Self {
            desk,
            conditions,
            sessions,
            counts,
            showing,
            daemon: config.daemon.clone(),
            found_within,
            explaining: Semaphore::new(1),
        }
    }

    fn cgroup_root(&self) -> &Path {
        Path::new(&self.daemon.cgroup_root)
    }
}

/// Where the socket is, if there is to be one.
#[must_use]
pub fn path(daemon: &Daemon) -> Option<PathBuf> {
    daemon.control.as_ref().map(|control| Path::new(&daemon.run_dir).join(control))
}
