//! SGLang: releases KV cache and weights through torch_memory_saver, when it is idle and only then.
//!
//! Its scheduler asserts that nothing is running and takes the whole server down otherwise, so idleness is shown twice: by its
//! load, and by a flush of the cache, which it refuses while requests are pending. Without `--enable-memory-saver` every call
//! answers 200 and frees nothing. Without `--enable-weights-cpu-backup` the weights come back as garbage and are loaded again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_policy::concession::Level;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::http::{Ask, Client, Method};
use super::{Capabilities, Door, Engine, Probed, Release, Request, Requests, State, openai};
use crate::ask::way::WayError;

/// How long one that may be paused is given to show that it is not.
const TRIAL: Duration = Duration::from_secs(2);

/// One server.
#[derive(Debug)]
pub(super) struct Sglang {
    http: Client,
    model: Option<String>,
    /// Whether we told it to release: it fails when it is told to resume what it has.
    released: AtomicBool,
}

/// What it was started with.
#[derive(Debug, Deserialize)]
struct Info {
    #[serde(default)]
    enable_memory_saver: bool,
    #[serde(default)]
    enable_weights_cpu_backup: bool,
    model_path: String,
    version: Option<String>,
}

impl Sglang {
    pub(super) fn new(http: Client, model: Option<String>) -> Self {
        Self { http, model, released: AtomicBool::new(false) }
    }

    async fn info(&self, by: Instant) -> Result<Info, WayError> {
        let answer = self.http.get("/server_info", by).await?;
        // The older name.
        let answer = if answer.absent() { self.http.get("/get_server_info", by).await? } else { answer };
        Ok(answer.json()?)
    }

    async fn inflight(&self, by: Instant) -> Result<Option<u32>, WayError> {
        for path in ["/v1/loads", "/get_load"] {
            let answer = self.http.get(path, by).await?;
            if !answer.absent() {
                return Ok(load(&answer.json::<Value>()?));
            }
        }
        Ok(None)
    }

    async fn post(&self, path: &str, body: &Value, by: Instant) -> Result<(), WayError> {
        Ok(self.http.post(path, body, by).await?.ok().map(drop)?)
    }

    async fn resume(&self, reload: bool, by: Instant) -> Result<(), WayError> {
        self.post("/resume_memory_occupation", &json!({ "tags": ["weights"] }), by).await?;
        if reload {
            let path = self.info(by).await?.model_path;
            self.post("/update_weights_from_disk", &json!({ "model_path": path }), by).await?;
        }
        self.post("/resume_memory_occupation", &json!({ "tags": ["kv_cache"] }), by).await?;
        self.released.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn go_on(&self, by: Instant) -> Result<(), WayError> {
        let answer = self.http.post("/continue_generation", &json!({}), by).await?;
        if answer.absent() { Ok(()) } else { Ok(answer.ok().map(drop)?) }
    }

    /// Idle, with the door closed. Closing it aborts what slipped in since the drain, and says so to those clients.
    async fn still(&self, by: Instant) -> Result<(), WayError> {
        let paused = self.http.post("/pause_generation", &json!({ "mode": "abort" }), by).await?;
        if !paused.absent() {
            paused.ok().map_err(WayError::from)?;
        }
        let flushed = self.http.send(&Ask::new(Method::POST, "/flush_cache"), by).await?;
        if flushed.status.is_success() { Ok(()) } else { Err(WayError::Busy("pending requests".into())) }
    }
}

impl Engine for Sglang {
    fn kind(&self) -> &'static str {
        "sglang"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let info = self.info(by).await?;
        let inflight = self.inflight(by).await?;
        let can = capabilities(&info);
        Ok(Probed { version: info.version, can, state: State::Unknown, inflight, estimate: None })
    }

    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        if self.released.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Err(error) = self.still(by).await {
            self.go_on(by).await?;
            return Err(error);
        }
        self.released.store(true, Ordering::Relaxed);
        let tags = json!({ "tags": ["kv_cache", "weights"] });
        let answer = self.http.post("/release_memory_occupation", &tags, by).await?;
        if answer.status.is_client_error() {
            // It refused before it did anything.
            self.released.store(false, Ordering::Relaxed);
            self.go_on(by).await?;
        }
        Ok(answer.ok().map(drop)?)
    }

    async fn restore(&self, released: Option<Release>, by: Instant) -> Result<(), WayError> {
        let ours = self.released.load(Ordering::Relaxed);
        if !ours && released.is_some() {
            return self.go_on(by).await;
        }
        // One that serves has released nothing; one that was released by our predecessor is paused and keeps silent.
        if !ours && self.smoke(by.min(Instant::now() + TRIAL)).await.is_ok() {
            return Ok(());
        }
        let reload = !self.info(by).await?.enable_weights_cpu_backup;
        self.resume(reload, by).await?;
        self.go_on(by).await
    }

    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        openai::smoke(&self.http, self.model.as_deref(), by).await
    }
}

fn capabilities(info: &Info) -> Capabilities {
    if !info.enable_memory_saver {
        return Capabilities::nothing(
            "it would answer and free nothing: start it with --enable-memory-saver",
        );
    }
    let (levels, missing) = if info.enable_weights_cpu_backup {
        ([(Level::Offload, Release::OFFLOAD)].into(), None)
    } else {
        let missing = "no offload to host memory, only unload: start it with --enable-weights-cpu-backup";
        ([(Level::Unload, Release::UNLOAD)].into(), Some(missing.to_owned()))
    };
    Capabilities { levels, door: Door::Own, requests: Requests::Lost, missing }
}

/// Requests in a reply of either form: a list with one entry for each rank, or that list below `loads`.
fn load(reply: &Value) -> Option<u32> {
    let ranks = reply.as_array().or_else(|| reply.get("loads")?.as_array())?;
    let mut each = ranks.iter().map(|rank| {
        let number = |key: &str| rank.get(key).and_then(Value::as_u64);
        let all = number("num_reqs").or_else(|| {
            Some(number("num_running_reqs")?.saturating_add(number("num_waiting_reqs").unwrap_or(0)))
        });
        all.map(|all| u32::try_from(all).unwrap_or(u32::MAX))
    });
    each.try_fold(0u32, |sum, rank| Some(sum.saturating_add(rank?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_both_forms_are_read() {
        assert_eq!(
            load(&json!([{ "dp_rank": 0, "num_reqs": 2, "num_waiting_reqs": 1 }, { "num_reqs": 1 }])),
            Some(3)
        );
        assert_eq!(load(&json!({ "loads": [{ "num_running_reqs": 1, "num_waiting_reqs": 4 }] })), Some(5));
        assert_eq!(load(&json!([{ "dp_rank": 0 }])), None);
        assert_eq!(load(&json!("busy")), None);
    }
}
