//! ComfyUI: frees models at the request of `/free`, which it answers before anything is done.
//!
//! Its worker looks at the request after the prompt that it has; so the queue has to be empty first. Models that are unloaded
//! alone go from the GPU to host memory; with the execution cache they go altogether. The next prompt loads them again.

use std::time::Duration;

use plimsoll_policy::concession::Level;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::http::Client;
use super::{Capabilities, Engine, Probed, Release, Request, Requests, State};
use crate::ask::way::WayError;

/// How long its worker may take to come to it.
const SETTLE: Duration = Duration::from_secs(2);

/// How often its own meter is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// One server.
#[derive(Debug)]
pub(super) struct Comfyui(pub(super) Client);

#[derive(Deserialize)]
struct Queue {
    queue_running: Vec<Value>,
    queue_pending: Vec<Value>,
}

#[derive(Deserialize)]
struct Stats {
    #[serde(default)]
    system: System,
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Default, Deserialize)]
struct System {
    comfyui_version: Option<String>,
    #[serde(default)]
    ram_free: u64,
}

#[derive(Deserialize)]
struct Device {
    #[serde(default)]
    vram_free: u64,
}

impl Comfyui {
    async fn queued(&self, by: Instant) -> Result<u32, WayError> {
        let Queue { queue_running, queue_pending } = self.0.get("/queue", by).await?.json()?;
        Ok(u32::try_from(queue_running.len() + queue_pending.len()).unwrap_or(u32::MAX))
    }

    async fn stats(&self, by: Instant) -> Result<Stats, WayError> {
        Ok(self.0.get("/system_stats", by).await?.json()?)
    }
}

impl Engine for Comfyui {
    fn kind(&self) -> &'static str {
        "comfyui"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let version = self.stats(by).await?.system.comfyui_version;
        let inflight = Some(self.queued(by).await?);
        let levels = [(Level::Offload, Release::OFFLOAD), (Level::Unload, Release::UNLOAD)].into();
        let can = Capabilities { levels, requests: Requests::Lost, ..Capabilities::default() };
        Ok(Probed { version, can, state: State::Unknown, inflight, estimate: None })
    }

    async fn release(&self, release: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        let before = self.stats(by).await?;
        let all = release == Release::UNLOAD;
        let body = if all {
            json!({ "unload_models": true, "free_memory": true })
        } else {
            json!({ "unload_models": true })
        };
        self.0.post("/free", &body, by).await?.ok().map_err(WayError::from)?;
        let settled = by.min(Instant::now() + SETTLE);
        while Instant::now() + LOOK < settled {
            sleep(LOOK).await;
            let queued = self.queued(by).await?;
            if queued > 0 {
                return Err(WayError::Busy(format!(
                    "{queued} prompts, of which the next loads the models again"
                )));
            }
            if more_free(&before, &self.stats(by).await?) {
                return Ok(());
            }
        }
        // It may have had nothing to free; whether it had is seen by whoever meters.
        Ok(())
    }

    /// The next prompt loads what it needs.
    async fn restore(&self, _: Option<Release>, _: Instant) -> Result<(), WayError> {
        Ok(())
    }

    /// No prompt fits every installation: that it answers is all that can be seen.
    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        self.stats(by).await.map(drop)
    }
}

/// Whether its own figures show a difference that is not noise.
fn more_free(before: &Stats, after: &Stats) -> bool {
    const NOISE: u64 = 64 << 20;
    let free =
        |stats: &Stats| stats.devices.iter().map(|device| device.vram_free).fold(0, u64::saturating_add);
    free(after) > free(before).saturating_add(NOISE)
        || after.system.ram_free > before.system.ram_free.saturating_add(NOISE)
}
