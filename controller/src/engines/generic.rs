//! Anything that speaks HTTP and is not known: every call is written down in the configuration.

use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use plimsoll_policy::concession::Level;
use plimsoll_policy::config::engine::{Call, Calls, EngineAt, Method as Verb};
use serde_json::Value;
use tokio::time::Instant;

use super::http::{Answer, Ask, Client, Method};
use super::{Capabilities, Door, Engine, Gate, Mode, Probed, Release, Request, Requests, State, Target};
use crate::ask::way::WayError;

/// One server and its calls.
#[derive(Debug)]
pub(super) struct Generic {
    http: Client,
    calls: Calls,
}

impl Generic {
    pub(super) fn new(http: Client, at: &EngineAt) -> Result<Self, WayError> {
        let missing = || WayError::Misconfigured("kind http needs `calls`".into());
        let calls = at.calls.clone().ok_or_else(missing)?;
        Ok(Self { http, calls })
    }

    /// The answer, if it is the one that is expected.
    async fn call(&self, call: &Call, by: Instant) -> Result<Answer, WayError> {
        let answer = self.http.send(&ask(call)?, by).await?;
        let right = match call.status {
            Some(status) => answer.status.as_u16() == status,
            None => answer.status.is_success(),
        };
        if !right {
            return Err(answer.failure().into());
        }
        match &call.contains {
            Some(text) if !String::from_utf8_lossy(&answer.body).contains(text) => {
                Err(answer.garbled(&format!("no {text:?}")).into())
            }
            _ => Ok(answer),
        }
    }

    /// The call if there is one; nothing to do otherwise.
    async fn if_any(&self, call: Option<&Call>, by: Instant) -> Result<(), WayError> {
        match call {
            Some(call) => self.call(call, by).await.map(drop),
            None => Ok(()),
        }
    }

    async fn inflight(&self, by: Instant) -> Result<Option<u32>, WayError> {
        let Some(call) = &self.calls.inflight else { return Ok(None) };
        let answer = self.call(call, by).await?;
        let pointer = call.number.as_deref().unwrap_or_default();
        let number = serde_json::from_slice::<Value>(&answer.body).ok();
        let number = number.and_then(|reply| reply.pointer(pointer)?.as_u64());
        match number {
            Some(number) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
            None => Err(answer.garbled(&format!("no number at {pointer}")).into()),
        }
    }

    /// The levels that have a call. Each keeps what it releases apart from the others, so that a release finds its call.
    fn levels(&self) -> impl Iterator<Item = (Level, Release, &Call)> {
        let Calls { gc, aggressive, offload, unload, .. } = &self.calls;
        let to = |target, mode| Release { target, mode };
        [
            (Level::Gc, to(Target::Kv, Mode::ToHost), gc),
            (Level::Aggressive, Release::CACHES, aggressive),
            (Level::Offload, Release::OFFLOAD, offload),
            (Level::Unload, Release::UNLOAD, unload),
        ]
        .into_iter()
        .filter_map(|(level, release, call)| Some((level, release, call.as_ref()?)))
    }
}

impl Engine for Generic {
    fn kind(&self) -> &'static str {
        "http"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        self.if_any(self.calls.probe.as_ref(), by).await?;
        let inflight = self.inflight(by).await?;
        let levels = self.levels().map(|(level, release, _)| (level, release)).collect();
        let door = if self.calls.close.is_some() { Door::Gate } else { Door::None };
        let can = Capabilities { levels, door, requests: Requests::Lost, missing: None };
        Ok(Probed { can, state: State::Unknown, inflight, ..Probed::default() })
    }

    async fn release(&self, release: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        let call = self.levels().find(|(_, offered, _)| *offered == release);
        self.if_any(call.map(|(_, _, call)| call), by).await
    }

    async fn restore(&self, _: Option<Release>, by: Instant) -> Result<(), WayError> {
        self.if_any(self.calls.restore.as_ref(), by).await
    }

    async fn gate(&self, gate: Gate, by: Instant) -> Result<(), WayError> {
        let call = match gate {
            Gate::Closed => &self.calls.close,
            Gate::Open => &self.calls.open,
        };
        self.if_any(call.as_ref(), by).await
    }

    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        self.if_any(self.calls.smoke.as_ref(), by).await
    }

    async fn stop(&self, by: Instant) -> Result<(), WayError> {
        let missing = || WayError::Refused("`calls` has no `stop`".into());
        self.call(self.calls.stop.as_ref().ok_or_else(missing)?, by).await.map(drop)
    }
}

fn ask(call: &Call) -> Result<Ask, WayError> {
    let method = match call.method {
        Verb::Get => Method::GET,
        Verb::Post => Method::POST,
        Verb::Put => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete => Method::DELETE,
    };
    let mut ask = Ask::new(method, call.path.clone());
    for line in &call.headers {
        let wrong = || WayError::Misconfigured(format!("`headers` has {line:?}, which is none"));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::try_from(name).map_err(|_| wrong())?;
        ask.headers.push((name, HeaderValue::try_from(value.trim()).map_err(|_| wrong())?));
    }
    if let Some(body) = &call.body {
        ask.body = body.clone().into_bytes();
        if !ask.headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            ask.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
    }
    Ok(ask)
}
