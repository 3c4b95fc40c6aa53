//! llama.cpp's server with one model: it sleeps when it has been idle, and has no call that makes it.
//!
//! What it offers is to forget what its idle slots hold: prompts and their checkpoints. Whether it sleeps is told by `/props`,
//! which does not wake it; `/slots` would.

use std::sync::atomic::{AtomicBool, Ordering};

use plimsoll_policy::concession::Level;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::http::{Ask, Client, Method};
use super::{Capabilities, Engine, Probed, Release, Request, Requests, State, openai};
use crate::ask::way::WayError;

const MISSING: &str = "it has no call that unloads its model: start it with --sleep-idle-seconds N, or as a router (kind llamacpp-router)";

/// One server.
#[derive(Debug)]
pub(super) struct Llamacpp {
    http: Client,
    /// It has said that it erases nothing: it was started without `--slot-save-path`.
    fixed: AtomicBool,
}

#[derive(Deserialize)]
struct Props {
    #[serde(default)]
    is_sleeping: bool,
    build_info: Option<String>,
}

#[derive(Deserialize)]
struct Slot {
    id: u32,
    #[serde(default)]
    is_processing: bool,
}

impl Llamacpp {
    pub(super) fn new(http: Client) -> Self {
        Self { http, fixed: AtomicBool::new(false) }
    }

    /// `None` where the server was started without them.
    async fn slots(&self, by: Instant) -> Result<Option<Vec<Slot>>, WayError> {
        let answer = self.http.get("/slots", by).await?;
        if answer.absent() { Ok(None) } else { Ok(Some(answer.json()?)) }
    }
}

impl Engine for Llamacpp {
    fn kind(&self) -> &'static str {
        "llamacpp"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let Props { is_sleeping, build_info } = self.http.get("/props", by).await?.json()?;
        let mut probed = Probed { version: build_info, state: State::Active, ..Probed::default() };
        probed.can = Capabilities { requests: Requests::Finished, ..Capabilities::nothing(MISSING) };
        if is_sleeping {
            probed.state = State::Released(Some(Level::Unload));
        } else if let Some(slots) = self.slots(by).await? {
            let busy = slots.iter().filter(|slot| slot.is_processing).count();
            probed.inflight = u32::try_from(busy).ok();
            if !self.fixed.load(Ordering::Relaxed) {
                probed.can.levels = [(Level::Aggressive, Release::CACHES)].into();
            }
        }
        Ok(probed)
    }

    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        let slots = self.slots(by).await?.unwrap_or_default();
        for slot in slots.iter().filter(|slot| !slot.is_processing) {
            let erase = Ask::new(Method::POST, format!("/slots/{}?action=erase", slot.id));
            let answer = self.http.send(&erase, by).await?;
            if answer.absent() {
                self.fixed.store(true, Ordering::Relaxed);
                return Err(WayError::NotOffered(Level::Aggressive));
            }
            answer.ok().map_err(WayError::from)?;
        }
        Ok(())
    }

    /// The next request wakes it, and that is the smoke test.
    async fn restore(&self, _: Option<Release>, _: Instant) -> Result<(), WayError> {
        Ok(())
    }

    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        let answer = self.http.post("/completion", &json!({ "prompt": "OK", "n_predict": 1 }), by).await?;
        if answer.status.is_success() || answer.status.is_server_error() && !answer.absent() {
            return Ok(answer.ok().map(drop)?);
        }
        openai::smoke(&self.http, None, by).await
    }
}
