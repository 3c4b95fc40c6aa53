//! Engines: the servers that models run in, each spoken to in its own words behind one contract.
//!
//! An adapter says what its engine can do, as the engine behaves and not as its version promises, and does it. When, for how long
//! and in which order is the matter of [`way::EngineWay`], which every engine is asked through; whether memory came back is
//! measured by whoever asks.

mod address;
mod auto;
mod build;
mod comfyui;
mod generic;
pub mod http;
mod kvcached;
mod llama_swap;
mod llamacpp;
mod llamacpp_router;
mod lmstudio;
mod localai;
mod ollama;
mod openai;
mod ray_serve;
mod samples;
mod sdwebui;
mod secret;
mod sglang;
mod shelf;
mod tfserving;
mod torchserve;
mod triton;
mod trtllm;
mod vllm;
pub mod way;

pub use build::way;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

use plimsoll_policy::concession::Level;
use tokio::time::Instant;

use crate::ask::way::WayError;

/// An engine as the way to it sees it. Every call ends by `by`, whatever the server does.
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// The word for it, as in the configuration.
    fn kind(&self) -> &'static str;

    /// Looks what is there and what it can do. Changes nothing and costs the engine next to nothing.
    fn probe(&self, by: Instant) -> impl Future<Output = Result<Probed, WayError>> + Send;

    /// Gives memory back. Has to be harmless where it has been given back already.
    fn release(
        &self,
        release: Release,
        request: &Request,
        by: Instant,
    ) -> impl Future<Output = Result<(), WayError>> + Send;

    /// Takes back what was released; `None` where nobody remembers what that was. Has to be harmless where nothing was.
    fn restore(
        &self,
        released: Option<Release>,
        by: Instant,
    ) -> impl Future<Output = Result<(), WayError>> + Send;

    /// Holds requests off, or lets them in again.
    fn gate(&self, gate: Gate, by: Instant) -> impl Future<Output = Result<(), WayError>> + Send {
        let (_, _) = (gate, by);
        async { Ok(()) }
    }

    /// A small request that only an engine that serves can answer.
    fn smoke(&self, by: Instant) -> impl Future<Output = Result<(), WayError>> + Send;

    /// Asks the engine to end itself. Those that have no such call are ended by whoever started them.
    fn stop(&self, by: Instant) -> impl Future<Output = Result<(), WayError>> + Send {
        let _ = by;
        async { Err(WayError::Refused(format!("{} has no call that ends it", self.kind()))) }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Its version, for people; nothing depends on it.
    pub version: Option<String>,
    /// What it can do now.
    pub can: Capabilities,
    /// The state that it says it is in.
    pub state: State,
    /// Requests that it serves or has waiting; `None` where it does not say.
    pub inflight: Option<u32>,
    /// What letting go of everything would bring, where it says.
    pub estimate: Option<Estimate>,
}

/// What an engine can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Which levels can be asked for, and what each of them releases.
    pub levels: BTreeMap<Level, Release>,
    /// Whether requests can be held off.
    pub door: Door,
    /// What becomes of requests that are being served while memory is released.
    pub requests: Requests,
    /// Why it can do less than it could, and how to change that.
    pub missing: Option<String>,
}

impl Capabilities {
    /// One level and what it releases.
    #[must_use]
    pub fn one(level: Level, release: Release) -> Self {
        Self { levels: BTreeMap::from([(level, release)]), ..Self::default() }
    }

    /// Nothing, and why.
    #[must_use]
    pub fn nothing(why: impl Into<String>) -> Self {
        Self { missing: Some(why.into()), ..Self::default() }
    }
}

/// Which memory, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which memory.
    pub target: Target,
    /// Where to.
    pub mode: Mode,
}

impl Release {
    /// Everything, and it has to be loaded again.
    pub const UNLOAD: Self = Self { target: Target::All, mode: Mode::Discard };
    /// Everything; the weights go to host memory.
    pub const OFFLOAD: Self = Self { target: Target::All, mode: Mode::ToHost };
    /// What caches hold that is not in use.
    pub const CACHES: Self = Self { target: Target::Kv, mode: Mode::Discard };
}

/// Which memory of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// KV cache and what else fills again by itself.
    Kv,
    /// The weights.
    Weights,
    /// Both.
    All,
}

/// Where memory goes that is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To host memory.
    ToHost,
    /// Nowhere: it is computed or loaded again.
    Discard,
}

/// The door of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Requests wait or are refused.
    Closed,
    /// Requests are served.
    Open,
}

/// Whether an engine can hold requests off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// It can't: the next request may undo what was released.
    #[default]
    None,
    /// By [`Engine::gate`], which also finishes the requests that it has.
    Gate,
    /// Releasing closes it and restoring opens it.
    Own,
}

/// What becomes of requests that are being served while memory is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requests {
    /// They would be cut off, or the engine would fail: it has to be idle first.
    #[default]
    Lost,
    /// The engine finishes them first, or refuses.
    Finished,
}

/// What an engine is doing with its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It does not say.
    #[default]
    Unknown,
    /// It serves.
    Active,
    /// Requests are held off; those that it has are finished.
    Draining,
    /// Memory is being released.
    Releasing,
    /// Memory is released, up to this level; `None` where it does not say how far.
    Released(Option<Level>),
    /// Some of it is: other models are still loaded.
    Partial,
    /// Memory is being taken back.
    Restoring,
    /// It says that it failed.
    Failed,
}

/// Bytes that an engine says it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Of host memory.
    pub host: u64,
    /// Of GPU memory, wherever.
    pub gpu: u64,
}

/// What else is known about an asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Bytes that are wanted; 0 = as many as possible.
    pub wanted: u64,
    /// Whether a GPU is short, and not the host.
    pub gpu: bool,
}
