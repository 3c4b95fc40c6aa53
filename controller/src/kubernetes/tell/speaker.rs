//! The task that speaks to the API server: one request at a time, what matters most first, and never more than the budget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use kube::Client;
use plimsoll_policy::config::Kubernetes;
use plimsoll_policy::plan::ActResult;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::budget::Budget;
use super::call::{Call, CallError, JSON, Line, MERGE, is_name};
use super::condition::{Condition, removal};
use super::counts::{Counts, Ending, What};
use super::events::{Events, Key};
use super::evict::{Evicted, Order, result};
use super::happening::Happening;
use super::problems::Problems;
use super::standing::Standing;
use super::taint::{Effect, Taint};
use super::tiers::Tiers;
use super::view::View;
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
/// Before something is tried again that the server would not have. The pause of a server that fails is longer.
const AGAIN: Duration = Duration::from_secs(10);
/// Before something is tried again that is not allowed: it takes a person to change that.
const FORBIDDEN: Duration = Duration::from_secs(300);
/// Without any cause it looks up so often.
const IDLE: Duration = Duration::from_secs(60);
/// Times that the taint is tried where somebody else is always quicker.
const RACES: u32 = 4;

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

    async fn perform(&mut self, job: Job) {
        match job {
            Job::Look => self.look().await,
            Job::Evict(order) => {
                let result = self.evict(&order).await;
                // Not before: whatever happens to us, who waits for it is answered.
                self.orders.pop_front();
                self.answer(&order, result);
            }
            Job::Taint(effect) => self.taint(effect).await,
            Job::Condition(call) => self.condition(&call).await,
            Job::Event(key, call) => {
                let answer = self.call(&call).await;
                self.events.ended(&key, answer.as_ref().map(|_| ()), Instant::now());
            }
        }
    }

    /// Looks for what an earlier run left.
    async fn look(&mut self) {
        let view = self.view().await;
        let now = Instant::now();
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                self.look = Some(now + again(&error));
                return;
            }
        };
        self.look = None;
        let effect = view.effect();
        self.counts.set_taint(number(effect));
        self.taint = Some(Taint::new(effect, now, &mut self.dice));
        if self.config.condition {
            self.condition = Some(Condition::new(view.condition(), now, &mut self.dice));
        } else if view.condition().is_some() {
            let _ = self.call(&removal(&self.node)).await;
        }
    }

    async fn view(&mut self) -> Result<View, CallError> {
        let path = format!("/api/v1/nodes/{}", self.node);
        let call = Call { what: What::Taint, method: Method::GET, path, content: JSON, body: Value::Null };
        read(self.call(&call).await?)
    }

    async fn evict(&mut self, order: &Order) -> ActResult {
        if !(is_name(&order.pod.namespace) && is_name(&order.pod.pod)) {
            return ActResult::Failed("its name is none".into());
        }
        let answer = self.call(&order.call()).await;
        let result = result(&answer);
        tracing::info!(
            pod = order.pod.pod,
            namespace = order.pod.namespace,
            ?result,
            "asked for an eviction"
        );
        result
    }

    async fn condition(&mut self, call: &Call) {
        let answer = self.call(call).await.and_then(read);
        let (now, Some(condition)) = (Instant::now(), &mut self.condition) else { return };
        match answer {
            Ok(view) => {
                condition.written(now, &mut self.dice);
                self.counts.set_condition(k8s_openapi::jiff::Timestamp::now().as_second());
                // The answer is the whole node, so that what others do to our taint is seen for nothing.
                let effect = view.effect();
                if self.taint.as_mut().is_some_and(|taint| taint.seen(effect, now)) {
                    self.counts.set_taint(number(effect));
                    tracing::info!(
                        effect = effect.map_or("none", Effect::name),
                        "somebody else changed the node's taint"
                    );
                }
            }
            Err(error) => condition.failed(again(&error), now),
        }
    }

    /// Sets the taint, or takes it away. Others change the node all the time: each try is made from what is there. Where an eviction
    /// waits there is one try only: on a slow server each takes half a minute, and the pass waits a minute for an eviction's end.
    async fn taint(&mut self, effect: Option<Effect>) {
        for _ in 0..RACES {
            match self.try_taint(effect).await {
                Ok(()) => {
                    tracing::info!(effect = effect.map_or("none", Effect::name), "the node's taint is set");
                    self.counts.set_taint(number(effect));
                    if let Some(taint) = &mut self.taint {
                        taint.written(effect, Instant::now());
                    }
                    return;
                }
                Err(CallError::Answered { code: 409, .. }) if self.ears.orders.is_empty() => {
                    sleep(Duration::from_millis(20) + self.dice.below(Duration::from_millis(200))).await;
                }
                Err(error) => {
                    if let Some(taint) = &mut self.taint {
                        taint.failed(again(&error), Instant::now());
                    }
                    return;
                }
            }
        }
        if let Some(taint) = &mut self.taint {
            taint.failed(AGAIN, Instant::now());
        }
    }

    async fn try_taint(&mut self, effect: Option<Effect>) -> Result<(), CallError> {
        let Some(body) = self.view().await?.with(effect) else { return Ok(()) };
        let path = format!("/api/v1/nodes/{}", self.node);
        let call = Call { what: What::Taint, method: Method::PATCH, path, content: MERGE, body };
        self.call(&call).await.map(drop)
    }

    /// Makes a request, and draws the conclusions that are the same for all.
    async fn call(&mut self, call: &Call) -> Result<Value, CallError> {
        let Some(line) = &self.line else { return Err(CallError::Silent(Duration::ZERO)) };
        self.budget.take(Instant::now());
        let answer = line.call(call).await;
        let ending = answer.as_ref().map_or_else(CallError::ending, |_| Ending::Done);
        self.counts.ended(call.what, ending);
        let ill = match (call.what, ending) {
            (_, Ending::Away) => true,
            // A disruption budget says 429, two of them for one pod 500: whoever made them shall not silence a node.
            (What::Evict, _) => false,
            (_, ending) => matches!(ending, Ending::Busy | Ending::Failed),
        };
        match &answer {
            Err(error) if ill => self.backoff.failed(error.after(), Instant::now(), &mut self.dice),
            _ => self.backoff.succeeded(),
        }
        self.say(call.what, answer.as_ref().err().filter(|_| ending != Ending::Conflict));
        answer
    }

    /// Says once that something can't be done, and that it can be again.
    fn say(&mut self, what: What, trouble: Option<&CallError>) {
        let Some(trouble) = trouble else {
            if self.troubles.remove(what.name()).is_some() {
                tracing::info!(what = what.name(), "the API server takes it again");
            }
            return;
        };
        let why = chain(trouble);
        if self.troubles.get(what.name()) != Some(&why) {
            tracing::warn!(what = what.name(), error = why, "the API server could not be told");
            self.troubles.insert(what.name(), why);
        }
    }

    /// Takes back what only holds while somebody looks after it, and tells what is left to tell. Whoever calls this sets a limit.
    async fn farewell(mut self) {
        self.listen(Instant::now());
        if self.taint.as_ref().is_none_or(|taint| taint.there().is_some()) {
            self.taint(None).await;
        }
        // Who has not looked (again) may have left one.
        if self.condition.is_some() || self.look.is_some() {
            let _ = self.call(&removal(&self.node)).await;
        }
        self.events.hurry(Instant::now());
        while let Some((key, call)) = self.events.next(Instant::now()) {
            let answer = self.call(&call).await;
            self.events.ended(&key, answer.as_ref().map(|_| ()), Instant::now());
            if answer.is_err() {
                return;
            }
        }
    }
}

fn read(node: Value) -> Result<View, CallError> {
    serde_json::from_value(node).map_err(|error| CallError::Senseless(error.to_string()))
}

/// How long not to try the same again.
const fn again(error: &CallError) -> Duration {
    match error.ending() {
        Ending::Refused => FORBIDDEN,
        _ => AGAIN,
    }
}

/// For metrics.
const fn number(effect: Option<Effect>) -> u64 {
    match effect {
        None => 0,
        Some(Effect::PreferNoSchedule) => 1,
        Some(Effect::NoSchedule) => 2,
    }
}

/// An error with what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
