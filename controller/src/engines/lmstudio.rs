//! LM Studio: unloads instances, not models: each has an id of its own, and comes back with the settings that it had.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::http::Client;
use super::openai;
use super::shelf::{Resident, Shelf};
use crate::ask::way::WayError;

/// One server.
#[derive(Debug)]
pub(super) struct Lmstudio {
    http: Client,
    /// Model and settings of every instance that was seen.
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    key: String,
    config: Map<String, Value>,
}

#[derive(Deserialize)]
struct List {
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    key: String,
    #[serde(default)]
    loaded_instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    id: String,
    #[serde(default)]
    config: Map<String, Value>,
}

#[derive(Deserialize)]
struct Unloaded {
    instance_id: String,
}

impl Lmstudio {
    pub(super) fn new(http: Client) -> Self {
        Self { http, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for Lmstudio {
    const KIND: &'static str = "lmstudio";

    async fn list(&self, by: Instant) -> Result<Vec<Resident>, WayError> {
        let List { models } = self.http.get("/api/v1/models", by).await?.json()?;
        let mut residents = Vec::new();
        for Model { key, loaded_instances } in models {
            for Instance { id, config } in loaded_instances {
                residents.push(Resident { model: Some(key.clone()), ..Resident::named(id.clone()) });
                self.known().insert(id, Known { key: key.clone(), config });
            }
        }
        Ok(residents)
    }

    async fn unload(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let answer = self.http.post("/api/v1/models/unload", &json!({ "instance_id": name }), by).await?;
        let Unloaded { instance_id } = answer.json()?;
        if instance_id == name {
            Ok(())
        } else {
            Err(WayError::Garbled(format!("{name} should unload, and {instance_id} did")))
        }
    }

    /// By its model: the id of the instance is gone with it, and as a rule the next one has the same.
    async fn load(&self, name: &str, by: Instant) -> Result<(), WayError> {
        let known = self.known().get(name).cloned();
        let known = known.unwrap_or_else(|| Known { key: name.to_owned(), config: Map::new() });
        let mut body = known.config;
        body.insert("model".into(), known.key.into());
        Ok(self.http.post("/api/v1/models/load", &Value::Object(body), by).await?.ok().map(drop)?)
    }

    async fn smoke(&self, name: &str, by: Instant) -> Result<(), WayError> {
        openai::smoke(&self.http, Some(name), by).await
    }
}
