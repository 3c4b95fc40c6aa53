//! LocalAI: shuts the backend of a model down. One that is busy is left alone: shutting it down would cut its requests off.

use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::http::Client;
use super::openai;
use super::shelf::{Resident, Shelf};
use crate::ask::way::WayError;

/// One server, and the models that are meant: it has no list of what is loaded.
#[derive(Debug)]
pub(super) struct Localai {
    http: Client,
    models: Vec<String>,
}

/// What a backend says of itself.
#[derive(Deserialize)]
struct Backend {
    #[serde(default = "ready")]
    state: i64,
}

/// Where a backend can't be asked, what is told instead is about its process: it is there.
const fn ready() -> i64 {
    2
}

impl Localai {
    pub(super) fn new(http: Client, models: Vec<String>) -> Self {
        Self { http, models }
    }

    /// `None` where it is not loaded.
    async fn state(&self, model: &str, by: Instant) -> Result<Option<i64>, WayError> {
        let model = utf8_percent_encode(model, NON_ALPHANUMERIC);
        let answer = self.http.get(format!("/backend/monitor?model={model}"), by).await?;
        // A model that is not loaded is an error of the server, in words.
        if answer.status == StatusCode::INTERNAL_SERVER_ERROR {
            return Ok(None);
        }
        Ok(Some(answer.json::<Backend>()?.state))
    }
}

impl Shelf for Localai {
    const KIND: &'static str = "localai";

    async fn list(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let mut residents = Vec::new();
        for model in &self.models {
            if let Some(state) = self.state(model, by).await? {
                let inflight = Some(u32::from(state == 1));
                residents.push(Resident { inflight, moving: state == 0, ..Resident::named(model) });
            }
        }
        Ok(residents)
    }

    async fn unload(&self, name: &str, by: Instant) -> Result<(), WayError> {
        if self.state(name, by).await? == Some(1) {
            return Err(WayError::Busy(format!("requests to {name}")));
        }
        Ok(self.http.post("/backend/shutdown", &json!({ "model": name }), by).await?.ok().map(drop)?)
    }

    async fn load(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let answer = self.http.post("/backend/load", &json!({ "model": name }), by).await?;
        // Versions without this call load a model on its first request.
        if answer.absent() {
            openai::smoke(&self.http, Some(name), by).await
        } else {
            Ok(answer.ok().map(drop)?)
        }
    }

    async fn smoke(&self, name: &str, by: Instant) -> Result<(), WayError> {
        openai::smoke(&self.http, Some(name), by).await
    }
}
