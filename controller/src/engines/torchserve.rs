//! TorchServe, at its management address: a model without workers keeps its registration and none of its memory.
//!
//! So nothing has to be known to bring it back, and the model API (off by default) is not needed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::Instant;

use super::Estimate;
use super::http::{Ask, Client, Method};
use super::shelf::{Resident, Shelf};
use crate::ask::way::WayError;

/// One server.
#[derive(Debug)]
pub(super) struct Torchserve {
    http: Client,
    /// Workers that each model had when we last saw it with some.
    workers: Mutex<BTreeMap<String, u32>>,
}

#[derive(Deserialize)]
struct List {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    model_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    #[serde(default)]
    workers: Vec<Worker>,
    job_queue_status: Option<Queue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    #[serde(default)]
    status: String,
    #[serde(default)]
    memory_usage: u64,
    #[serde(default)]
    gpu: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    #[serde(default)]
    pending_requests: u32,
}

impl Torchserve {
    pub(super) fn new(http: Client) -> Self {
        Self { http, workers: Mutex::default() }
    }

    async fn model(&self, name: &str, by: Instant) -> Result<Option<Resident>, WayError> {
        let versions: Vec<Version> = self.http.get(path(name), by).await?.json()?;
        let workers: Vec<&Worker> = versions.iter().flat_map(|version| &version.workers).collect();
        if workers.is_empty() {
            return Ok(None);
        }
        let count = u32::try_from(workers.len()).unwrap_or(u32::MAX);
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), count);
        let pending = |version: &Version| Some(version.job_queue_status.as_ref()?.pending_requests);
        let inflight =
            versions.iter().try_fold(0u32, |sum, version| Some(sum.saturating_add(pending(version)?)));
        let host = workers.iter().map(|worker| worker.memory_usage).fold(0, u64::saturating_add);
        // Of a worker on a GPU it tells what it has on the host only.
        let takes =
            (!workers.iter().any(|worker| worker.gpu) && host > 0).then_some(Estimate { host, gpu: 0 });
        let moving = workers.iter().any(|worker| worker.status != "READY");
        Ok(Some(Resident { inflight, takes, moving, ..Resident::named(name) }))
    }

    async fn scale(&self, name: &str, workers: u32, by: Instant) -> Result<(), WayError> {
        let path = format!("{}?min_worker={workers}&max_worker={workers}&synchronous=true", path(name));
        Ok(self.http.send(&Ask::new(Method::PUT, path), by).await?.ok().map(drop)?)
    }
}

impl Shelf for Torchserve {
    const KIND: &'static str = "torchserve";

    async fn list(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let List { models } = self.http.get("/models?limit=100", by).await?.json()?;
        let mut residents = Vec::new();
        for Entry { model_name } in models {
            residents.extend(self.model(&model_name, by).await?);
        }
        Ok(residents)
    }

    async fn unload(&self, name: &str, by: Instant) -> Result<(), WayError> {
        self.scale(name, 0, by).await
    }

    async fn load(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        self.scale(name, workers.unwrap_or(1).max(1), by).await
    }

    /// Predictions are served at another address, with inputs of every kind: that its workers are ready was seen by loading it.
    async fn smoke(&self, name: &str, by: Instant) -> Result<(), WayError> {
        match self.model(name, by).await? {
            Some(Resident { moving: false, .. }) => Ok(()),
            _ => Err(WayError::Refused(format!("{name} has no worker that is ready"))),
        }
    }
}

fn path(name: &str) -> String {
    format!("/models/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}
