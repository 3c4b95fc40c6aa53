//! One asking from its beginning to its end: drain, ask, hold what was said against the meters, and try the next way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_policy::concession::{Concession, Gains, Level, Wish};
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::plan::ActResult;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::attend::hear;
use super::meter::{Meter, Reading, enough};
use super::offers::{Group, Heard, merge, plus, restoring, serving};
use super::way::{Answered, Asking, Way, WayError};
use crate::sense::clock::now;

/// How often meters and requests in flight are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What one asking has to go by.
pub(super) struct Conversation<'a> {
    pub(super) config: &'a Ask,
    pub(super) meter: &'a Meter,
    pub(super) ways: &'a [Arc<dyn Way>],
    pub(super) heard: &'a [Heard],
    /// The words of the ways that offloaded or unloaded it.
    pub(super) gave: &'a BTreeSet<&'static str>,
    /// Whether it was offloaded or unloaded by whomever, as far as is written down.
    pub(super) away: bool,
    pub(super) wish: &'a Wish,
}

/// The ways that are asked at the same time.
type Step = Vec<(&'static str, Group)>;

/// What came of asking so far.
#[derive(Default)]
struct Heeded {
    by: Vec<&'static str>,
    claimed: Option<Gains>,
    refused: Vec<String>,
    answered: bool,
    freed: Gains,
    verified: bool,
}

impl Conversation<'_> {
    /// Asks. `tried` names the ways that were, also when this is dropped on the way.
    pub(super) async fn hold(&self, tried: &mut BTreeSet<&'static str>) -> Concession {
        let (begun, start) = (now(), Instant::now());
        let end = start + Duration::from(self.wish.deadline);
        let heeded = if self.wish.level == Level::Nothing {
            self.restore(end, tried).await
        } else {
            self.take(start, end, tried).await
        };
        Concession {
            workload: self.meter.workload().clone(),
            number: self.wish.number,
            level: self.wish.level,
            by: heeded.by.join("+"),
            result: heeded.result(),
            begun,
            took: now().since(begun),
            freed: heeded.freed,
            claimed: heeded.claimed,
        }
    }

    /// Asks one way after the other, until the meters show what was expected.
    async fn take(&self, start: Instant, end: Instant, tried: &mut BTreeSet<&'static str>) -> Heeded {
        if self.wish.level >= Level::Offload {
            self.drain(start).await;
        }
        let before = self.meter.read();
        let mut heeded = Heeded::default();
        let steps = serving(self.heard, self.wish.level);
        if steps.is_empty() {
            heeded.refused.push(WayError::NotOffered(self.wish.level).to_string());
        }
        for step in steps {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            tried.extend(step.iter().map(|(word, _)| *word));
            // Verification is part of the deadline.
            let verify = Duration::from(self.config.verify_for).min(left / 4);
            let answered = self.ask(&step, left - verify, &mut heeded).await;
            let until = if answered {
                end.min(Instant::now() + Duration::from(self.config.verify_for))
            } else {
                start
            };
            if self.verify(&before, until, &mut heeded).await {
                break;
            }
        }
        heeded
    }

    /// Asks those who gave to take it back; whoever can't be asked any more has nothing to take back.
    async fn restore(&self, end: Instant, tried: &mut BTreeSet<&'static str>) -> Heeded {
        let before = self.meter.read();
        let gave: Vec<&'static str> = self.gave.iter().copied().collect();
        let mut heeded = Heeded::default();
        for group in restoring(self.heard, &gave, self.away) {
            let left = end.saturating_duration_since(Instant::now());
            tried.insert(group.0);
            heeded.answered |= self.ask(&vec![group], left, &mut heeded).await;
        }
        let away = merge(&hear(self.ways).await).level.is_some_and(|level| level >= Level::Offload);
        if away {
            heeded.refused.push("it says that it is still away".into());
        }
        heeded.freed = self.meter.read().since(&before);
        heeded.verified = heeded.refused.is_empty() && !away;
        heeded
    }

    /// Waits until no request is in flight, for at most its share of the time. Who does not say has none that we could wait for.
    async fn drain(&self, start: Instant) {
        let share = Duration::from_nanos(self.config.drain.of_number(self.wish.deadline.0));
        let mut inflight = merge(self.heard).inflight;
        while inflight.is_some_and(|requests| requests > 0) && start.elapsed() + LOOK <= share {
            sleep(LOOK).await;
            inflight = merge(&hear(self.ways).await).inflight;
        }
    }

    /// Asks all ways of one step at the same time. True where at least one of them did as it was told.
    async fn ask(&self, step: &Step, deadline: Duration, heeded: &mut Heeded) -> bool {
        let asking = Arc::new(self.asking(deadline));
        let mut asked = JoinSet::new();
        for (word, group) in step {
            heeded.by.push(word);
            for way in group.iter().filter_map(|at| self.ways.get(*at)) {
                let (way, asking) = (Arc::clone(way), Arc::clone(&asking));
                // A task of its own: what panics there ends there, and dropping the set ends it.
                asked.spawn(async move {
                    let answer = timeout(asking.deadline, way.ask(&asking)).await;
                    (way.name(), answer.unwrap_or(Err(WayError::Late(asking.deadline))))
                });
            }
        }
        let mut answered = false;
        while let Some(joined) = asked.join_next().await {
            match joined {
                Ok((_, Ok(answer))) => {
                    answered = true;
                    heeded.claim(answer);
                }
                Ok((word, Err(error))) => heeded.refused.push(format!("{word}: {error}")),
                Err(error) => heeded.refused.push(format!("failed while it was asked: {error}")),
            }
        }
        heeded.answered |= answered;
        answered
    }

    fn asking(&self, deadline: Duration) -> Asking {
        let Wish { number, level, gpus, expected, .. } = self.wish;
        let wanted = match gpus.first() {
            Some(gpu) => expected.gpus.get(gpu).map_or(0, |bytes| bytes.0),
            None => u64::try_from(expected.host).unwrap_or(0),
        };
        let reason = match (level, gpus.as_slice()) {
            (Level::Nothing, _) => "there is room again".to_owned(),
            (_, []) => "host memory is short".to_owned(),
            (_, gpus) => {
                let names: Vec<_> = gpus.iter().map(ToString::to_string).collect();
                format!("memory of GPU {} is short", names.join(", "))
            }
        };
        Asking { number: *number, level: *level, gpus: gpus.clone(), wanted, deadline, reason }
    }

    /// Looks at the meters until they show enough, or the time is up. At least once.
    async fn verify(&self, before: &Reading, until: Instant, heeded: &mut Heeded) -> bool {
        loop {
            heeded.freed = self.meter.read().since(before);
            let Wish { expected, gpus, .. } = self.wish;
            heeded.verified = enough(&heeded.freed, expected, self.config.verify_share, gpus);
            if heeded.verified || Instant::now() >= until {
                return heeded.verified;
            }
            sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }
}

impl Heeded {
    fn claim(&mut self, answer: Answered) {
        if let Some(claimed) = answer.claimed {
            plus(self.claimed.get_or_insert_with(Gains::default), &claimed);
        }
    }

    /// The meters have the last word, whatever was said.
    fn result(&self) -> ActResult {
        if self.verified {
            ActResult::Done
        } else if self.answered && self.refused.is_empty() {
            ActResult::Partial
        } else if self.refused.is_empty() {
            ActResult::Failed("there was no time to ask".into())
        } else {
            ActResult::Failed(self.refused.join("; "))
        }
    }
}
