//! The task of one workload: looks up what it can be asked for, asks it when a wish comes, and tells the pass.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_policy::concession::{Concession, Level, Offer, Wish};
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::plan::ActResult;
use plimsoll_policy::units::Span;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::asking::Conversation;
use super::meter::Meter;
use super::offers::{Heard, merge};
use super::way::Way;
use super::{Known, News, Told};
use crate::ledger::{Flags, Ledger, SlotId};

/// A way that can't say within this what it offers offers nothing.
const OFFER_WITHIN: Duration = Duration::from_secs(2);
/// How long the bringing back of what nobody wants away may take: a model is loaded again.
const BACK_WITHIN: Span = Span::secs(300);

/// What is wanted of a workload.
#[derive(Clone, Debug)]
pub(super) enum Wished {
    /// Nothing.
    Nothing,
    /// What a plan says.
    For(Wish),
    /// It is to be restored though no plan says so; the number tells attempts apart.
    Back(u64),
}

impl Wished {
    /// Whether it is the same asking.
    pub(super) fn is_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (Self::For(a), Self::For(b)) => a.number == b.number,
            (Self::Back(a), Self::Back(b)) => a == b,
            _ => false,
        }
    }
}

/// What the task has.
pub(super) struct Attendant {
    config: Ask,
    ledger: Arc<Ledger>,
    slot: SlotId,
    meter: Meter,
    wishes: watch::Receiver<Wished>,
    new_ways: watch::Receiver<Vec<Known>>,
    told: mpsc::Sender<Told>,
    ways: Vec<Arc<dyn Way>>,
    heard: Vec<Heard>,
    /// The words of the ways by which it was offloaded or unloaded.
    gave: BTreeSet<&'static str>,
    last: Option<Offer>,
}

impl Attendant {
    pub(super) fn new(
        config: Ask,
        (ledger, slot): (Arc<Ledger>, SlotId),
        meter: Meter,
        (wishes, mut new_ways): (watch::Receiver<Wished>, watch::Receiver<Vec<Known>>),
        told: mpsc::Sender<Told>,
    ) -> Self {
        new_ways.mark_changed();
        let (ways, heard, gave, last) = (Vec::new(), Vec::new(), BTreeSet::new(), None);
        Self { config, ledger, slot, meter, wishes, new_ways, told, ways, heard, gave, last }
    }

    /// Runs until the asker drops the other ends, or ends the task.
    pub(super) async fn attend(mut self) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                changed = self.wishes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.obey().await;
                    next = Instant::now();
                }
                changed = self.new_ways.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_ways();
                    next = Instant::now();
                }
                // A wish that comes while somebody is slow to offer is not kept waiting: what was heard so far is dropped.
                heard = heard_at(next, &self.ways) => {
                    next = Instant::now() + self.pause();
                    self.hear(heard).await;
                }
            }
        }
    }

    /// A new way offers nothing until it was heard.
    fn take_ways(&mut self) {
        let known: Vec<Arc<dyn Way>> =
            self.new_ways.borrow_and_update().iter().map(|(_, _, way)| Arc::clone(way)).collect();
        let heard_before = |way: &Arc<dyn Way>| {
            let at = self.ways.iter().position(|old| Arc::ptr_eq(old, way));
            at.and_then(|at| self.heard.get(at).cloned()).unwrap_or((way.name(), None))
        };
        self.heard = known.iter().map(heard_before).collect();
        self.ways = known;
    }

    /// Around the configured time, so that a thousand workloads are not all asked at once.
    fn pause(&self) -> Duration {
        let draw = RandomState::new().hash_one(()) % 512;
        let quarters = Duration::from(self.config.poll) / 4;
        quarters * 3 + quarters * u32::try_from(draw).unwrap_or(0) / 256
    }

    async fn hear(&mut self, heard: Vec<Heard>) {
        self.heard = heard;
        let offer = Some(merge(&self.heard));
        if self.last != offer {
            self.last.clone_from(&offer);
            self.tell(News::Offer(offer)).await;
        }
    }

    /// Does what is wanted; what is wanted anew meanwhile overtakes it.
    async fn obey(&mut self) {
        loop {
            let wished = self.wishes.borrow_and_update().clone();
            self.take_ways();
            let (wish, answers) = match wished {
                Wished::Nothing => return,
                Wished::For(wish) => (wish, true),
                Wished::Back(_) => (Wish { deadline: BACK_WITHIN, ..Wish::default() }, false),
            };
            let away = self.ledger.flags(self.slot).contains(Flags::AWAY);
            if wish.level >= Level::Offload {
                self.ledger.raise(self.slot, Flags::AWAY);
            }
            let talk = Conversation {
                config: &self.config,
                meter: &self.meter,
                ways: &self.ways,
                heard: &self.heard,
                gave: &self.gave,
                away,
                wish: &wish,
            };
            let mut tried = BTreeSet::new();
            let end = tokio::select! {
                biased;
                changed = self.wishes.changed() => Err(changed),
                concession = talk.hold(&mut tried) => Ok(concession),
            };
            self.remember(&wish, tried, end.as_ref().ok());
            match end {
                Ok(concession) if answers => return self.tell(News::Conceded(concession)).await,
                Ok(_) | Err(Err(_)) => return,
                Err(Ok(())) => {}
            }
        }
    }

    /// Who gave what has to be taken back, also where it was overtaken: nobody knows how far it got.
    fn remember(&mut self, wish: &Wish, tried: BTreeSet<&'static str>, end: Option<&Concession>) {
        if wish.level >= Level::Offload {
            self.gave.extend(tried);
        } else if wish.level == Level::Nothing && end.is_some_and(|end| end.result == ActResult::Done) {
            self.gave.clear();
            self.ledger.lower(self.slot, Flags::AWAY);
        }
    }

    async fn tell(&self, news: News) {
        let told = Told { workload: self.meter.workload().clone(), news };
        // Nobody listens any more at the end.
        let _ = self.told.send(told).await;
    }
}

/// Waits for the moment, then hears all ways at the same time.
async fn heard_at(at: Instant, ways: &[Arc<dyn Way>]) -> Vec<Heard> {
    sleep_until(at).await;
    hear(ways).await
}

/// What all ways offer. One that hangs, fails or panics offers nothing.
pub(super) async fn hear(ways: &[Arc<dyn Way>]) -> Vec<Heard> {
    let mut heard: Vec<Heard> = ways.iter().map(|way| (way.name(), None)).collect();
    let mut asked = JoinSet::new();
    for (at, way) in ways.iter().enumerate() {
        let way = Arc::clone(way);
        asked.spawn(async move { (at, timeout(OFFER_WITHIN, way.offer()).await) });
    }
    while let Some(joined) = asked.join_next().await {
        match joined {
            Ok((at, Ok(Ok(offer)))) => heard[at].1 = Some(offer),
            Ok((at, Ok(Err(error)))) => {
                tracing::debug!(way = heard[at].0, error = %error, "a way offers nothing");
            }
            Ok((at, Err(_))) => tracing::debug!(way = heard[at].0, "a way does not say what it offers"),
            Err(error) => tracing::error!(error = %error, "a way failed while it was asked what it offers"),
        }
    }
    heard
}
