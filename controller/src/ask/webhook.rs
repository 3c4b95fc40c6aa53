//! Asks by HTTP POST: for programs that have a server already and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_policy::concession::{Gains, Level, Offer, Prospect};
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::ways::Webhook;
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::way::{Answered, Answering, Asking, Way, WayError};
use crate::engines::http::{Auth, Client, Reach};

/// A webhook of one workload.
#[derive(Debug)]
pub(super) struct Posted {
    client: Client,
    /// What is left of the path, which the client has: nothing, or the root.
    path: &'static str,
    workload: WorkloadId,
    levels: Vec<Level>,
    gated: bool,
}

impl Posted {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When the URL can't be used.
    pub(super) fn new(webhook: &Webhook, ask: &Ask, workload: &WorkloadId) -> Result<Self, WayError> {
        let Webhook { url, levels, secret_file, gated } = webhook;
        let client = Client::new("webhook", url, Reach::Networks(ask.addresses.clone()))?;
        let has_path = url.trim_start_matches("http://").trim_end_matches('/').contains('/');
        Ok(Self {
            client: client.with_secret(secret_file.as_deref(), Auth::Bearer),
            path: if has_path { "" } else { "/" },
            workload: workload.clone(),
            levels: levels.clone(),
            gated: *gated,
        })
    }

    async fn post(&self, asking: &Asking) -> Result<Answered, WayError> {
        let by = Instant::now() + asking.deadline;
        let answer = self.client.post(self.path, &request(asking, &self.workload), by).await?.ok()?;
        // Many frameworks answer a page or nothing: success is success, and a claim is worth no error.
        let claimed = serde_json::from_slice::<Claim>(&answer.body).ok();
        Ok(Answered { claimed: claimed.and_then(Claim::gains) })
    }
}

impl Way for Posted {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        Box::pin(std::future::ready(Ok(offer(&self.levels, self.gated))))
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        Box::pin(self.post(asking))
    }
}

/// What the configuration says that can be asked for.
pub(super) fn offer(levels: &[Level], gated: bool) -> Offer {
    let levels = levels.iter().map(|level| (*level, Prospect::default())).collect();
    Offer { levels, gated, ..Offer::default() }
}

/// What webhooks and hooks are told, as one JSON object.
pub(super) fn request(asking: &Asking, workload: &WorkloadId) -> serde_json::Value {
    let Asking { number, level, gpus, wanted, deadline, reason } = asking;
    let gpus: Vec<String> = gpus.iter().map(ToString::to_string).collect();
    json!({
        "request": number,
        "workload": &*workload.path,
        // The word of the control socket.
        "level": if *level == Level::Nothing { "restore" } else { level.name() },
        "gpus": gpus,
        "wanted_bytes": wanted,
        "deadline_ms": whole_ms(*deadline),
        "reason": reason,
    })
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What they may answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Claim {
    /// Bytes of host memory; negative where memory moved there.
    #[serde(default)]
    freed_bytes: Option<i64>,
    /// Bytes of GPUs, by id.
    #[serde(default)]
    freed_gpu_bytes: BTreeMap<GpuId, Bytes>,
    /// Why it could not do it; a hook that says nothing has done it.
    #[serde(default)]
    pub(super) error: Option<String>,
}

impl Claim {
    /// What it claims; `None` where it does not say.
    pub(super) fn gains(self) -> Option<Gains> {
        let Self { freed_bytes, freed_gpu_bytes: gpus, error: _ } = self;
        let says = freed_bytes.is_some() || !gpus.is_empty();
        says.then(|| Gains { host: freed_bytes.unwrap_or(0), gpus })
    }
}
