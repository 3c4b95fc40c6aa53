//! Every engine against a server that speaks its protocol, and every way in which such a server is known to fail.
//!
//! What is expected: the error that says what happened, within the deadline, and nothing released that is not released. What a
//! server only says proves nothing; that is left to the meters, and shown here by those that free nothing.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod faults;
mod others;
mod server;
mod shelves;
mod sleepers;
mod story;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::ask::way::{Answered, Asking, Way, WayError};
use plimsoll::engines;
use plimsoll_policy::concession::Level;
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::engine::{Call, Calls, EngineAt, EngineKind, Method};
use server::{Fault, Protocol, Server, Where};

/// An engine of the table.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) kind: EngineKind,
    pub(crate) protocol: fn(Fault, &Path) -> Box<dyn Protocol>,
    /// The level that it is asked for.
    pub(crate) level: Level,
    /// Whether it says that it is released.
    pub(crate) tells: bool,
    /// Whether there is something to restore.
    pub(crate) restores: bool,
    /// Whether a request that does not end keeps it from releasing.
    pub(crate) waits: bool,
}

const fn entry(kind: EngineKind, protocol: fn(Fault, &Path) -> Box<dyn Protocol>, level: Level) -> Entry {
    Entry { kind, protocol, level, tells: true, restores: true, waits: true }
}

const fn silent(entry: Entry) -> Entry {
    Entry { tells: false, ..entry }
}

/// All of them but kvcached, which is no server.
pub(crate) static TABLE: [Entry; 16] = [
    entry(EngineKind::Vllm, |fault, _| sleepers::Vllm::boxed(fault), Level::Offload),
    entry(EngineKind::Vllm, |fault, _| sleepers::Vllm::old(fault), Level::Unload),
    silent(entry(EngineKind::Sglang, |fault, _| sleepers::Sglang::boxed(fault), Level::Offload)),
    entry(EngineKind::Trtllm, |fault, _| sleepers::Trtllm::boxed(fault), Level::Offload),
    entry(EngineKind::Ray, |fault, _| sleepers::Ray::boxed(fault), Level::Offload),
    entry(EngineKind::Ollama, |fault, _| shelves::ollama(fault), Level::Unload),
    entry(EngineKind::LlamacppRouter, |fault, _| shelves::router(fault), Level::Unload),
    entry(EngineKind::LlamaSwap, |fault, _| shelves::llama_swap(fault), Level::Unload),
    entry(EngineKind::Triton, |fault, _| shelves::triton(fault), Level::Unload),
    entry(EngineKind::Torchserve, |fault, _| shelves::torchserve(fault), Level::Unload),
    entry(EngineKind::Lmstudio, |fault, _| shelves::lmstudio(fault), Level::Unload),
    entry(EngineKind::Localai, |fault, _| shelves::localai(fault), Level::Unload),
    silent(entry(EngineKind::Sdwebui, |fault, _| others::sdwebui(fault), Level::Offload)),
    Entry {
        restores: false,
        ..silent(entry(EngineKind::Comfyui, |fault, _| others::comfyui(fault), Level::Unload))
    },
    Entry {
        waits: false,
        tells: false,
        restores: false,
        ..entry(EngineKind::Llamacpp, |fault, _| others::llamacpp(fault), Level::Aggressive)
    },
    silent(entry(EngineKind::Http, |fault, _| others::own(fault), Level::Unload)),
];

/// Tries all entries at once: servers that hang hang side by side.
pub(crate) async fn each<F: Future<Output = ()> + Send + 'static>(
    entries: impl Iterator<Item = &'static Entry>,
    trial: impl Fn(&'static Entry) -> F,
) {
    let mut trials: tokio::task::JoinSet<()> = entries.map(trial).collect();
    while let Some(ended) = trials.join_next().await {
        ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
}

/// A server of an engine, and the way to it.
pub(crate) struct Tried {
    pub(crate) server: Server,
    pub(crate) way: Arc<dyn Way>,
}

impl Tried {
    pub(crate) async fn new(entry: &Entry, fault: Fault, at: Where) -> Self {
        let server = Server::start((entry.protocol)(fault, Path::new("")), at).await;
        let way = engines::way(&engine_at(entry.kind, &server.url), &Ask::default()).unwrap();
        Self { server, way }
    }

    pub(crate) async fn ask(&self, number: u64, level: Level, deadline: u64) -> Result<Answered, WayError> {
        ask(&*self.way, number, level, deadline).await
    }
}

/// Asks, and holds the way to its deadline.
pub(crate) async fn ask(
    way: &dyn Way,
    number: u64,
    level: Level,
    deadline: u64,
) -> Result<Answered, WayError> {
    let deadline = Duration::from_millis(deadline);
    let asking = Asking { number, level, gpus: Vec::new(), wanted: 0, deadline, reason: "a test".into() };
    let within = deadline + Duration::from_secs(2);
    tokio::time::timeout(within, way.ask(&asking)).await.expect("it hangs beyond its deadline")
}

/// A configuration of an engine of this kind, with everything that it needs.
pub(crate) fn engine_at(kind: EngineKind, url: &str) -> EngineAt {
    let needs = matches!(kind, EngineKind::Ray | EngineKind::Localai | EngineKind::Tfserving);
    EngineAt {
        kind,
        url: url.to_owned(),
        secret_file: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/secret").into()),
        models: if needs { vec!["m".into()] } else { Vec::new() },
        calls: (kind == EngineKind::Http).then(calls),
        ..EngineAt::default()
    }
}

/// The calls of [`others::own`].
fn calls() -> Calls {
    let call = |method, path: &str| Some(Call { method, path: path.into(), ..Call::default() });
    let with = |call: Option<Call>, change: fn(&mut Call)| call.map(|mut call| (change(&mut call), call).1);
    Calls {
        inflight: with(call(Method::Get, "/load"), |call| call.number = Some("/queue/running".into())),
        close: call(Method::Post, "/admin/door?shut"),
        open: call(Method::Post, "/admin/door?open"),
        unload: with(call(Method::Delete, "/admin/drop"), |call| {
            call.headers = vec!["X-Admin: yes".into()];
            call.contains = Some("dropped".into());
        }),
        restore: with(call(Method::Post, "/admin/take"), |call| {
            call.body = Some("{\"what\": \"all\"}".into());
        }),
        smoke: call(Method::Get, "/one"),
        ..Calls::default()
    }
}
