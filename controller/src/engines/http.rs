//! A careful HTTP client: one request per connection, a deadline for each, no redirects, bounded answers, allowed addresses only.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

pub use super::address::Reach;
use super::address::{Address, Stream};
use super::secret::SecretFile;
use crate::ask::way::WayError;

pub use hyper::Method;

/// Metrics of an engine, or the queue of ComfyUI with its workflows, take some MiB.
const LARGEST: usize = 8 << 20;

/// How much of an error's text is repeated.
const SHOWN: usize = 200;

/// How a secret is presented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer ...`.
    #[default]
    Bearer,
    /// `Authorization: Basic ...`; the file holds `user:password`.
    Basic,
    /// Not by the client: whoever calls signs.
    Signed,
}

/// Speaks to one server.
#[derive(Debug)]
pub struct Client {
    /// Who it is, for errors.
    who: String,
    address: Address,
    secret: Option<SecretFile>,
    auth: Auth,
}

/// What is asked of a server.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How.
    pub method: Method,
    /// Path and query, below the prefix of the address.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; empty = none.
    pub body: Vec<u8>,
}

impl Ask {
    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A POST of JSON.
    #[must_use]
    pub fn json(path: impl Into<String>, body: &serde_json::Value) -> Self {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { headers: vec![json], body: body.to_string().into_bytes(), ..Self::new(Method::POST, path) }
    }
}

/// What a server answered, of whatever status but a redirect.
#[derive(Debug)]
pub struct Answer {
    call: String,
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// A request that came to nothing: who was asked for what, and why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {problem}")]
pub struct CallError {
    /// The engine, the method and the path.
    pub call: String,
    /// Why.
    pub problem: Problem,
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nobody there, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// Another status than was hoped for.
    #[error("{0}{1}")]
    Status(StatusCode, String),
    /// What answers is no such server.
    #[error("{0}")]
    Garbled(String),
    /// Key, address or secret can't be used.
    #[error("{0}")]
    Misconfigured(String),
}

impl Client {
    /// A client of the server at `url`.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn new(who: &str, url: &str, reach: Reach) -> Result<Self, WayError> {
        let address = Address::parse(url, reach).map_err(WayError::Misconfigured)?;
        Ok(Self { who: who.to_owned(), address, secret: None, auth: Auth::default() })
    }

    /// Presents the secret of this file with every request.
    #[must_use]
    pub fn with_secret(mut self, file: Option<&str>, auth: Auth) -> Self {
        self.secret = file.map(SecretFile::new);
        self.auth = auth;
        self
    }

    /// Asks without a body.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn get(&self, path: impl Into<String>, by: Instant) -> Result<Answer, CallError> {
        self.send(&Ask::new(Method::GET, path), by).await
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn post(
        &self,
        path: impl Into<String>,
        body: &serde_json::Value,
        by: Instant,
    ) -> Result<Answer, CallError> {
        self.send(&Ask::json(path, body), by).await
    }

    /// Asks and waits for the whole answer, until `by`.
    ///
    /// # Errors
    /// When there is no answer in time, or it is a redirect or too long. Every other status is an answer.
    pub async fn send(&self, ask: &Ask, by: Instant) -> Result<Answer, CallError> {
        let call = self.call(ask);
        let begun = Instant::now();
        let problem = match timeout_at(by, self.exchange(ask)).await {
            Ok(Ok((status, _))) if status.is_redirection() => {
                Problem::Status(status, ", and redirects are not followed".into())
            }
            Ok(Ok((status, body))) => return Ok(Answer { call, status, body }),
            Ok(Err(problem)) => problem,
            Err(_) => Problem::Late(begun.elapsed()),
        };
        Err(CallError { call, problem })
    }

    /// The secret, for those who sign with it.
    pub(super) async fn secret(&self) -> Result<super::secret::Secret, WayError> {
        let missing = || WayError::Misconfigured(format!("{}: needs `secret_file`", self.who));
        let file = self.secret.as_ref().ok_or_else(missing)?;
        file.read().await.map_err(|problem| CallError { call: self.who.clone(), problem }.into())
    }

    /// Without the query: models and levels in it are no matter of whoever reads the error.
    fn call(&self, ask: &Ask) -> String {
        let path = ask.path.split('?').next().unwrap_or_default();
        format!("{}: {} {}{path}", self.who, ask.method, self.address.prefix)
    }

    async fn exchange(&self, ask: &Ask) -> Result<(StatusCode, Bytes), Problem> {
        let request = self.request(ask).await?;
        match self.address.connect().await? {
            Stream::Tcp(stream) => speak(stream, request).await,
            Stream::Unix(stream) => speak(stream, request).await,
        }
    }

    async fn request(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, Problem> {
        let target = match format!("{}{}", self.address.prefix, ask.path) {
            nothing if nothing.is_empty() => "/".to_owned(),
            target => target,
        };
        let mut request =
            Request::builder().method(&ask.method).uri(target).header(HOST, self.address.host());
        if let (Some(file), Auth::Bearer | Auth::Basic) = (&self.secret, self.auth) {
            request = request.header(AUTHORIZATION, authorization(self.auth, file).await?);
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let unfit = |error: hyper::http::Error| {
            Problem::Misconfigured(format!("no request can be made of it: {error}"))
        };
        request.body(Full::new(Bytes::copy_from_slice(&ask.body))).map_err(unfit)
    }
}

async fn authorization(auth: Auth, file: &SecretFile) -> Result<HeaderValue, Problem> {
    let secret = file.read().await?;
    let text = match auth {
        Auth::Basic => format!("Basic {}", base64(secret.expose())),
        Auth::Bearer | Auth::Signed => format!("Bearer {}", secret.expose()),
    };
    let unfit = |_| Problem::Misconfigured("`secret_file` holds characters that no header may have".into());
    let mut value = HeaderValue::from_str(&text).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// One request and its answer. The connection is driven beside the exchange and dropped after it, so that a server that keeps it
/// open keeps nobody waiting.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Problem> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let answer = async { whole(sender.send_request(request).await.map_err(|error| broken(&error))?).await };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

async fn whole(response: Response<Incoming>) -> Result<(StatusCode, Bytes), Problem> {
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let unread = |error: Box<dyn std::error::Error + Send + Sync>| match error.downcast::<hyper::Error>() {
        Ok(error) => broken(&error),
        Err(_) => Problem::Garbled(format!("the answer is longer than {} MiB", LARGEST >> 20)),
    };
    Ok((status, body.map_err(unread)?.to_bytes()))
}

/// What is no HTTP is another server; everything else is a connection that broke.
fn broken(error: &hyper::Error) -> Problem {
    if error.is_parse() {
        Problem::Garbled(format!("no HTTP: {error}"))
    } else {
        Problem::Unreachable(format!("the connection broke: {error}"))
    }
}

impl Answer {
    /// Whether the server has no such call, whatever it says instead.
    #[must_use]
    pub fn absent(&self) -> bool {
        matches!(
            self.status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        )
    }

    /// The answer, if it is a success.
    ///
    /// # Errors
    /// With the beginning of its body.
    pub fn ok(self) -> Result<Self, CallError> {
        if self.status.is_success() { Ok(self) } else { Err(self.failure()) }
    }

    /// A success as JSON of this form.
    ///
    /// # Errors
    /// When it is none, or something else.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let answer = self.ok()?;
        serde_json::from_slice(&answer.body).map_err(|error| answer.garbled(&error.to_string()))
    }

    /// A success as text.
    ///
    /// # Errors
    /// When it is none, or no text.
    pub fn text(self) -> Result<String, CallError> {
        let answer = self.ok()?;
        String::from_utf8(answer.body.to_vec()).map_err(|_| answer.garbled("it is not UTF-8"))
    }

    /// This answer as an error.
    #[must_use]
    pub fn failure(&self) -> CallError {
        let shown = shown(&self.body);
        let said = if shown.is_empty() { shown } else { format!(": {shown}") };
        CallError { call: self.call.clone(), problem: Problem::Status(self.status, said) }
    }

    /// This answer as one that is not understood.
    #[must_use]
    pub fn garbled(&self, why: &str) -> CallError {
        CallError {
            call: self.call.clone(),
            problem: Problem::Garbled(format!("{why} in {:?}", shown(&self.body))),
        }
    }
}

/// The beginning of a body on one line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "")
}

impl From<CallError> for WayError {
    fn from(error: CallError) -> Self {
        let said = error.to_string();
        match error.problem {
            Problem::Unreachable(_) => Self::Unreachable(said),
            Problem::Late(after) => Self::Late(after),
            Problem::Garbled(_) => Self::Garbled(said),
            Problem::Misconfigured(_) => Self::Misconfigured(said),
            Problem::Status(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                Self::Misconfigured(format!("{said}; is `secret_file` the right one?"))
            }
            Problem::Status(
                StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE,
                _,
            ) => Self::Busy(said),
            Problem::Status(..) => Self::Refused(said),
        }
    }
}
