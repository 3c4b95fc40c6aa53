//! Engines that hold several models and load and unload each by its name: what they have in common.
//!
//! They finish the requests that they have, drop the model, and load it again for whoever asks next. So there is one level, and
//! its end is seen in their own list; that a model is gone from there does not mean that its memory is.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_policy::concession::Level;
use tokio::time::{Instant, sleep};

use super::{Capabilities, Engine, Estimate, Probed, Release, Request, Requests, State};
use crate::ask::way::WayError;

/// How often the list is looked at until the models are gone, or there.
const LOOK: Duration = Duration::from_millis(100);

/// A model that takes up memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resident {
    /// What it is unloaded by.
    pub(super) name: String,
    /// What people call it, where that is something else.
    pub(super) model: Option<String>,
    /// Requests that it serves; `None` where the engine does not say.
    pub(super) inflight: Option<u32>,
    /// What it takes up; `None` where the engine does not say.
    pub(super) takes: Option<Estimate>,
    /// Whether it can't serve yet, or any more.
    pub(super) moving: bool,
}

impl Resident {
    pub(super) fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// The calls of one engine.
pub(super) trait Shelf: fmt::Debug + Send + Sync + 'static {
    /// The word for it.
    const KIND: &'static str;

    /// What takes up memory at the moment.
    fn list(&self, by: Instant) -> impl Future<Output = Result<Vec<Resident>, WayError>> + Send;

    /// Begins to unload a model.
    fn unload(&self, name: &str, by: Instant) -> impl Future<Output = Result<(), WayError>> + Send;

    /// Begins to load a model that was unloaded.
    fn load(&self, name: &str, by: Instant) -> impl Future<Output = Result<(), WayError>> + Send;

    /// A small request to a model.
    fn smoke(&self, name: &str, by: Instant) -> impl Future<Output = Result<(), WayError>> + Send;

    /// Why it can't do it, once that is known.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Whether a configured name means this model.
    fn means(&self, configured: &str, resident: &Resident) -> bool {
        configured == resident.name || resident.model.as_deref() == Some(configured)
    }
}

/// An [`Engine`] out of its calls.
#[derive(Debug)]
pub(super) struct Shelved<S> {
    shelf: S,
    /// The models that are meant; empty = all.
    models: Vec<String>,
    moved: Mutex<Moved>,
}

/// Names of models that we moved.
#[derive(Debug, Default)]
struct Moved {
    away: BTreeSet<String>,
    back: BTreeSet<String>,
}

impl<S: Shelf> Shelved<S> {
    pub(super) fn new(shelf: S, models: Vec<String>) -> Self {
        Self { shelf, models, moved: Mutex::default() }
    }

    fn moved(&self) -> MutexGuard<'_, Moved> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ours(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let mut all = self.shelf.list(by).await?;
        all.retain(|resident| {
            self.models.is_empty() || self.models.iter().any(|m| self.shelf.means(m, resident))
        });
        Ok(all)
    }

    /// Waits until none of these is there any more.
    async fn gone(&self, names: &BTreeSet<String>, by: Instant) -> Result<(), WayError> {
        loop {
            let left = self.ours(by).await?.into_iter().find(|resident| names.contains(&resident.name));
            match left {
                None => return Ok(()),
                Some(left) if Instant::now() + LOOK >= by => {
                    return Err(WayError::Busy(format!("{}, which it does not let go of", left.name)));
                }
                Some(_) => sleep(LOOK).await,
            }
        }
    }

    /// Waits until all of these are there and can serve.
    async fn there(&self, names: &BTreeSet<String>, by: Instant) -> Result<(), WayError> {
        loop {
            let here = self.ours(by).await?;
            let ready =
                |name: &String| here.iter().any(|resident| resident.name == *name && !resident.moving);
            if names.iter().all(ready) {
                return Ok(());
            }
            if Instant::now() + LOOK >= by {
                return Err(WayError::Busy("loading".into()));
            }
            sleep(LOOK).await;
        }
    }

    /// An empty shelf is away only if it was us who emptied it: engines unload what has been idle by themselves, and nobody wants
    /// that back.
    fn state(&self, ours: &[Resident]) -> State {
        let is_there = |model: &&String| ours.iter().any(|resident| self.shelf.means(model, resident));
        match ours {
            [] if self.moved().away.is_empty() => State::Active,
            [] => State::Released(Some(Level::Unload)),
            [..] if self.models.iter().filter(is_there).count() < self.models.len() => State::Partial,
            [..] => State::Active,
        }
    }
}

impl<S: Shelf> Engine for Shelved<S> {
    fn kind(&self) -> &'static str {
        S::KIND
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let ours = self.ours(by).await?;
        let can = match self.shelf.missing() {
            Some(why) => Capabilities::nothing(why),
            None => Capabilities {
                requests: Requests::Finished,
                ..Capabilities::one(Level::Unload, Release::UNLOAD)
            },
        };
        let inflight = ours.iter().try_fold(0u32, |sum, one| Some(sum.saturating_add(one.inflight?)));
        let estimate = ours.iter().try_fold(Estimate::default(), |sum, one| {
            let Estimate { host, gpu } = one.takes?;
            Some(Estimate { host: sum.host.saturating_add(host), gpu: sum.gpu.saturating_add(gpu) })
        });
        Ok(Probed { version: None, can, state: self.state(&ours), inflight, estimate })
    }

    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        let mut failed = None;
        let mut going = BTreeSet::new();
        for Resident { name, .. } in self.ours(by).await? {
            self.moved().away.insert(name.clone());
            match self.shelf.unload(&name, by).await {
                Ok(()) => drop(going.insert(name)),
                // The others can give something back all the same.
                Err(error) => {
                    self.moved().away.remove(&name);
                    failed = failed.or(Some(error));
                }
            }
        }
        self.gone(&going, by).await?;
        failed.map_or(Ok(()), Err)
    }

    async fn restore(&self, released: Option<Release>, by: Instant) -> Result<(), WayError> {
        let mut names = std::mem::take(&mut self.moved().away);
        if names.is_empty() && released.is_none() {
            // Nobody remembers: what is configured and not there.
            let ours = self.ours(by).await?;
            let absent = |model: &&String| !ours.iter().any(|resident| self.shelf.means(model, resident));
            names = self.models.iter().filter(absent).cloned().collect();
        }
        for name in &names {
            self.moved().away.insert(name.clone());
        }
        for name in &names {
            self.shelf.load(name, by).await?;
        }
        self.there(&names, by).await?;
        *self.moved() = Moved { away: BTreeSet::new(), back: names };
        Ok(())
    }

    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        let names = self.moved().back.clone();
        for name in names {
            self.shelf.smoke(&name, by).await?;
        }
        Ok(())
    }
}
