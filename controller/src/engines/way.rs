//! The way to an engine: maps levels to releases, drains before it lets memory go, tries the engine before it calls it restored.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plimsoll_policy::concession::{Gains, Level, Offer, Prospect};
use plimsoll_policy::units::{Share, Span};
use tokio::time::{Instant, sleep_until};

use super::{Door, Engine, Estimate, Gate, Probed, Release, Request, Requests, State};
use crate::ask::way::{Answered, Answering, Asking, Way, WayError};

/// How long a probe may take: engines answer these calls from memory.
const PROBE: Duration = Duration::from_millis(1800);

/// How often an engine that drains is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Where the way to an engine stands. Nothing of it is needed for more than the engine itself does not say: after a restart of the
/// controller it begins empty.
#[derive(Debug, Default)]
struct Held {
    state: State,
    /// What was released, and by which level.
    released: Option<(Level, Release)>,
    /// Whether we hold requests off.
    closed: bool,
    /// The last asking that was answered.
    answered: Option<(u64, Answered)>,
    /// How long each level took the last time.
    took: BTreeMap<Level, Duration>,
    /// What was last complained of, so that it is logged once.
    complaint: Option<String>,
}

/// The [`Way`] to any engine.
#[derive(Debug)]
pub struct EngineWay<E> {
    engine: E,
    /// Share of an asking's time that requests are waited for.
    drain: Share,
    held: Mutex<Held>,
}

impl<E: Engine> EngineWay<E> {
    /// The way to this engine.
    pub fn new(engine: E, drain: Share) -> Self {
        Self { engine, drain, held: Mutex::new(Held::default()) }
    }

    /// Where it stands, as far as the way to it knows.
    pub fn state(&self) -> State {
        self.held().state
    }

    /// Asks the engine to end itself.
    ///
    /// # Errors
    /// When it can't be asked, or has no such call.
    pub async fn stop(&self, deadline: Duration) -> Result<(), WayError> {
        self.engine.stop(Instant::now() + deadline).await
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&self) -> Result<Offer, WayError> {
        let by = Instant::now() + PROBE;
        let probed =
            self.engine.probe(by).await.inspect_err(|error| self.complain(Some(&error.to_string())))?;
        self.complain(probed.can.missing.as_deref());
        self.let_in(&probed, by).await?;
        let mut held = self.held();
        if probed.state == State::Active {
            // Somebody else restored it, or the next request did.
            held.released = None;
        }
        let level = in_force(&probed, &held);
        let levels =
            probed.can.levels.keys().map(|level| (*level, prospect(*level, &probed, &held))).collect();
        match probed.can.missing {
            Some(why)
                if probed.can.levels.is_empty() && level.is_none_or(|level| level == Level::Nothing) =>
            {
                Err(WayError::Misconfigured(format!("{}: {why}", self.engine.kind())))
            }
            _ => {
                let gated = probed.can.door != Door::None;
                Ok(Offer { levels, level, inflight: probed.inflight, busy: None, gated })
            }
        }
    }

    /// A drain or a release whose asker went away leaves requests held off: nobody else would let them in.
    async fn let_in(&self, probed: &Probed, by: Instant) -> Result<(), WayError> {
        let serves = match probed.state {
            State::Active | State::Draining => true,
            State::Unknown => self.held().released.is_none(),
            _ => false,
        };
        let forgotten = serves && self.held().closed;
        if forgotten { self.open(by).await } else { Ok(()) }
    }

    /// Whoever looks at the log has to learn why an engine offers less than it could, and learn it once.
    fn complain(&self, complaint: Option<&str>) {
        let mut held = self.held();
        if held.complaint.as_deref() != complaint {
            held.complaint = complaint.map(str::to_owned);
            if let Some(why) = complaint {
                tracing::warn!(engine = self.engine.kind(), why, "an engine offers less than it could");
            }
        }
    }

    async fn open(&self, by: Instant) -> Result<(), WayError> {
        self.engine.gate(Gate::Open, by).await?;
        self.held().closed = false;
        Ok(())
    }

    async fn answer(&self, asking: &Asking) -> Result<Answered, WayError> {
        if let Some((_, answered)) =
            self.held().answered.as_ref().filter(|(number, _)| *number == asking.number)
        {
            return Ok(answered.clone());
        }
        let begun = Instant::now();
        // What is left at the end is for letting requests in again.
        let by = begun + asking.deadline - LOOK.min(asking.deadline / 10);
        let done = match asking.level {
            Level::Nothing => self.restore(by).await,
            level => self.give(level, asking, by).await,
        };
        let answered = done?;
        let mut held = self.held();
        held.answered = Some((asking.number, answered.clone()));
        held.took.insert(asking.level, begun.elapsed());
        Ok(answered)
    }

    async fn give(&self, level: Level, asking: &Asking, by: Instant) -> Result<Answered, WayError> {
        let probed = self.engine.probe(by.min(Instant::now() + PROBE)).await?;
        let now = in_force(&probed, &self.held());
        if now.is_some_and(|now| now >= level) {
            return Ok(Answered::default());
        }
        let release = *probed.can.levels.get(&level).ok_or(WayError::NotOffered(level))?;
        let claimed = probed.estimate.filter(|_| release == Release::UNLOAD).and_then(gains);
        if probed.can.requests == Requests::Lost && now.is_none_or(|now| now < Level::Offload) {
            self.drain(&probed, by).await?;
        }
        let before = {
            // Before the call: if it is dropped half way, the engine may have heard it, and a restore has to know.
            let mut held = self.held();
            held.state = State::Releasing;
            held.released.replace((level, release))
        };
        let request = Request { wanted: asking.wanted, gpu: !asking.gpus.is_empty() };
        match self.engine.release(release, &request, by).await {
            Ok(()) => {
                self.held().state = State::Released(Some(level));
                Ok(Answered { claimed })
            }
            Err(error) => {
                {
                    let mut held = self.held();
                    held.state = State::Failed;
                    held.released = before;
                }
                self.undo(by).await;
                Err(error)
            }
        }
    }

    /// Holds requests off where the engine can, and waits until it has none left: for a share of the time that there is, since
    /// releasing takes time too.
    async fn drain(&self, probed: &Probed, by: Instant) -> Result<(), WayError> {
        let now = Instant::now();
        let until = now + part(by.saturating_duration_since(now), self.drain);
        self.held().state = State::Draining;
        let drained = self.close(probed, until).await;
        if drained.is_err() {
            self.undo(by).await;
        }
        // Whoever takes long to say how many requests it has left has some.
        drained.map_err(late_is_busy)
    }

    async fn close(&self, probed: &Probed, until: Instant) -> Result<(), WayError> {
        if probed.can.door == Door::Gate {
            // Set before the call: if it is dropped half way the engine may have heard it.
            self.held().closed = true;
            self.engine.gate(Gate::Closed, until).await?;
        }
        let mut inflight = probed.inflight;
        while let Some(left @ 1..) = inflight {
            if Instant::now() + LOOK >= until {
                return Err(WayError::Busy(format!("{left} requests")));
            }
            sleep_until(Instant::now() + LOOK).await;
            inflight = self.engine.probe(until).await?.inflight;
        }
        Ok(())
    }

    /// Lets requests in again after a release that came to nothing. If that fails as well, the next offer tries it again.
    async fn undo(&self, by: Instant) {
        let closed = {
            let held = self.held();
            held.closed && held.released.is_none()
        };
        if closed && let Err(error) = self.open(by.max(Instant::now() + LOOK)).await {
            tracing::warn!(engine = self.engine.kind(), %error, "requests are still held off");
        }
    }

    async fn restore(&self, by: Instant) -> Result<Answered, WayError> {
        let probed = self.engine.probe(by.min(Instant::now() + PROBE)).await?;
        let released = self.held().released.map(|(_, release)| release);
        // What a predecessor of ours released it has also closed.
        let inherited = released.is_none() && matches!(probed.state, State::Released(_) | State::Partial);
        let closed = self.held().closed || inherited && probed.can.door == Door::Gate;
        self.held().state = State::Restoring;
        let restored = async {
            self.engine.restore(released, by).await?;
            if closed {
                self.open(by).await?;
            }
            self.engine.smoke(by).await
        };
        let restored = restored.await;
        let mut held = self.held();
        held.state = if restored.is_ok() { State::Active } else { State::Failed };
        restored?;
        held.released = None;
        Ok(Answered::default())
    }
}

fn part(time: Duration, share: Share) -> Duration {
    time.saturating_mul(share.0) / Share::percent(100).0
}

/// A door that closes only when the last request is done closes late because of those requests.
fn late_is_busy(error: WayError) -> WayError {
    match error {
        WayError::Late(_) => WayError::Busy("requests that do not end".into()),
        error => error,
    }
}

/// The engine's own word counts; where it does not say how far it went, what was asked of it does.
fn in_force(probed: &Probed, held: &Held) -> Option<Level> {
    match probed.state {
        State::Active => Some(Level::Nothing),
        State::Released(Some(level)) => Some(level),
        State::Released(None) => held.released.map_or(Some(Level::Offload), |(level, _)| Some(level)),
        State::Unknown => held.released.map(|(level, _)| level),
        State::Partial | State::Draining | State::Releasing | State::Restoring | State::Failed => None,
    }
}

fn prospect(level: Level, probed: &Probed, held: &Held) -> Prospect {
    let gains = match probed.can.levels.get(&level) {
        Some(&Release::UNLOAD) => probed.estimate.and_then(gains),
        _ => None,
    };
    Prospect {
        gains,
        takes: held.took.get(&level).map(|took| Span(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))),
    }
}

/// An engine does not know on which GPU its bytes are by the name that the driver has for it: it is believed only where it has
/// none there.
fn gains(estimate: Estimate) -> Option<Gains> {
    let Estimate { host, gpu } = estimate;
    (gpu == 0 && host > 0)
        .then(|| Gains { host: i64::try_from(host).unwrap_or(i64::MAX), gpus: BTreeMap::new() })
}

impl<E: Engine> Way for EngineWay<E> {
    fn name(&self) -> &'static str {
        "engine"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        Box::pin(self.look())
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        Box::pin(async move {
            // The adapters keep deadlines by themselves; this one is for what they might have overlooked.
            let whole = asking.deadline + LOOK;
            tokio::time::timeout(whole, self.answer(asking))
                .await
                .unwrap_or(Err(WayError::Late(asking.deadline)))
        })
    }
}
