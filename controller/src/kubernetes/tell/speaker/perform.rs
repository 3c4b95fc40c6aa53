//! What the task does: one request, or a few for the taint, and what follows from the answer.

use std::time::Duration;

use hyper::Method;
use plimsoll_policy::plan::ActResult;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Job, Speaker};
use crate::kubernetes::tell::call::{Call, CallError, JSON, MERGE, is_name};
use crate::kubernetes::tell::condition::{Condition, removal};
use crate::kubernetes::tell::counts::{Ending, What};
use crate::kubernetes::tell::evict::{Order, result};
use crate::kubernetes::tell::taint::{Effect, Taint};
use crate::kubernetes::tell::view::View;

/// Before something is tried again that the server would not have. The pause of a server that fails is longer.
const AGAIN: Duration = Duration::from_secs(10);
/// Before something is tried again that is not allowed: it takes a person to change that.
const FORBIDDEN: Duration = Duration::from_secs(300);
/// Times that the taint is tried where somebody else is always quicker.
const RACES: u32 = 4;

impl Speaker {
    pub(super) async fn perform(&mut self, job: Job) {
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
    pub(super) async fn farewell(mut self) {
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
