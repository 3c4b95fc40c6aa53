//! A server on a real socket that speaks an engine's protocol, with the ways in which servers fail.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::Value;
use tokio::net::TcpListener;

/// Bytes that a loaded model takes.
pub(crate) const FULL: u64 = 1000;

/// How a server fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not at all.
    #[default]
    None,
    /// It answers 200 and keeps all its memory.
    FreesNothing,
    /// It accepts the connection and never answers.
    Hangs,
    /// It was started without what it takes: 404.
    Absent,
    /// The same, as 501.
    NotImplemented,
    /// It has a request that does not end.
    Busy,
    /// It answers with half of a JSON document.
    Garbled,
    /// It answers with something that is no HTTP answer of this kind: JSON of another form.
    OtherForm,
    /// It sends the client elsewhere.
    Redirects,
    /// It wants another secret.
    WrongSecret,
    /// It closes the connection in the middle of its answer.
    Reset,
    /// It fails inside.
    Fails,
    /// It says what it should, with some bytes changed or missing; the number says which.
    Mangles(u32),
}

/// A request as a protocol sees it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) raw: Bytes,
    /// Null where the body is no JSON.
    pub(crate) body: Value,
}

/// What a protocol answers.
pub(crate) struct Reply(pub(crate) u16, pub(crate) String);

impl Reply {
    pub(crate) fn ok(value: &Value) -> Self {
        Self(200, value.to_string())
    }

    pub(crate) fn empty() -> Self {
        Self(200, String::new())
    }

    pub(crate) fn no(status: u16, why: &str) -> Self {
        Self(status, serde_json::json!({ "error": why }).to_string())
    }

    pub(crate) fn absent() -> Self {
        Self::no(404, "Not Found")
    }
}

/// What a server has of memory and requests, whichever engine it is.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// What it really takes up.
    pub(crate) bytes: u64,
    /// How it fails.
    pub(crate) fault: Fault,
    /// Requests that do not end.
    pub(crate) inflight: u32,
    /// What was asked of it, without what was only looked at.
    pub(crate) said: Vec<String>,
}

impl World {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { bytes: FULL, fault, inflight: u32::from(fault == Fault::Busy), said: Vec::new() }
    }

    /// Lets go of memory, unless it is one of those that only say so.
    pub(crate) fn free(&mut self) {
        if self.fault != Fault::FreesNothing {
            self.bytes = 0;
        }
    }
}

/// The protocol of an engine.
pub(crate) trait Protocol: Send {
    fn world(&mut self) -> &mut World;
    fn handle(&mut self, asked: &Asked) -> Reply;
    /// Whether this is the call that releases: faults of the release only hit here.
    fn releases(&self, asked: &Asked) -> bool;
}

/// Which calls a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Everywhere,
    AtRelease,
}

type Shared = Arc<(Mutex<Box<dyn Protocol>>, Where)>;

/// A server that ends with the test.
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Shared,
}

impl Server {
    pub(crate) async fn start(protocol: Box<dyn Protocol>, at: Where) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared: Shared = Arc::new((Mutex::new(protocol), at));
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, shared }
    }

    pub(crate) fn protocol(&self) -> MutexGuard<'_, Box<dyn Protocol>> {
        self.shared.0.lock().unwrap()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.protocol().world().bytes
    }

    pub(crate) fn said(&self) -> Vec<String> {
        self.protocol().world().said.clone()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let raw = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let asked = Asked {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: serde_json::from_slice(&raw).unwrap_or_default(),
        raw,
    };
    let (fault, hit) = {
        let mut protocol = shared.0.lock().unwrap();
        let hit = shared.1 == Where::Everywhere || protocol.releases(&asked);
        let world = protocol.world();
        if asked.method != Method::GET {
            let query = if asked.query.is_empty() { String::new() } else { format!("?{}", asked.query) };
            world.said.push(format!("{} {}{query}", asked.method, asked.path));
        }
        (world.fault, hit)
    };
    if hit && let Some(response) = failing(fault).await {
        return response;
    }
    let Reply(status, text) = shared.0.lock().unwrap().handle(&asked);
    let text = match fault {
        Fault::Mangles(seed) => mangled(text.into_bytes(), seed),
        _ => text.into_bytes(),
    };
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "application/json")], text)
        .into_response()
}

/// Changes a few bytes of an answer, or cuts it: the same for the same seed and length.
fn mangled(mut text: Vec<u8>, seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ text.len() as u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    if next(3) == 0 {
        text.truncate(next(text.len()));
    }
    for _ in 0..next(4) {
        let (at, what) = (next(text.len()), next(16));
        if let Some(byte) = text.get_mut(at) {
            *byte = b"{}[]\":,-019e\0\xff\\tn"[what];
        }
    }
    text
}

async fn failing(fault: Fault) -> Option<Response> {
    Some(match fault {
        Fault::None | Fault::FreesNothing | Fault::Busy | Fault::Mangles(_) => return None,
        Fault::Hangs => std::future::pending().await,
        Fault::Absent => StatusCode::NOT_FOUND.into_response(),
        Fault::NotImplemented => StatusCode::NOT_IMPLEMENTED.into_response(),
        Fault::Fails => (StatusCode::INTERNAL_SERVER_ERROR, "out of memory").into_response(),
        Fault::Garbled => "{\"models\": [{\"na".into_response(),
        Fault::OtherForm => "[[[1]]]".into_response(),
        Fault::WrongSecret => StatusCode::UNAUTHORIZED.into_response(),
        // Where it leads to would even answer.
        Fault::Redirects => {
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]).into_response()
        }
        Fault::Reset => Body::new(Broken(false)).into_response(),
    })
}

/// A body that breaks off.
struct Broken(bool);

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let begun = std::mem::replace(&mut self.0, true);
        let half = Frame::data(Bytes::from_static(b"{\"models\": ["));
        Poll::Ready(Some(if begun { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok(half) }))
    }
}
