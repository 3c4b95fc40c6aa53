//! Triton: unloads and loads models where it was started with `--model-control-mode=explicit`, and refuses otherwise.
//!
//! It answers an unload before it is done: requests that it has are finished first, and the index tells when.

use std::sync::atomic::{AtomicBool, Ordering};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::http::Client;
use super::shelf::{Resident, Shelf};
use crate::ask::way::WayError;

const MISSING: &str = "it may not unload: start it with --model-control-mode=explicit and --load-model=NAME";

/// One server.
#[derive(Debug)]
pub(super) struct Triton {
    http: Client,
    /// It has said that its models are not to be controlled.
    fixed: AtomicBool,
}

#[derive(Deserialize)]
struct Model {
    name: String,
    #[serde(default)]
    state: String,
}

impl Triton {
    pub(super) fn new(http: Client) -> Self {
        Self { http, fixed: AtomicBool::new(false) }
    }

    async fn control(&self, name: &str, verb: &str, by: Instant) -> Result<(), WayError> {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let answer = self.http.post(format!("/v2/repository/models/{name}/{verb}"), &json!({}), by).await?;
        // A 400 or a 503, by what forbids it.
        if !answer.status.is_success() && String::from_utf8_lossy(&answer.body).contains("not allowed") {
            self.fixed.store(true, Ordering::Relaxed);
        }
        Ok(answer.ok().map(drop)?)
    }
}

impl Shelf for Triton {
    const KIND: &'static str = "triton";

    async fn list(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let answer = self.http.post("/v2/repository/index", &json!({}), by).await?;
        let models: Vec<Model> = answer.json()?;
        // Entries of a model that never was loaded have no state.
        let there = models
            .into_iter()
            .filter(|model| matches!(model.state.as_str(), "READY" | "LOADING" | "UNLOADING"));
        let resident = |Model { name, state }| Resident { moving: state != "READY", ..Resident::named(name) };
        Ok(there.map(resident).collect())
    }

    async fn unload(&self, name: &str, by: Instant) -> Result<(), WayError> {
        self.control(name, "unload", by).await
    }

    async fn load(&self, name: &str, by: Instant) -> Result<(), WayError> {
        self.control(name, "load", by).await
    }

    /// Its models have inputs of every kind: that one is ready is all that can be asked of each.
    async fn smoke(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        Ok(self.http.get(format!("/v2/models/{name}/ready"), by).await?.ok().map(drop)?)
    }

    fn missing(&self) -> Option<String> {
        self.fixed.load(Ordering::Relaxed).then(|| MISSING.to_owned())
    }
}
