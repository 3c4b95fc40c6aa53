//! Ollama: unloads a model on a request with `keep_alive` 0 and no prompt. With a prompt it would load it first.
//!
//! It answers at once and unloads when the last request is done; `/api/ps` tells when.

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::Estimate;
use super::http::Client;
use super::shelf::{Resident, Shelf};
use crate::ask::way::WayError;

/// One daemon. Its runners are its children and belong to the same workload.
#[derive(Debug)]
pub(super) struct Ollama(pub(super) Client);

#[derive(Deserialize)]
struct Running {
    models: Vec<Runner>,
}

#[derive(Deserialize)]
struct Runner {
    name: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    size_vram: u64,
}

#[derive(Deserialize)]
struct Generated {
    done_reason: Option<String>,
}

impl Shelf for Ollama {
    const KIND: &'static str = "ollama";

    async fn list(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let Running { models } = self.0.get("/api/ps", by).await?.json()?;
        let resident = |Runner { name, size, size_vram }| Resident {
            takes: Some(Estimate { host: size.saturating_sub(size_vram), gpu: size_vram }),
            ..Resident::named(name)
        };
        Ok(models.into_iter().map(resident).collect())
    }

    async fn unload(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let body = json!({ "model": name, "keep_alive": 0, "stream": false });
        let answer = self.0.post("/api/generate", &body, by).await?;
        let Generated { done_reason } = answer.json()?;
        match done_reason.as_deref() {
            // Old versions do not say why they are done.
            Some("unload") | None => Ok(()),
            Some(other) => Err(WayError::Garbled(format!("{name} should unload and says {other:?}"))),
        }
    }

    async fn load(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let answer = self.0.post("/api/generate", &json!({ "model": name, "stream": false }), by).await?;
        // A model that only embeds can't generate; its first embedding loads it.
        if answer.status == hyper::StatusCode::BAD_REQUEST {
            self.embed(name, by).await
        } else {
            Ok(answer.ok().map(drop)?)
        }
    }

    async fn smoke(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let body = json!({ "model": name, "prompt": "OK", "stream": false, "options": { "num_predict": 1 } });
        let answer = self.0.post("/api/generate", &body, by).await?;
        if answer.status == hyper::StatusCode::BAD_REQUEST {
            self.embed(name, by).await
        } else {
            Ok(answer.ok().map(drop)?)
        }
    }

    /// `llama3` means `llama3:latest`.
    fn means(&self, configured: &str, resident: &Resident) -> bool {
        resident.name == configured || resident.name.strip_suffix(":latest") == Some(configured)
    }
}

impl Ollama {
    async fn embed(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let answer = self.0.post("/api/embed", &json!({ "model": name, "input": "OK" }), by).await?;
        Ok(answer.ok().map(drop)?)
    }
}
