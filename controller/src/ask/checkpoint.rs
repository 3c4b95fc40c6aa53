//! Asks a program that knows of nothing: NVIDIA's `cuda-checkpoint` moves its GPU memory to the host and back, from outside.
//!
//! The program's threads go on until their next CUDA call and wait there. A process that comes out of an error in an unknown state is
//! given up and never touched again. Every step has a deadline; what was begun and can't be finished is undone.

mod limits;
mod ranks;
mod tool;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use plimsoll_policy::concession::{Level, Offer, Prospect};
use plimsoll_policy::config::ways::CudaCheckpoint;
use tokio::task::spawn_blocking;

use self::limits::Rank;
use self::ranks::Failure;
use self::tool::Tool;
use super::way::{Answered, Answering, Asking, Way, WayError};
use crate::sense::cgroup::Cgroup;

/// `cuda-checkpoint` for one workload.
#[derive(Debug)]
pub(super) struct Checkpoint(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: CudaCheckpoint,
    cgroup: Arc<Cgroup>,
    dir: PathBuf,
    proc: PathBuf,
    /// Held over whole askings: one at a time, also where the asker lost patience with the one before.
    ranks: Mutex<Ranks>,
}

/// What is known of the workload's processes from askings so far.
#[derive(Debug, Default)]
struct Ranks {
    /// Those that were moved to the host.
    away: BTreeSet<Rank>,
    /// Those in an unknown state, and why.
    failed: BTreeMap<Rank, String>,
}

impl Checkpoint {
    pub(super) fn new(config: CudaCheckpoint, cgroup: Arc<Cgroup>, root: &Path) -> Self {
        let dir = root.join(&*cgroup.id.path);
        Self(Arc::new(Shared { config, cgroup, dir, proc: "/proc".into(), ranks: Mutex::default() }))
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
        Box::pin(self.aside(move |shared| shared.ask(&asking)))
    }
}

impl Shared {
    fn offer(&self) -> Result<Offer, WayError> {
        // An asking that nobody waits for any more is still under way: there is nothing new to offer.
        let Ok(mut ranks) = self.ranks.try_lock() else { return Ok(Offer::default()) };
        let living = limits::ranks(&self.proc, &self.dir);
        ranks.forget_the_dead(&living);
        if let Some((rank, why)) = ranks.failed.iter().next() {
            return Err(WayError::Refused(format!("process {} is in an unknown state: {why}", rank.pid)));
        }
        limits::machine(&self.proc)?;
        let mut offer = Offer { gated: true, ..Offer::default() };
        if !ranks.away.is_empty() {
            offer.level = Some(Level::Offload);
        } else if limits::processes(&self.proc, &self.config, &living).is_err() {
            return Ok(offer);
        } else {
            offer.level = Some(Level::Nothing);
        }
        offer.levels.insert(Level::Offload, Prospect::default());
        Ok(offer)
    }

    fn ask(&self, asking: &Asking) -> Result<Answered, WayError> {
        let end = Instant::now() + asking.deadline;
        let mut ranks = self.lock();
        match asking.level {
            Level::Offload if ranks.away.is_empty() => self.move_out(asking, end, &mut ranks),
            Level::Offload => Ok(Answered::default()),
            Level::Nothing => self.move_in(end, &mut ranks),
            other => Err(WayError::NotOffered(other)),
        }
    }

    fn move_out(&self, asking: &Asking, end: Instant, ranks: &mut Ranks) -> Result<Answered, WayError> {
        limits::machine(&self.proc)?;
        limits::request(&self.proc, asking)?;
        if self.cgroup.state().is_ok_and(|(frozen, _)| frozen) {
            return Err(WayError::Refused("it is frozen: its threads have to run for this".into()));
        }
        let living = limits::ranks(&self.proc, &self.dir);
        ranks.forget_the_dead(&living);
        if let Some(rank) = ranks.failed.keys().next() {
            return Err(WayError::Refused(format!("process {} is in an unknown state", rank.pid)));
        }
        limits::processes(&self.proc, &self.config, &living)?;
        match ranks::move_out(&self.tool(), &living, end) {
            Ok(()) => {
                ranks.away = living;
                Ok(Answered::default())
            }
            Err(failure) => Err(ranks.take(failure)),
        }
    }

    fn move_in(&self, end: Instant, ranks: &mut Ranks) -> Result<Answered, WayError> {
        if self.cgroup.state().is_ok_and(|(frozen, _)| frozen) {
            return Err(WayError::Refused("it is frozen: its threads have to run for this".into()));
        }
        let living = limits::ranks(&self.proc, &self.dir);
        ranks.forget_the_dead(&living);
        match ranks::move_in(&self.tool(), &ranks.away, end) {
            Ok(()) => {
                ranks.away.clear();
                Ok(Answered::default())
            }
            Err(failure) => Err(ranks.take(failure)),
        }
    }

    fn tool(&self) -> Tool {
        Tool::new(self.config.program.clone().into(), self.config.lock.into())
    }

    fn lock(&self) -> MutexGuard<'_, Ranks> {
        self.ranks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ranks {
    fn forget_the_dead(&mut self, living: &BTreeSet<Rank>) {
        self.away.retain(|rank| living.contains(rank));
        self.failed.retain(|rank, _| living.contains(rank));
    }

    /// Remembers what can't be trusted any more.
    fn take(&mut self, failure: Failure) -> WayError {
        let Failure { unknown, error } = failure;
        for rank in unknown {
            tracing::error!(
                pid = rank.pid,
                error = %error,
                "cuda-checkpoint left a process in an unknown state; it is not touched again, and may have to be restarted"
            );
            self.away.remove(&rank);
            self.failed.insert(rank, error.to_string());
        }
        error
    }
}

#[cfg(test)]
mod tests;
