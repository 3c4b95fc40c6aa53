//! Writes that may block in reclaim, on threads of their own, in small pieces, with a deadline.
//!
//! `memory.reclaim` and, before 6.16, lowering `memory.high` reclaim in the writer. A piece is at most 16 MiB, and
//! each is preceded by a look whether the cgroup is still populated: rmdir of a cgroup that is being reclaimed waits
//! for the writer with `cgroup_mutex` held, which would block the freezing of all others.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use plimsoll_policy::plan::Act;
use plimsoll_policy::units::{Bytes, Limit, Monotonic, Span};

use super::mail::{End, Ended, Mail, Message};
use crate::ledger::{Ledger, SlotId};
use crate::sense::cgroup::{Cgroup, FileError};
use crate::sense::clock::now;

/// The largest single write to `memory.reclaim`.
const PIECE: Bytes = Bytes::mib(16);
/// How long one job may go on.
const DEADLINE: Span = Span::secs(2);

/// What a worker is asked to do.
pub enum Job {
    /// Reclaim up to a budget.
    Reclaim {
        /// From whom.
        cgroup: Arc<Cgroup>,
        /// How much.
        budget: Bytes,
    },
    /// Hold `memory.high` at a value.
    High {
        /// Of whom.
        cgroup: Arc<Cgroup>,
        /// The value.
        limit: Bytes,
        /// Where it is written down.
        slot: SlotId,
    },
    /// Help the kernel take the memory of processes that are being killed.
    Reap(Vec<OwnedFd>),
}

/// The pool.
pub struct Workers {
    jobs: SyncSender<Job>,
    threads: Vec<JoinHandle<()>>,
}

/// One may be stuck in a write while the other goes on.
const THREADS: usize = 2;

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(mail: &Mail, ledger: &Arc<Ledger>) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(256);
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for index in 0..THREADS {
            let (queue, mail, ledger) = (Arc::clone(&queue), mail.clone(), Arc::clone(ledger));
            let worker = thread::Builder::new().name(format!("reclaim-{index}"));
            threads.push(worker.spawn(move || work(&queue, &mail, &ledger))?);
        }
        Ok(Self { jobs, threads })
    }

    /// The queue's entrance, for the reaction thread.
    #[must_use]
    pub fn jobs(&self) -> SyncSender<Job> {
        self.jobs.clone()
    }

    /// Hands a job over; false where the queue is full (the next pass asks again).
    #[must_use]
    pub fn submit(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Lets the threads end after what they are at. Does not wait for one that is stuck in the kernel.
    pub fn stop(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.is_finished() {
                // A worker never panics; if it did, the panic was printed already.
                let _ = thread.join();
            }
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, mail: &Mail, ledger: &Ledger) {
    give_way();
    loop {
        let job = queue.lock().map(|queue| queue.recv());
        let Ok(Ok(job)) = job else { return };
        let begun = now();
        let (inode, act, end, freed) = match job {
            Job::Reclaim { cgroup, budget } => {
                let (end, freed) = measured(&cgroup, || reclaim(&cgroup, budget, begun + DEADLINE));
                (cgroup.id.inode, Act::Reclaim(budget), end, freed)
            }
            Job::High { cgroup, limit, slot } => {
                let (end, freed) = measured(&cgroup, || high(&cgroup, limit, slot, ledger, begun + DEADLINE));
                (cgroup.id.inode, Act::High(Limit::Bytes(limit)), end, freed)
            }
            Job::Reap(processes) => {
                processes.iter().for_each(reap);
                continue;
            }
        };
        mail.post(Message::Ended(Ended { inode, act, end, begun, took: now().since(begun), freed }));
    }
}

/// Compressing or writing pages out takes processor time that the protected should not have to wait for.
fn give_way() {
    // SAFETY: setpriority takes numbers only; 0 is the calling thread. Refused, it works at the ordinary priority.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// Runs an action between two readings of `memory.current`: the meter is independent of what the action claims.
fn measured(cgroup: &Cgroup, action: impl FnOnce() -> Result<End, FileError>) -> (End, Option<Bytes>) {
    let before = cgroup.current().ok();
    let end = action().unwrap_or_else(|error| end_of(&error));
    let freed = before.zip(cgroup.current().ok()).map(|(before, after)| before.saturating_sub(after));
    (end, freed)
}

/// A file error as the end of an action.
pub(super) fn end_of(error: &FileError) -> End {
    match error {
        FileError::Gone => End::Gone,
        FileError::Errno { source, .. } => End::Failed(source.raw_os_error()),
        FileError::Missing(_) => End::Failed(libc::ENOENT),
        FileError::Text { .. } => End::Failed(libc::EBADMSG),
    }
}

/// Reclaims in pieces until the budget is met, the kernel has no more to give, or the deadline has passed.
fn reclaim(cgroup: &Cgroup, budget: Bytes, deadline: Monotonic) -> Result<End, FileError> {
    let mut left = budget;
    while left > Bytes::ZERO {
        if now() >= deadline {
            return Ok(End::Partial);
        }
        let (_, populated) = cgroup.state()?;
        if !populated {
            return Ok(End::Gone);
        }
        let piece = left.min(PIECE);
        if !cgroup.reclaim(piece)? {
            return Ok(End::Partial);
        }
        left = left.saturating_sub(piece);
    }
    Ok(End::Done)
}

/// Stops growth first (a limit at the present use costs no reclaim), makes room in pieces, then closes in. A limit that the
/// workload has overrun stays where it is until it can be lowered: set anew at the present use it would follow the workload
/// up, pass by pass, and brake nothing.
fn high(
    cgroup: &Cgroup,
    limit: Bytes,
    slot: SlotId,
    ledger: &Ledger,
    deadline: Monotonic,
) -> Result<End, FileError> {
    let set = |stands: u64, bytes: Bytes| {
        let bytes = page_floor(bytes);
        ledger.note_high(slot, stands, bytes.0);
        cgroup.set_high(Limit::Bytes(bytes))
    };
    // Looked at once more, since somebody else may have written since the sample: what is theirs is not written over, and
    // never raised.
    let Some(stands) = standing(cgroup, limit, slot, ledger)? else { return Ok(End::Foreign) };
    let near = |current: Bytes, stands| limit.max(current).min(limit.max(Bytes(stands)));
    let current = cgroup.current()?;
    if near(current, stands).0 != stands {
        set(stands, near(current, stands))?;
    }
    if current <= limit || stands < limit.0 {
        return Ok(End::Done);
    }
    let end = reclaim(cgroup, current.saturating_sub(limit), deadline)?;
    if end == End::Gone {
        return Ok(end);
    }
    let Some(stands) = standing(cgroup, limit, slot, ledger)? else { return Ok(End::Foreign) };
    let now_at = near(cgroup.current()?, stands);
    if now_at.0 != stands {
        set(stands, now_at)?;
    }
    Ok(if now_at > limit { End::Partial } else { End::Done })
}

/// `memory.high` as it stands; `None` where it is somebody else's, and not to be touched for this limit.
fn standing(cgroup: &Cgroup, limit: Bytes, slot: SlotId, ledger: &Ledger) -> Result<Option<u64>, FileError> {
    let stands = raw(cgroup.high()?);
    let may = ledger.high(slot).map_or(stands > limit.0, |held| held.is_ours(stands));
    Ok(may.then_some(stands))
}

/// What the kernel makes of a limit.
pub(super) fn page_floor(bytes: Bytes) -> Bytes {
    let page = rustix::param::page_size() as u64;
    Bytes(bytes.0 / page * page)
}

/// A limit as the ledger writes it.
pub(super) fn raw(limit: Limit) -> u64 {
    match limit {
        Limit::Bytes(bytes) => bytes.0,
        Limit::Max => u64::MAX,
    }
}

fn reap(process: &OwnedFd) {
    use std::os::fd::AsRawFd;
    // SAFETY: process_mrelease (5.15) takes a pidfd and flags 0 and touches no memory of ours. ESRCH and EINVAL say
    // that there is nothing to reap any more.
    unsafe { libc::syscall(libc::SYS_process_mrelease, process.as_raw_fd(), 0) };
}
