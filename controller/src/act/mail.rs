//! The way back to the pass: what the reaction thread and the workers have to say, and the bell that wakes it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use plimsoll_policy::plan::Act;
use plimsoll_policy::sample::Trigger;
use plimsoll_policy::units::{Bytes, Monotonic, Span};
use rustix::event::{EventfdFlags, eventfd};

/// One message. Small and without heap data, so that the reaction thread can send it without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Something happened that a pass should look at.
    Woke(Trigger),
    /// The gate stopped a thread of this standing target, which is being frozen now.
    GateStopped {
        /// Inode of the workload's cgroup.
        inode: u64,
        /// When the kernel stopped it.
        at: Monotonic,
    },
    /// The kernel's OOM killer chose this process.
    OomVictim {
        /// Its pid.
        pid: u32,
        /// Its cgroup id, where the probe knew it.
        cgroup: u64,
    },
    /// An action came to its end.
    Ended(Ended),
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Inode of the workload's cgroup.
    pub inode: u64,
    /// What was tried.
    pub act: Act,
    /// How it ended.
    pub end: End,
    /// When it was begun.
    pub begun: Monotonic,
    /// How long it took.
    pub took: Span,
    /// `memory.current` before minus after; of a kill with `memory.swap.current`.
    pub freed: Option<Bytes>,
}

/// The result of an action without heap data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Done and seen to be done.
    Done,
    /// Done in part.
    Partial,
    /// The cgroup is gone.
    Gone,
    /// The second look said no.
    Withdrawn,
    /// Somebody else has written there meanwhile.
    Foreign,
    /// The kernel refused with this errno.
    Failed(i32),
}

/// The sending half, shared by all threads.
#[derive(Clone)]
pub struct Mail {
    sender: SyncSender<Message>,
    bell: Arc<OwnedFd>,
    dropped: Arc<AtomicU64>,
}

/// The receiving half.
pub struct Inbox {
    receiver: Receiver<Message>,
    bell: Arc<OwnedFd>,
    dropped: Arc<AtomicU64>,
}

/// Far more than ever waits between two passes; beyond it messages are dropped and counted.
const ROOM: usize = 1024;

/// Makes both halves.
///
/// # Errors
/// When no eventfd can be had.
pub fn mail() -> std::io::Result<(Mail, Inbox)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (sender, receiver) = sync_channel(ROOM);
    let dropped = Arc::new(AtomicU64::new(0));
    let inbox = Inbox { receiver, bell: Arc::clone(&bell), dropped: Arc::clone(&dropped) };
    Ok((Mail { sender, bell, dropped }, inbox))
}

impl Mail {
    /// Sends without waiting.
    pub fn post(&self, message: Message) {
        if self.sender.try_send(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        // A full eventfd counter means that the bell rings already.
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }
}

impl Inbox {
    /// All that waits. Silences the bell first, so that nothing posted meanwhile is missed.
    pub fn drain(&self) -> Vec<Message> {
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.receiver.try_iter().collect()
    }

    /// A descriptor of its own that becomes readable when something was posted.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn bell(&self) -> std::io::Result<OwnedFd> {
        self.bell.try_clone()
    }

    /// Messages that found no room so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
