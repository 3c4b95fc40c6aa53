//! llama-swap: a proxy that starts and stops one process per model; a request to a model starts it.
//!
//! It stops a process that does not end within `unloadTimeout` by force. Models that it does not know answer 404.

use hyper::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::http::{Ask, Client, Method};
use super::openai;
use super::shelf::{Resident, Shelf};
use crate::ask::way::WayError;

/// One proxy.
#[derive(Debug)]
pub(super) struct LlamaSwap(pub(super) Client);

#[derive(Deserialize)]
struct Running {
    running: Vec<Process>,
}

#[derive(Deserialize)]
struct Process {
    model: String,
    #[serde(default)]
    state: String,
}

impl Shelf for LlamaSwap {
    const KIND: &'static str = "llama-swap";

    async fn list(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let Running { running } = self.0.get("/running", by).await?.json()?;
        let there =
            running.into_iter().filter(|process| !matches!(process.state.as_str(), "stopped" | "shutdown"));
        let resident =
            |Process { model, state }| Resident { moving: state != "ready", ..Resident::named(model) };
        Ok(there.map(resident).collect())
    }

    async fn unload(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let path = format!("/api/models/unload/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        let answer = self.0.send(&Ask::new(Method::POST, path), by).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(WayError::Misconfigured(format!(
                "`models` has {name:?}, which llama-swap can't unload"
            )));
        }
        Ok(answer.ok().map(drop)?)
    }

    /// A request is what loads a model.
    async fn load(&self, name: &str, by: Instant) -> Result<(), WayError> {
        openai::smoke(&self.0, Some(name), by).await
    }

    /// Loading was one.
    async fn smoke(&self, _: &str, _: Instant) -> Result<(), WayError> {
        Ok(())
    }
}
