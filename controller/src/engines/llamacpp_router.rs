//! llama.cpp's server as a router: every model is a child process, and ending it frees all that it has.
//!
//! A child that sleeps keeps its context on the GPU, so it counts as loaded. One that does not end within its `stop-timeout`
//! is killed by the router, with the requests that it has.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::http::Client;
use super::openai;
use super::shelf::{Resident, Shelf};
use crate::ask::way::WayError;

/// One router.
#[derive(Debug)]
pub(super) struct LlamacppRouter(pub(super) Client);

#[derive(Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    value: String,
    #[serde(default)]
    failed: bool,
    exit_code: Option<i64>,
}

#[derive(Deserialize)]
struct Done {
    success: bool,
}

impl LlamacppRouter {
    async fn models(&self, by: Instant) -> Result<Vec<(String, Status)>, WayError> {
        let List { data } = self.0.get("/models", by).await?.json()?;
        let single = || {
            WayError::Misconfigured("its models have no status: it is no router, but kind llamacpp".into())
        };
        data.into_iter().map(|Model { id, status }| Ok((id, status.ok_or_else(single)?))).collect()
    }

    async fn post(&self, path: &str, name: &str, by: Instant) -> Result<(), WayError> {
        let answer = self.0.post(path, &json!({ "model": name }), by).await?;
        let reply: Value = answer.json()?;
        match serde_json::from_value(reply) {
            Ok(Done { success: true }) => Ok(()),
            Ok(Done { success: false }) => Err(WayError::Refused(format!("{path} of {name} had no success"))),
            Err(error) => Err(WayError::Garbled(format!("{path}: {error}"))),
        }
    }
}

impl Shelf for LlamacppRouter {
    const KIND: &'static str = "llamacpp-router";

    async fn list(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let models = self.models(by).await?.into_iter();
        let resident = |(id, status): (String, Status)| match status.value.as_str() {
            "unloaded" | "downloading" => None,
            value => Some(Resident { moving: value == "loading", ..Resident::named(id) }),
        };
        Ok(models.filter_map(resident).collect())
    }

    async fn unload(&self, name: &str, by: Instant) -> Result<(), WayError> {
        self.post("/models/unload", name, by).await
    }

    async fn load(&self, name: &str, by: Instant) -> Result<(), WayError> {
        self.post("/models/load", name, by).await?;
        let failed = |(id, status): &(String, Status)| id == name && status.failed;
        match self.models(by).await?.iter().find(|model| failed(model)) {
            None => Ok(()),
            Some((_, status)) => {
                let code = status.exit_code.map_or_else(|| "unknown".into(), |code| code.to_string());
                Err(WayError::Refused(format!("{name} could not be loaded, exit code {code}")))
            }
        }
    }

    async fn smoke(&self, name: &str, by: Instant) -> Result<(), WayError> {
        openai::smoke(&self.0, Some(name), by).await
    }
}
