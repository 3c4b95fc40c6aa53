//! Asks a running daemon for its status.

use std::time::Duration;

use axum::http::{Request, Uri, header};
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::status::Status;

/// A daemon that answers later than this is not well: asking is part of finding that out.
const PATIENCE: Duration = Duration::from_secs(5);

/// A thousand workloads take less than a MiB.
const LARGEST: usize = 16 << 20;

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is none, or of another scheme.
    #[error("not a URL of a daemon (expected http://HOST:PORT): {0}")]
    Url(String),
    /// Nobody listens there.
    #[error("no daemon answers at {url}; is `plimsoll run` running, and `daemon.listen` the same address?")]
    Unreachable {
        /// The URL.
        url: String,
        /// What the kernel said.
        #[source]
        error: std::io::Error,
    },
    /// Somebody listens there and does not answer.
    #[error("the daemon at {0} does not answer within 5 s")]
    Silent(String),
    /// What answers is no daemon of ours.
    #[error("what answers at {url} is no plimsoll daemon: {why}")]
    Strange {
        /// The URL.
        url: String,
        /// What was odd.
        why: String,
    },
}

/// Asks for `/status`.
///
/// # Errors
/// When nobody answers there, or somebody else does.
pub async fn status(url: &str) -> Result<Status, ClientError> {
    let (host, port) = parts(url).ok_or_else(|| ClientError::Url(url.into()))?;
    let connect = TcpStream::connect((host.trim_matches(['[', ']']), port));
    let stream = tokio::time::timeout(PATIENCE, connect)
        .await
        .map_err(|_| ClientError::Silent(url.into()))?
        .map_err(|error| ClientError::Unreachable { url: url.into(), error })?;
    let body = tokio::time::timeout(PATIENCE, get(stream, &host))
        .await
        .map_err(|_| ClientError::Silent(url.into()))?
        .map_err(|why| ClientError::Strange { url: url.into(), why })?;
    serde_json::from_slice(&body)
        .map_err(|error| ClientError::Strange { url: url.into(), why: error.to_string() })
}

fn parts(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let known = matches!(uri.scheme_str(), None | Some("http"));
    known.then_some((uri.host()?.to_owned(), uri.port_u16()?))
}

async fn get(stream: TcpStream, host: &str) -> Result<Bytes, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let request = Request::get("/status").header(header::HOST, host).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    // It owns the sender: the connection ends when that is dropped.
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("it says {}", response.status()));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        body.map(Collected::to_bytes).map_err(|error| error.to_string())
    };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
