//! `plimsoll run`: one select, one trigger, one pass.

mod build;
mod callers;
mod gate;
mod node;
mod supervisor;
mod voice;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use plimsoll_policy::config::Config;
use plimsoll_policy::sample::Trigger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until};

use self::build::Parts;
use self::node::Node;
use self::supervisor::Supervisor;
use crate::act::mail::Inbox;
use crate::ask::{Told, Ways};
use crate::control::Asked;
use crate::kubernetes::tell::Evicted;
use crate::ledger::LedgerError;
use crate::place;
use crate::sense::discover::Discovery;

/// Why the daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The host lacks what nothing works without.
    #[error(transparent)]
    Host(#[from] crate::check::CheckError),
    /// The ledger can't be had.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// HTTP or the journal can't be had.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// The control socket can't be had.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// Something else of the system.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A thread that must live is dead.
    #[error("the {0} thread ended; everything was released")]
    Thread(&'static str),
}

pub(crate) fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Io { what, source }
}

/// Runs until SIGTERM or SIGINT, then releases everything.
///
/// # Errors
/// [`RunError`]; whatever was set by then is released.
pub fn run(config: &Config) -> Result<(), RunError> {
    place::settle(Path::new(&config.daemon.cgroup_root));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The pass runs on the main thread; this one serves HTTP.
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(io_error("can't start the runtime"))?;
    let result = runtime.block_on(async {
        let Parts {
            mut node,
            inbox,
            discovered,
            asked,
            ways,
            told,
            evicted,
            control,
            listening,
            minimum,
            oom,
        } = build::build(config)?;
        let result = watch(&mut node, &inbox, discovered, asked, (ways, told), evicted).await;
        // No order is told after this, so what is released stays released.
        oom.lock().unwrap_or_else(PoisonError::into_inner).take();
        let herald = node.herald();
        let (asker, teller) = node.shut_down();
        // Clients are asked over the control socket, so that ends last.
        tokio::join!(asker.farewell(), async {
            if let Some(teller) = teller {
                teller.farewell().await;
            }
        });
        herald.stop();
        drop((control, listening));
        drop(minimum);
        result
    });
    // Somebody may have a large journal read to him: nobody waits for that.
    runtime.shutdown_timeout(FAREWELL);
    result
}

/// What is on its way to clients has so long to get there.
const FAREWELL: Duration = Duration::from_millis(100);

/// Passes closer together than this see nothing new: PSI and `memory.events` notify every 10 ms at most.
const PAUSE: Duration = Duration::from_millis(5);

async fn watch(
    node: &mut Node,
    inbox: &Inbox,
    mut discovered: Receiver<Discovery>,
    mut asked: Receiver<Asked>,
    (ways, mut told): (Ways, Receiver<Told>),
    mut evicted: Receiver<Evicted>,
) -> Result<(), RunError> {
    let mut stop = Stop::listen()?;
    let bell = listen(inbox).map_err(io_error("can't listen to the reaction thread"))?;
    let mut supervisor = Supervisor::of_environment();
    let mut last = Instant::now();
    let mut next = last;
    let mut trigger = Trigger::Timer;
    loop {
        tokio::select! {
            biased;
            () = stop.asked() => {
                supervisor.stopping();
                node.pass(Trigger::Shutdown);
                return Ok(());
            }
            ready = bell.readable() => {
                let mut ready = ready.map_err(io_error("can't listen to the reaction thread"))?;
                ready.clear_ready();
                if let Some(woken) = node.take_mail(inbox) {
                    trigger = woken;
                    next = next.min(last + PAUSE);
                }
                if next > Instant::now() {
                    continue;
                }
            }
            Some(discovery) = discovered.recv() => {
                if !node.take_workloads(&discovery) {
                    continue;
                }
                trigger = Trigger::Workloads;
            }
            Some(call) = asked.recv() => {
                node.take_call(call);
                trigger = Trigger::Request;
                // Clients can make no more passes than pressure can.
                next = next.min(last + node.busy());
                if next > Instant::now() {
                    continue;
                }
            }
            Some(told) = told.recv() => {
                if !node.take_told(told) {
                    continue;
                }
                trigger = Trigger::Concession;
                next = next.min(last + node.busy());
                if next > Instant::now() {
                    continue;
                }
            }
            Some(evicted) = evicted.recv() => {
                node.take_evicted(evicted);
                trigger = Trigger::Outcome;
            }
            () = ways.changed() => {
                node.take_ways();
                continue;
            }
            () = sleep_until(next) => {}
        }
        node.check_threads()?;
        let passed = node.pass(trigger);
        supervisor.passed(&passed);
        trigger = Trigger::Timer;
        last = Instant::now();
        next = last + passed.next;
    }
}

fn listen(inbox: &Inbox) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is a clone that nothing but the returned value owns, closes or replaces.
    Ok(unsafe { AsyncFd::register_with_interest(inbox.bell()?, Interest::READABLE) }?)
}

/// The signals that ask for an orderly end.
struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    fn listen() -> Result<Self, RunError> {
        let on = |kind| signal(kind).map_err(io_error("can't listen to signals"));
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Where the run directory is.
pub(crate) fn run_dir(config: &Config) -> PathBuf {
    PathBuf::from(&config.daemon.run_dir)
}
