//! Ray Serve LLM with its development ingress: puts the engines of all replicas of a model to sleep, and wakes them.
//!
//! The ingress passes the call on to every replica, and asks one of them whether it sleeps. Level 1 only: for level 2 every
//! replica would have to load its weights again, which the ingress can't have done for all of them.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use plimsoll_policy::concession::Level;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::http::Client;
use super::{Capabilities, Door, Engine, Gate, Probed, Release, Request, Requests, State, openai};
use crate::ask::way::WayError;

const MISSING: &str =
    "it has no /is_sleeping: build the app with the development ingress (build_dev_openai_app)";

/// How often it is asked whether it is asleep, or awake. A replica that is asked is any of them: several answers in a row are
/// needed to believe it.
const LOOK: Duration = Duration::from_millis(100);

/// Answers in a row that count as one of all replicas.
const IN_A_ROW: u32 = 5;

/// One ingress, and the models that are meant.
#[derive(Debug)]
pub(super) struct RayServe {
    http: Client,
    models: Vec<String>,
}

#[derive(Deserialize)]
struct Sleeping {
    is_sleeping: bool,
}

impl RayServe {
    pub(super) fn new(http: Client, models: Vec<String>) -> Self {
        Self { http, models }
    }

    /// `None` without the development ingress.
    async fn sleeping(&self, model: &str, by: Instant) -> Result<Option<bool>, WayError> {
        let model = utf8_percent_encode(model, NON_ALPHANUMERIC);
        let answer = self.http.get(format!("/is_sleeping?model={model}"), by).await?;
        if answer.absent() { Ok(None) } else { Ok(Some(answer.json::<Sleeping>()?.is_sleeping)) }
    }

    async fn until(&self, model: &str, asleep: bool, by: Instant) -> Result<(), WayError> {
        let mut row = 0;
        while row < IN_A_ROW {
            row = if self.sleeping(model, by).await? == Some(asleep) { row + 1 } else { 0 };
            sleep(LOOK / IN_A_ROW).await;
        }
        Ok(())
    }

    async fn door(&self, by: Instant) -> Result<Door, WayError> {
        let Some(model) = self.models.first() else { return Ok(Door::None) };
        let model = utf8_percent_encode(model, NON_ALPHANUMERIC);
        let answer = self.http.get(format!("/is_paused?model={model}"), by).await?;
        Ok(if answer.status.is_success() { Door::Gate } else { Door::None })
    }
}

impl Engine for RayServe {
    fn kind(&self) -> &'static str {
        "ray"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let mut asleep = 0;
        for model in &self.models {
            match self.sleeping(model, by).await? {
                Some(sleeping) => asleep += usize::from(sleeping),
                None => {
                    let can = Capabilities::nothing(MISSING);
                    return Ok(Probed { can, state: State::Active, ..Probed::default() });
                }
            }
        }
        let state = match asleep {
            0 => State::Active,
            some if some < self.models.len() => State::Partial,
            _ => State::Released(Some(Level::Offload)),
        };
        let levels = [(Level::Offload, Release::OFFLOAD)].into();
        let can =
            Capabilities { levels, door: self.door(by).await?, requests: Requests::Lost, missing: None };
        Ok(Probed { can, state, ..Probed::default() })
    }

    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        for model in &self.models {
            let body = json!({ "model": model, "options": { "level": 1 } });
            self.http.post("/sleep", &body, by).await?.ok().map_err(WayError::from)?;
            self.until(model, true, by).await?;
        }
        Ok(())
    }

    async fn restore(&self, _: Option<Release>, by: Instant) -> Result<(), WayError> {
        for model in &self.models {
            self.http
                .post("/wakeup", &json!({ "model": model, "options": {} }), by)
                .await?
                .ok()
                .map_err(WayError::from)?;
            self.until(model, false, by).await?;
        }
        Ok(())
    }

    async fn gate(&self, gate: Gate, by: Instant) -> Result<(), WayError> {
        for model in &self.models {
            let (path, options) = match gate {
                Gate::Closed => ("/pause", json!({ "wait_for_inflight_requests": true })),
                Gate::Open => ("/resume", json!({})),
            };
            let body = json!({ "model": model, "options": options });
            self.http.post(path, &body, by).await?.ok().map_err(WayError::from)?;
        }
        Ok(())
    }

    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        for model in &self.models {
            openai::smoke(&self.http, Some(model), by).await?;
        }
        Ok(())
    }
}
