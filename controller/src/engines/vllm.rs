//! vLLM: sleep level 1 moves the weights to host memory, level 2 drops them; the KV cache is dropped by both.
//!
//! The routes exist in development mode only, and the server's API key does not cover them. Level, mode and tags are query
//! parameters: a body is ignored, and the level would be 1.

use std::time::Duration;

use plimsoll_policy::concession::Level;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::http::{Ask, Client, Method};
use super::{Capabilities, Door, Engine, Gate, Probed, Release, Request, Requests, State, openai, samples};
use crate::ask::way::WayError;

const MISSING: &str =
    "it has no /is_sleeping: start it with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1 in its environment";

/// How often it is asked whether it is asleep by now.
const LOOK: Duration = Duration::from_millis(100);

/// One server.
#[derive(Debug)]
pub(super) struct Vllm {
    http: Client,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Sleeping {
    is_sleeping: bool,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Vllm {
    pub(super) fn new(http: Client, model: Option<String>) -> Self {
        Self { http, model }
    }

    /// `None` without development mode.
    async fn sleeping(&self, by: Instant) -> Result<Option<bool>, WayError> {
        let answer = self.http.get("/is_sleeping", by).await?;
        if answer.absent() {
            return Ok(None);
        }
        Ok(Some(answer.json::<Sleeping>()?.is_sleeping))
    }

    async fn post(&self, path: &str, by: Instant) -> Result<(), WayError> {
        Ok(self.http.send(&Ask::new(Method::POST, path), by).await?.ok().map(drop)?)
    }

    async fn metrics(&self, by: Instant) -> Result<String, WayError> {
        let answer = self.http.get("/metrics", by).await?;
        if answer.absent() { Ok(String::new()) } else { Ok(answer.text()?) }
    }

    async fn wake(&self, discarded: bool, by: Instant) -> Result<(), WayError> {
        if !discarded {
            return self.post("/wake_up", by).await;
        }
        // Weights first: the KV cache takes all that is left, and loading needs room of its own.
        self.post("/wake_up?tags=weights", by).await?;
        let reload = json!({ "method": "reload_weights" });
        self.http.post("/collective_rpc", &reload, by).await?.ok().map_err(WayError::from)?;
        self.post("/wake_up?tags=kv_cache", by).await
    }
}

impl Engine for Vllm {
    fn kind(&self) -> &'static str {
        "vllm"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let sleeping = self.sleeping(by).await?;
        let metrics = self.metrics(by).await?;
        let inflight =
            samples::requests(&metrics, &["vllm:num_requests_running", "vllm:num_requests_waiting"]);
        let version = self.http.get("/version", by).await?.json::<Version>().ok().map(|found| found.version);
        let Some(sleeping) = sleeping else {
            let can = Capabilities::nothing(MISSING);
            return Ok(Probed { version, can, state: State::Active, inflight, estimate: None });
        };
        let paused = self.http.get("/is_paused", by).await?.status.is_success();
        let can = Capabilities {
            levels: [(Level::Offload, Release::OFFLOAD), (Level::Unload, Release::UNLOAD)].into(),
            door: if paused { Door::Gate } else { Door::None },
            requests: Requests::Lost,
            missing: None,
        };
        Ok(Probed { version, can, state: state(sleeping, &metrics), inflight, estimate: None })
    }

    async fn release(&self, release: Release, request: &Request, by: Instant) -> Result<(), WayError> {
        if self.sleeping(by).await? == Some(true) && asleep(&self.metrics(by).await?) {
            // A sleeper ignores a second call, of whatever level. To drop the host copy it has to wake for a moment.
            if request.gpu {
                return Err(WayError::Refused(
                    "it sleeps at level 1: level 2 would free host memory only".into(),
                ));
            }
            self.wake(false, by).await?;
        }
        let level = if release == Release::UNLOAD { 2 } else { 1 };
        self.post(&format!("/sleep?level={level}&mode=wait"), by).await?;
        // Older servers answer before they are asleep.
        while self.sleeping(by).await? != Some(true) {
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn restore(&self, released: Option<Release>, by: Instant) -> Result<(), WayError> {
        if self.sleeping(by).await? != Some(true) {
            return Ok(());
        }
        let metrics = self.metrics(by).await?;
        // Where nobody knows how deep it sleeps, loading the weights once too often does no harm.
        let discarded = match (samples::hot(&metrics, SLEEP, LABEL), released) {
            (Some("awake"), _) => return Ok(()),
            (Some("weights_offloaded"), _) => false,
            (Some("discard_all"), _) => true,
            (_, Some(released)) => released == Release::UNLOAD,
            (_, None) => true,
        };
        self.wake(discarded, by).await
    }

    async fn gate(&self, gate: Gate, by: Instant) -> Result<(), WayError> {
        match gate {
            // Both words for the same: newer servers know the first, older ones the second.
            Gate::Closed => self.post("/pause?mode=wait&wait_for_inflight_requests=true", by).await,
            Gate::Open => self.post("/resume", by).await,
        }
    }

    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        openai::smoke(&self.http, self.model.as_deref(), by).await
    }
}

const SLEEP: &str = "vllm:engine_sleep_state";
const LABEL: &str = "sleep_state";

/// The newest servers call a scheduler that is merely paused sleeping too; the metric tells them apart.
fn asleep(metrics: &str) -> bool {
    samples::hot(metrics, SLEEP, LABEL) != Some("awake")
}

fn state(sleeping: bool, metrics: &str) -> State {
    match (sleeping, samples::hot(metrics, SLEEP, LABEL)) {
        (false, _) => State::Active,
        (true, Some("awake")) => State::Draining,
        (true, Some("weights_offloaded")) => State::Released(Some(Level::Offload)),
        (true, Some("discard_all")) => State::Released(Some(Level::Unload)),
        (true, _) => State::Released(None),
    }
}
