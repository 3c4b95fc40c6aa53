//! Asks a program that knows of nothing: NVIDIA's `cuda-checkpoint` moves its GPU memory to the host and back, from outside.
//!
//! The program's threads go on until their next CUDA call and wait there. Nothing stops a copy that was begun, so it is finished also
//! where nobody waits for it any more: what is away then stays away, is offered as such, and is brought back by the next restore. A
//! process that does not say how it is is asked again; one that the tool calls failed is given up until it is started anew.

mod limits;
mod patience;
mod ranks;
mod tool;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::sleep;
use std::time::Duration;

use plimsoll_policy::concession::{Level, Offer, Prospect};
use plimsoll_policy::config::ways::CudaCheckpoint;
use tokio::task::spawn_blocking;

use self::patience::Patience;
use self::ranks::Ranks;
use self::tool::Tool;
use super::way::{Answered, Answering, Asking, Way, WayError};
use crate::sense::cgroup::Cgroup;

/// How long a copy may take: 150 GiB at half a GiB/s, which is a third of what was measured.
const COPY: Duration = Duration::from_secs(300);
/// How long processes are looked at for an offer. Whoever hears it waits twice as long.
const LOOK: Duration = Duration::from_secs(1);
/// How often is looked whether the asking before has ended.
const NAP: Duration = Duration::from_millis(20);

/// `cuda-checkpoint` for one workload.
#[derive(Debug)]
pub(super) struct Checkpoint(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tool: Tool,
    config: CudaCheckpoint,
    cgroup: Arc<Cgroup>,
    dir: PathBuf,
    proc: PathBuf,
    /// Held over whole askings: one at a time, also where the asker lost patience with the one before.
    ranks: Mutex<Ranks>,
}

impl Checkpoint {
    pub(super) fn new(config: CudaCheckpoint, cgroup: Arc<Cgroup>, root: &Path) -> Self {
        let dir = root.join(&*cgroup.id.path);
        let tool = Tool { program: config.program.clone().into(), lock: config.lock.into(), copy: COPY };
        Self(Arc::new(Shared { tool, config, cgroup, dir, proc: "/proc".into(), ranks: Mutex::default() }))
    }

    /// Starting programs and reading `/proc` waits for others, so it happens on threads that may wait.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, WayError> + Send + 'static,
    ) -> Result<T, WayError> {
        let shared = Arc::clone(&self.0);
        let done = spawn_blocking(move || work(&shared)).await;
        done.unwrap_or_else(|error| Err(WayError::Refused(error.to_string())))
    }
}

impl Way for Checkpoint {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        Box::pin(self.aside(Shared::offer))
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        let asking = asking.clone();
        Box::pin(async move {
            let asker = Arc::new(());
            let patience = Patience::of(&asker, asking.deadline);
            let answered = self.aside(move |shared| shared.ask(&asking, &patience)).await;
            // Dropped with this future, it tells the thread that nobody waits any more.
            drop(asker);
            answered
        })
    }
}

impl Shared {
    fn offer(&self) -> Result<Offer, WayError> {
        // An asking that nobody waits for any more is still under way: there is nothing new to offer.
        let Some(mut ranks) = self.lock(&Patience::within(Duration::ZERO)) else {
            return Ok(Offer::default());
        };
        let living = limits::ranks(&self.proc, &self.dir);
        ranks.keep(&living);
        limits::machine(&self.proc)?;
        let usable = limits::processes(&self.proc, &self.config, &living).is_ok();
        // Who is frozen can't say anything.
        if usable && !self.is_frozen() {
            ranks.look(&self.tool, &living, &Patience::within(LOOK));
        }
        let mut offer = Offer { gated: true, level: ranks.level()?, ..Offer::default() };
        if offer.level == Some(Level::Nothing) && !usable {
            offer.level = None;
        } else if offer.level.is_some() && ranks.trouble().is_ok() {
            offer.levels.insert(Level::Offload, Prospect::default());
        }
        Ok(offer)
    }

    fn ask(&self, asking: &Asking, patience: &Patience) -> Result<Answered, WayError> {
        let busy = || WayError::Refused("an earlier asking has not ended".into());
        let mut ranks = self.lock(patience).filter(|_| !patience.is_over()).ok_or_else(busy)?;
        let moved = match asking.level {
            Level::Offload => self.move_out(asking, &mut ranks, patience),
            Level::Nothing => self.move_in(&mut ranks, patience),
            other => Err(WayError::NotOffered(other)),
        };
        if patience.is_over() {
            let workload = &self.cgroup.id;
            tracing::warn!(%workload, level = %asking.level, result = ?moved, "cuda-checkpoint took longer than it was waited for");
        }
        moved.map(|()| Answered::default())
    }

    fn move_out(&self, asking: &Asking, ranks: &mut Ranks, patience: &Patience) -> Result<(), WayError> {
        limits::machine(&self.proc)?;
        self.not_frozen()?;
        let living = limits::ranks(&self.proc, &self.dir);
        ranks.keep(&living);
        limits::processes(&self.proc, &self.config, &living)?;
        ranks.look_at_all(&self.tool, &living, patience);
        if ranks.are_away() {
            return Ok(());
        }
        limits::request(&self.proc, asking)?;
        ranks.move_out(&self.tool.hurried(patience.left()), patience)
    }

    fn move_in(&self, ranks: &mut Ranks, patience: &Patience) -> Result<(), WayError> {
        self.not_frozen()?;
        let living = limits::ranks(&self.proc, &self.dir);
        ranks.look_at_all(&self.tool, &living, patience);
        ranks.settled()?;
        ranks.move_in(&self.tool)
    }

    fn not_frozen(&self) -> Result<(), WayError> {
        if self.is_frozen() {
            return Err(WayError::Refused("it is frozen: its threads have to run for this".into()));
        }
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        self.cgroup.state().is_ok_and(|(frozen, _)| frozen)
    }

    /// `None` where an asking holds it for longer than somebody waits.
    fn lock(&self, patience: &Patience) -> Option<MutexGuard<'_, Ranks>> {
        loop {
            match self.ranks.try_lock() {
                Ok(ranks) => return Some(ranks),
                Err(TryLockError::Poisoned(ranks)) => return Some(ranks.into_inner()),
                Err(TryLockError::WouldBlock) if patience.is_over() => return None,
                Err(TryLockError::WouldBlock) => sleep(NAP),
            }
        }
    }
}

#[cfg(test)]
mod tests;
