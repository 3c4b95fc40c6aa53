//! From the configuration of an engine to the way to it.

use std::sync::Arc;

use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::engine::{EngineAt, EngineKind};

use super::Engine;
use super::auto::AutoWay;
use super::comfyui::Comfyui;
use super::generic::Generic;
use super::http::{Auth, Client, Reach};
use super::kvcached::Kvcached;
use super::llama_swap::LlamaSwap;
use super::llamacpp::Llamacpp;
use super::llamacpp_router::LlamacppRouter;
use super::lmstudio::Lmstudio;
use super::localai::Localai;
use super::ollama::Ollama;
use super::ray_serve::RayServe;
use super::sdwebui::Sdwebui;
use super::sglang::Sglang;
use super::shelf::{Shelf, Shelved};
use super::tfserving::Tfserving;
use super::torchserve::Torchserve;
use super::triton::Triton;
use super::trtllm::Trtllm;
use super::vllm::Vllm;
use super::way::EngineWay;
use crate::ask::way::{Way, WayError};

/// The way to the engine that is configured. Connects to nothing yet.
///
/// # Errors
/// When its configuration can't work, in words that name the key.
pub fn way(at: &EngineAt, ask: &Ask) -> Result<Arc<dyn Way>, WayError> {
    let http = || client(at, ask);
    let model = at.models.first().cloned();
    Ok(match at.kind {
        EngineKind::Auto => Arc::new(AutoWay::new(http()?, at.clone(), ask.clone())),
        EngineKind::Vllm => engine(Vllm::new(http()?, model), ask),
        EngineKind::Sglang => engine(Sglang::new(http()?, model), ask),
        EngineKind::Trtllm => engine(Trtllm::new(http()?, model), ask),
        EngineKind::Ollama => shelf(Ollama(http()?), at, ask),
        EngineKind::Llamacpp => engine(Llamacpp::new(http()?), ask),
        EngineKind::LlamacppRouter => shelf(LlamacppRouter(http()?), at, ask),
        EngineKind::LlamaSwap => shelf(LlamaSwap(http()?), at, ask),
        EngineKind::Triton => shelf(Triton::new(http()?), at, ask),
        EngineKind::Tfserving => engine(Tfserving::new(http()?, at)?, ask),
        EngineKind::Torchserve => shelf(Torchserve::new(http()?), at, ask),
        EngineKind::Lmstudio => shelf(Lmstudio::new(http()?), at, ask),
        EngineKind::Localai => shelf(Localai::new(http()?, at.models.clone()), at, ask),
        EngineKind::Comfyui => engine(Comfyui(http()?), ask),
        EngineKind::Sdwebui => engine(Sdwebui(http()?), ask),
        EngineKind::Ray => engine(RayServe::new(http()?, at.models.clone()), ask),
        EngineKind::Kvcached => engine(Kvcached::new(at)?, ask),
        EngineKind::Http => engine(Generic::new(http()?, at)?, ask),
    })
}

fn client(at: &EngineAt, ask: &Ask) -> Result<Client, WayError> {
    let auth = match at.kind {
        EngineKind::Sdwebui => Auth::Basic,
        EngineKind::Trtllm => Auth::Signed,
        _ => Auth::Bearer,
    };
    let reach = at.only.map_or_else(|| Reach::Networks(ask.addresses.clone()), Reach::Only);
    let client = Client::new(at.kind.name(), &at.url, reach)?;
    Ok(client.with_secret(at.secret_file.as_deref(), auth))
}

fn engine(engine: impl Engine, ask: &Ask) -> Arc<dyn Way> {
    Arc::new(EngineWay::new(engine, ask.drain))
}

fn shelf(shelf: impl Shelf, at: &EngineAt, ask: &Ask) -> Arc<dyn Way> {
    engine(Shelved::new(shelf, at.models.clone()), ask)
}
