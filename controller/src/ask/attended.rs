//! One workload as the asker knows it: its ways, its offer, what it is being asked, and its task.

use std::sync::Arc;

use plimsoll_policy::concession::{Concession, Gains, Offer, Wish};
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::ways::Means;
use plimsoll_policy::plan::ActResult;
use plimsoll_policy::units::Monotonic;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::Told;
use super::attend::{Attendant, Wished};
use super::meter::{Gpus, Meter};
use super::way::Way;
use crate::ledger::{Ledger, SlotId};
use crate::sense::cgroup::Cgroup;
use crate::sense::clock::now;

/// A workload, as the asker knows it.
pub(super) struct Attended {
    pub(super) cgroup: Arc<Cgroup>,
    pub(super) slot: SlotId,
    pub(super) means: Means,
    /// The ways that the configuration names.
    pub(super) configured: Vec<Arc<dyn Way>>,
    /// How often these were replaced by others.
    pub(super) version: u64,
    /// All ways with their key and version.
    pub(super) ways: Vec<Known>,
    pub(super) offer: Option<Offer>,
    /// What it is being asked, and since when.
    pub(super) asked: Option<(Wish, Monotonic)>,
    /// Number of the newest wish that was answered: none is answered twice.
    pub(super) answered: u64,
    pub(super) task: Option<Task>,
}

/// A way, which of them it is, and how often its offer is known to have changed.
pub(super) type Known = (u64, u64, Arc<dyn Way>);

/// The running task of a workload and the ways to it.
pub(super) struct Task {
    pub(super) wish: watch::Sender<Wished>,
    ways: watch::Sender<Vec<Known>>,
    pub(super) gpus: watch::Sender<Gpus>,
    running: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Attended {
    /// Hands a wish on, or what is wanted without one. An answer where there is nobody to hand it to.
    pub(super) fn wish(
        &mut self,
        wish: Option<&Wish>,
        back: Option<u64>,
        now: Monotonic,
    ) -> Option<Concession> {
        let wish = wish.filter(|wish| wish.number > self.answered);
        let Some(task) = &self.task else { return wish.map(|wish| self.unheard(wish, now)) };
        let wished = match (wish, back) {
            (Some(wish), _) => Wished::For(wish.clone()),
            (None, Some(attempt)) => Wished::Back(attempt),
            (None, None) => Wished::Nothing,
        };
        if task.ask(wished) {
            self.asked = wish.map(|wish| (wish.clone(), now));
        }
        None
    }

    /// Nobody is there (any more) who could be asked.
    fn unheard(&mut self, wish: &Wish, begun: Monotonic) -> Concession {
        self.answered = self.answered.max(wish.number);
        Concession {
            workload: self.cgroup.id.clone(),
            number: wish.number,
            level: wish.level,
            by: String::new(),
            result: ActResult::Failed("nobody is left who could be asked".into()),
            begun,
            took: now().since(begun),
            freed: Gains::default(),
            claimed: None,
        }
    }

    /// Takes over the ways that there are now: starts a task with the first, ends it with the last. An answer where somebody was
    /// being asked and is gone.
    pub(super) fn take_ways(
        &mut self,
        ways: Vec<Known>,
        config: &Ask,
        ledger: &Arc<Ledger>,
        told: &mpsc::Sender<Told>,
    ) -> Option<Concession> {
        let same = |a: &[Known], b: &[Known]| {
            a.iter()
                .map(|(key, version, _)| (key, version))
                .eq(b.iter().map(|(key, version, _)| (key, version)))
        };
        if same(&ways, &self.ways) {
            return None;
        }
        self.ways = ways;
        match &self.task {
            _ if self.ways.is_empty() => {
                (self.task, self.offer) = (None, None);
                return self.asked.take().map(|(wish, begun)| self.unheard(&wish, begun));
            }
            Some(task) => drop(task.ways.send_replace(self.ways.clone())),
            None => self.task = Some(self.start(config, ledger, told)),
        }
        None
    }

    fn start(&self, config: &Ask, ledger: &Arc<Ledger>, told: &mpsc::Sender<Told>) -> Task {
        let (wish, wishes) = watch::channel(Wished::Nothing);
        let (ways, new_ways) = watch::channel(self.ways.clone());
        let (gpus, seen) = watch::channel(Gpus::default());
        let meter = Meter::new(Arc::clone(&self.cgroup), seen);
        let attendant = Attendant::new(
            config.clone(),
            (Arc::clone(ledger), self.slot),
            meter,
            (wishes, new_ways),
            told.clone(),
        );
        Task { wish, ways, gpus, running: tokio::spawn(attendant.attend()).abort_handle() }
    }
}

impl Task {
    /// Hands a wish on. True where it is another one than before.
    fn ask(&self, wished: Wished) -> bool {
        self.wish.send_if_modified(|now| {
            let other = !now.is_the_same(&wished);
            if other {
                *now = wished;
            }
            other
        })
    }
}
