//! The task that speaks to the API server: one request at a time, what matters most first, and never more than the budget.

mod perform;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use plimsoll_policy::config::Kubernetes;
use plimsoll_policy::plan::ActResult;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::budget::Budget;
use super::call::{Call, Line};
use super::condition::Condition;
use super::counts::Counts;
use super::events::{Events, Key};
use super::evict::{Evicted, Order};
use super::happening::Happening;
use super::problems::Problems;
use super::standing::Standing;
use super::taint::{Effect, Taint};
use super::tiers::Tiers;
use crate::kubernetes::backoff::{Backoff, Dice};
use crate::kubernetes::pods::Pods;
use crate::kubernetes::revival::Revival;
use crate::sense::clock;

/// Requests of a node: thirty at once, then twelve a minute. Five thousand nodes under pressure at once make a thousand a second then;
/// their kubelets renew five hundred leases a second all the time.
const REQUESTS: (u32, Duration) = (30, Duration::from_secs(5));
/// What of these is kept for evictions.
const KEPT: u32 = 5;
/// The first look at the node comes somewhere within this time: a rollout starts many at once.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// Without any cause it looks up so often.
const IDLE: Duration = Duration::from_secs(60);

/// Why there is no eviction while the task itself is begun again.
const FELL: &str = "what speaks to the API server failed";

/// What others hand over.
pub(super) struct Ears {
    pub(super) client: watch::Receiver<Option<Client>>,
    pub(super) standing: watch::Receiver<Option<Standing>>,
    pub(super) happenings: mpsc::Receiver<Happening>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) pods: watch::Receiver<Arc<Pods>>,
}

/// The task.
pub(super) struct Speaker {
    /// None before it is known how to reach the API server.
    line: Option<Line>,
    node: String,
    config: Kubernetes,
    ears: Ears,
    evicted: mpsc::Sender<Evicted>,
    orders: VecDeque<Order>,
    problems: Problems,
    events: Events,
    tiers: Tiers,
    /// What there is at the node; `None` before the first look.
    taint: Option<Taint>,
    condition: Option<Condition>,
    look: Option<Instant>,
    budget: Budget,
    backoff: Backoff,
    dice: Dice,
    counts: Arc<Counts>,
    /// What could not be done, so that it is said once.
    troubles: BTreeMap<&'static str, String>,
}

/// One thing to do.
enum Job {
    Look,
    Evict(Order),
    Taint(Option<Effect>),
    Condition(Call),
    Event(Key, Call),
}

impl Speaker {
    pub(super) fn new(
        node: &str,
        config: &Kubernetes,
        ears: Ears,
        evicted: mpsc::Sender<Evicted>,
        counts: Arc<Counts>,
    ) -> Self {
        let (now, mut dice) = (Instant::now(), Dice::new());
        Self {
            line: None,
            node: node.into(),
            config: config.clone(),
            ears,
            evicted,
            orders: VecDeque::new(),
            problems: Problems::default(),
            events: Events::new(node, Arc::clone(&counts), now),
            tiers: Tiers::new(now, &mut dice),
            taint: None,
            condition: None,
            look: Some(now + dice.below(FIRST_LOOK)),
            budget: Budget::new(REQUESTS.0, REQUESTS.1, now),
            backoff: Backoff::new(),
            dice,
            counts,
            troubles: BTreeMap::new(),
        }
    }

    /// Speaks until it is told to stop, or nobody is there any more to say so; then takes back what only holds while it is looked after.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut revival = Revival::new("telling");
        while let Err(until) = revival.attempt(self.speak(&mut stop)).await {
            self.counts.fell();
            self.decline(FELL);
            self = self.anew();
            tokio::select! {
                _ = &mut stop => break,
                () = self.rest(until) => {}
            }
        }
        self.farewell().await;
    }

    /// One that knows nothing, with the same ears: what a panic left half done is not gone on with. What was asked of the API server
    /// stays asked.
    fn anew(self) -> Self {
        let Self { node, config, ears, evicted, budget, backoff, counts, .. } = self;
        Self { budget, backoff, ..Self::new(&node, &config, ears, evicted, counts) }
    }

    /// Says nothing, but to those who want an eviction that there is none.
    async fn rest(&mut self, until: Instant) {
        loop {
            tokio::select! {
                Some(order) = self.ears.orders.recv() => self.answer(&order, ActResult::Failed(FELL.into())),
                () = sleep_until(until) => return,
            }
        }
    }

    /// Until it is told to stop.
    async fn speak(&mut self, stop: &mut oneshot::Receiver<()>) {
        loop {
            let job = match self.next(Instant::now()) {
                Ok(job) => job,
                Err(until) => {
                    tokio::select! {
                        _ = &mut *stop => return,
                        () = self.hear(until) => continue,
                    }
                }
            };
            tokio::select! {
                _ = &mut *stop => return,
                () = self.perform(job) => {}
            }
        }
    }

    /// Waits for something to happen, until then at the latest.
    async fn hear(&mut self, until: Instant) {
        let Ears { client, standing, happenings, orders, pods } = &mut self.ears;
        tokio::select! {
            Ok(()) = client.changed() => client.mark_changed(),
            Ok(()) = standing.changed() => {}
            Ok(()) = pods.changed() => pods.mark_changed(),
            Some(happening) = happenings.recv() => self.events.take(happening, Instant::now()),
            Some(order) = orders.recv() => self.orders.push_back(order),
            () = sleep_until(until) => {}
        }
    }

    /// What is to be done now; otherwise when there may be something.
    fn next(&mut self, now: Instant) -> Result<Job, Instant> {
        self.listen(now);
        let pause = self.backoff.until(now);
        self.events.sweep(pause.is_some(), now);
        if let Some(until) = pause {
            self.decline("the API server is away");
            return Err(until);
        }
        if self.line.is_none() {
            self.decline("the way to the API server is not known");
            return Err(now + IDLE);
        }
        if let Some(order) = self.orders.front() {
            if self.budget.ready(0, now) <= now {
                return Ok(Job::Evict(order.clone()));
            }
            self.decline("this node has asked the API server for too much lately");
        }
        let ready = self.budget.ready(KEPT, now);
        if ready > now { Err(ready) } else { self.chore(now) }
    }

    /// Takes all that has come in.
    fn listen(&mut self, now: Instant) {
        let client = self.ears.client.borrow_and_update();
        if client.has_changed() || self.line.is_none() {
            self.line = client.clone().map(Line::new);
        }
        drop(client);
        while let Ok(happening) = self.ears.happenings.try_recv() {
            self.events.take(happening, now);
        }
        self.orders.extend(std::iter::from_fn(|| self.ears.orders.try_recv().ok()));
        let pods = self.ears.pods.borrow_and_update();
        let pods = pods.has_changed().then(|| Arc::clone(&pods));
        if let Some(pods) = pods {
            self.counts.set_problems(Problems::count(&pods));
            for mistake in self.problems.look(&pods).into_iter().filter(|_| self.config.events) {
                self.events.take(mistake, now);
            }
        }
        let standing = self.ears.standing.borrow_and_update().clone();
        let (Some(standing), dice) = (standing, &mut self.dice) else { return };
        if let Some(happening) = self.tiers.look(&standing, now, dice).filter(|_| self.config.events) {
            self.events.take(happening, now);
        }
        if let Some(condition) = &mut self.condition {
            condition.look(&standing, now, dice);
        }
        if let Some(taint) = &mut self.taint {
            // One that an earlier run left goes as calm as if there were no pressure.
            let none = Standing::default();
            taint.look(if self.config.taint { &standing } else { &none }, now, dice);
        }
    }

    /// Everything but evictions, in the order in which it matters.
    fn chore(&mut self, now: Instant) -> Result<Job, Instant> {
        if self.look.is_some_and(|look| look <= now) {
            return Ok(Job::Look);
        }
        if let Some(effect) = self.taint.as_ref().and_then(|taint| taint.write(now)) {
            return Ok(Job::Taint(effect));
        }
        let standing = self.ears.standing.borrow().clone();
        if let (Some(condition), Some(standing)) = (&mut self.condition, &standing)
            && let Some(call) = condition.write(&self.node, standing, now)
        {
            return Ok(Job::Condition(call));
        }
        if let Some((key, call)) = self.events.next(now) {
            return Ok(Job::Event(key, call));
        }
        let condition = self.condition.as_ref().filter(|_| standing.is_some()).map(Condition::due);
        let dues = [
            self.look,
            self.taint.as_ref().and_then(Taint::due),
            condition,
            self.tiers.due(),
            self.events.due(now),
        ];
        Err(dues.into_iter().flatten().fold(now + IDLE, Instant::min))
    }

    /// Answers all that wait for an eviction: whoever wants one has something else to do.
    fn decline(&mut self, why: &str) {
        for order in std::mem::take(&mut self.orders) {
            self.answer(&order, ActResult::Failed(why.into()));
        }
    }

    fn answer(&self, order: &Order, result: ActResult) {
        let took = clock::now().since(order.begun);
        let evicted = Evicted { uid: order.pod.uid.clone(), result, begun: order.begun, took };
        if self.evicted.try_send(evicted).is_err() {
            tracing::debug!(pod = order.pod.pod, "nobody waits for the end of an eviction");
        }
    }
}
