//! Kind `auto`: finds out by what answers at the address which engine that is, and is the way to it from then on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use plimsoll_policy::concession::Offer;
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::engine::{EngineAt, EngineKind};
use serde_json::Value;
use tokio::time::Instant;

use super::build;
use super::http::{Client, Problem};
use crate::ask::way::{Answered, Answering, Asking, Way, WayError};

/// How long finding out may take, of all calls together.
const PATIENCE: Duration = Duration::from_millis(1800);

/// A way that does not know yet where it leads.
#[derive(Debug)]
pub(super) struct AutoWay {
    http: Client,
    at: EngineAt,
    ask: Ask,
    found: OnceLock<Arc<dyn Way>>,
}

/// What gives an engine away: a GET that changes nothing, and a look at the answer.
type Sign = (EngineKind, &'static str, fn(&Value) -> bool);

/// In this order: those whose words others have taken over come after those.
const SIGNS: [Sign; 13] = [
    (EngineKind::LlamaSwap, "/running", |v| v["running"].is_array()),
    (EngineKind::Lmstudio, "/api/v1/models", |v| each(&v["models"], |m| m["loaded_instances"].is_array())),
    (EngineKind::Ollama, "/api/ps", |v| v["models"].is_array()),
    (EngineKind::Comfyui, "/system_stats", |v| v["devices"].is_array() && v["system"].is_object()),
    (EngineKind::Sdwebui, "/sdapi/v1/memory", |v| v["ram"].is_object()),
    (EngineKind::Triton, "/v2", |v| v["name"] == "triton"),
    (EngineKind::Torchserve, "/models", |v| each(&v["models"], |m| m["modelName"].is_string())),
    (EngineKind::LlamacppRouter, "/models", |v| each(&v["data"], |m| m["status"]["value"].is_string())),
    (EngineKind::Llamacpp, "/props", |v| v["default_generation_settings"].is_object()),
    (EngineKind::Sglang, "/server_info", |v| v["model_path"].is_string()),
    (EngineKind::Sglang, "/get_server_info", |v| v["model_path"].is_string()),
    (EngineKind::Vllm, "/is_sleeping", |v| v["is_sleeping"].is_boolean()),
    (EngineKind::Vllm, "/v1/models", |v| each(&v["data"], |m| m["owned_by"] == "vllm")),
];

/// An engine in words, and what gives it away.
type Barren = (&'static str, &'static str, fn(&Value) -> bool);

/// Engines that have nothing to offer, so that it can be said which one it is.
const BARREN: [Barren; 1] = [(
    "a text-generation or text-embeddings server of Hugging Face, which has no call that gives memory back",
    "/info",
    |v| v["model_id"].is_string(),
)];

/// Whether there is a list with something in it, and all of it is so.
fn each(list: &Value, so: fn(&Value) -> bool) -> bool {
    list.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(so))
}

impl AutoWay {
    pub(super) fn new(http: Client, at: EngineAt, ask: Ask) -> Self {
        Self { http, at, ask, found: OnceLock::new() }
    }

    async fn find(&self) -> Result<&Arc<dyn Way>, WayError> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let kind = self.kind(Instant::now() + PATIENCE).await?;
        let way = build::way(&EngineAt { kind, ..self.at.clone() }, &self.ask)?;
        tracing::info!(engine = kind.name(), url = self.at.url, "found out which engine this is");
        Ok(self.found.get_or_init(|| way))
    }

    async fn kind(&self, by: Instant) -> Result<EngineKind, WayError> {
        for (kind, path, sign) in SIGNS {
            if self.shows(path, sign, by).await? {
                return Ok(kind);
            }
        }
        for (what, path, sign) in BARREN {
            if self.shows(path, sign, by).await? {
                return Err(WayError::Misconfigured(format!("`kind: auto` finds {what}")));
            }
        }
        Err(WayError::Misconfigured("`kind: auto` recognises no engine at `url`; say which one it is".into()))
    }

    /// An answer that is none of this engine is no failure; a server that does not answer at all is one.
    async fn shows(&self, path: &str, sign: fn(&Value) -> bool, by: Instant) -> Result<bool, WayError> {
        match self.http.get(path, by).await {
            Ok(answer) => Ok(answer.status.is_success()
                && serde_json::from_slice::<Value>(&answer.body).is_ok_and(|value| sign(&value))),
            Err(error) => match error.problem {
                Problem::Status(..) | Problem::Garbled(_) => Ok(false),
                Problem::Unreachable(_) | Problem::Late(_) | Problem::Misconfigured(_) => Err(error.into()),
            },
        }
    }
}

impl Way for AutoWay {
    fn name(&self) -> &'static str {
        "engine"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        Box::pin(async move { self.find().await?.offer().await })
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        Box::pin(async move {
            let found = tokio::time::timeout(asking.deadline, self.find()).await;
            found.unwrap_or(Err(WayError::Late(asking.deadline)))?.ask(asking).await
        })
    }
}
