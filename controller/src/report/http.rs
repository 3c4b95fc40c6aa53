//! The HTTP side: `/metrics`, `/healthz`, `/readyz`, `/status`, and the keeper of what they show. One thread, apart from
//! everything that protects: a scrape that hangs hangs alone.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use axum::extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use plimsoll_ebpf::Histogram;
use plimsoll_policy::sample::WorkloadId;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::state::State;
use super::status::Status;
use super::{Record, ReportError, metrics};
use crate::kubernetes::PodRef;

/// Passes that may wait for the keeper.
const WAITING: usize = 64;

/// What the keeper writes and a scrape reads. No pass ever locks it.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) const fn new(state: State) -> Self {
        Self(Mutex::new(state))
    }

    /// A panic elsewhere leaves numbers, not broken invariants: they are still worth showing.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the keeper is told.
pub(super) enum News {
    /// A pass was made.
    Pass(Arc<Record>),
    /// Reclaim stalls by cgroup id, cumulative.
    Stalls(BTreeMap<u64, Histogram>),
    /// The pods that workloads are containers of.
    Pods(BTreeMap<WorkloadId, PodRef>),
}

/// The thread, and the way to it.
pub(super) struct Server {
    keeper: Sender<News>,
    shared: Arc<Shared>,
    /// Where it listens: the port is the kernel's choice where 0 was asked for.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests connect to a port of the kernel's choice"))]
    address: Option<SocketAddr>,
}

impl Server {
    /// Takes the address, if there is to be one, and starts the thread: what it keeps is shown on the control socket as well.
    pub(super) fn start(address: Option<SocketAddr>, state: State) -> Result<Self, ReportError> {
        let listener = address.map(bind).transpose()?;
        let (keeper, news) = channel(WAITING);
        let thread = |error| ReportError::Thread { name: "HTTP", error };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(thread)?;
        let shared = Arc::new(Shared::new(state));
        let address = listener.as_ref().map(|(_, address)| *address);
        let serving = serve(listener.map(|(listener, _)| listener), news, Arc::clone(&shared));
        thread::Builder::new()
            .name("plimsoll-http".into())
            .spawn(move || runtime.block_on(serving))
            .map_err(thread)?;
        if let Some(address) = address {
            tracing::info!(%address, "listening for HTTP");
        }
        Ok(Self { keeper, shared, address })
    }

    /// What it keeps.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Shows this from now on. A keeper that is behind will show what comes later: false says that this got lost.
    pub(super) fn show(&self, news: News) -> bool {
        self.keeper.try_send(news).is_ok()
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ReportError> {
    let listen = |error| ReportError::Listen { address, error };
    let listener = TcpListener::bind(address).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    Ok((listener, address))
}

/// Until the reporter is gone.
async fn serve(listener: Option<TcpListener>, mut news: Receiver<News>, shared: Arc<Shared>) {
    let routes = routes(Arc::clone(&shared));
    let keep = async {
        while let Some(news) = news.recv().await {
            match news {
                News::Pass(record) => shared.lock().apply(record),
                News::Stalls(stalls) => shared.lock().stalls = stalls,
                News::Pods(pods) => shared.lock().pods = pods,
            }
        }
    };
    let Some(listener) = listener else { return keep.await };
    let answer = async { axum::serve(tokio::net::TcpListener::from_std(listener)?, routes).await };
    tokio::pin!(keep);
    tokio::select! {
        () = &mut keep => return,
        ended = answer => tracing::error!(error = ?ended.err(), "HTTP has ended; metrics and status are gone from it"),
    }
    keep.await;
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .with_state(shared)
}

async fn metrics_text(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    match metrics::text(&shared) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response(),
    }
}

/// Alive: passes follow each other, or the first one may still come.
async fn health(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    let state = shared.lock();
    if state.last.is_none() || state.fresh() { answer(StatusCode::OK, "ok\n") } else { stuck() }
}

/// Ready: it protects. The first pass is done, and the last one is recent and saw the memory.
async fn ready(extract::State(shared): extract::State<Arc<Shared>>) -> Response {
    let state = shared.lock();
    let saw = state.last.as_ref().map(|(_, record)| record.sample.host.meminfo.is_some());
    match (saw, state.fresh()) {
        (None, _) => answer(StatusCode::SERVICE_UNAVAILABLE, "the first pass is not done yet\n"),
        (Some(_), false) => stuck(),
        (Some(false), true) => answer(StatusCode::SERVICE_UNAVAILABLE, "/proc/meminfo can't be read\n"),
        (Some(true), true) => answer(StatusCode::OK, "ok\n"),
    }
}

async fn status(extract::State(shared): extract::State<Arc<Shared>>) -> Json<Status> {
    Json(Status::from(&*shared.lock()))
}

fn stuck() -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, "the control loop has stopped making progress\n")
}

fn answer(code: StatusCode, sentence: &'static str) -> Response {
    (code, sentence).into_response()
}

#[cfg(test)]
mod tests;
