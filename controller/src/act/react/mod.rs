//! The reaction thread: the ring buffer and PSI by epoll on one side, freeze and kill on the other.
//!
//! It is a real-time thread of its own and not a tokio task (measured: 0.4 ms against 10 ms once the CPUs are
//! busy). It decides nothing: it carries out orders of the last plan, and the standing order that whoever the gate
//! stops is to be frozen. Up to the write that matters there is no allocation, no lock, no disk, and no write that
//! can reclaim.

mod operation;
mod thread;
mod watched;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use plimsoll_policy::units::{Bytes, Span};
use rustix::event::{EventfdFlags, eventfd};

use super::mail::Mail;
use super::worker::Job;
use crate::ledger::{Ledger, SlotId};
use crate::sense::cgroup::Cgroup;
use crate::sense::probes::Ring;

/// What the thread is told. Workloads are named by the inode of their cgroup.
pub enum Order {
    /// Hold this workload's descriptors and listen to it.
    Watch {
        /// Its cgroup.
        cgroup: Arc<Cgroup>,
        /// Where it is written down.
        slot: SlotId,
        /// An armed PSI trigger.
        psi: Option<OwnedFd>,
    },
    /// Let go of it.
    Forget(u64),
    /// Listen to the host's PSI trigger.
    HostPsi(OwnedFd),
    /// Whoever of these the gate stops is frozen at once.
    Standing(Vec<StandingTarget>),
    /// Freeze, and say when it has taken effect.
    Freeze(u64, Look),
    /// Thaw, and continue what the gate had stopped.
    Thaw(u64),
    /// Kill, and say when it is empty.
    Kill(u64, Look),
    /// End.
    Stop,
}

/// A workload that the gate may stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingTarget {
    /// Inode of its cgroup.
    pub inode: u64,
    /// Ids of that cgroup and those below it.
    pub ids: Vec<u64>,
}

/// The second look before what can't be undone: withdraw when this much is available by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// `MemAvailable` that makes the action needless; `None` where it was not known.
    pub enough: Option<Bytes>,
    /// How long to wait for the effect.
    pub deadline: Span,
}

/// The running thread.
pub struct Reaction {
    orders: SyncSender<Order>,
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// Whether it got real-time priority; if not, why.
    pub real_time: Result<(), String>,
}

impl Reaction {
    /// Starts the thread.
    ///
    /// # Errors
    /// When epoll, an eventfd or the thread can't be had.
    pub fn start(
        mail: Mail,
        jobs: SyncSender<Job>,
        ledger: Arc<Ledger>,
        ring: Option<Ring>,
    ) -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (orders, inbox) = sync_channel(1024);
        let reactor = thread::Reactor::new(inbox, Arc::clone(&bell), mail, jobs, ledger, ring)?;
        let (said, real_time) = sync_channel(1);
        let thread = std::thread::Builder::new().name("reaction".into()).spawn(move || {
            // The receiver waits for this one message.
            let _ = said.send(thread::real_time());
            reactor.run();
        })?;
        let real_time = real_time.recv().unwrap_or_else(|_| Err("the thread ended".into()));
        Ok(Self { orders, bell, thread: Some(thread), real_time })
    }

    /// Hands an order over; false where the thread has 1024 waiting (it is stuck, and the next pass asks again).
    pub fn order(&self, order: Order) -> bool {
        let taken = self.orders.try_send(order).is_ok();
        // A full eventfd counter means that the bell rings already.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        taken
    }

    /// Whether the thread has ended, which it never does by itself.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread.
    pub fn stop(mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was printed when it happened.
            let _ = thread.join();
        }
    }
}
