//! One request to the API server and its answer: bounded in time and in size.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;

use super::counts::{Ending, What};

/// A request takes so long at most. A server that has too little processor for all its nodes answers after many seconds: whoever gives up
/// before that and asks again makes it do the work twice, and slower for everybody.
const DEADLINE: Duration = Duration::from_secs(15);
/// The server tries for ten seconds to count an eviction against a budget whose status changes at that moment. Whoever gives up before
/// that may still lose the pod, and has killed another meanwhile.
const EVICTION: Duration = Duration::from_secs(12);
/// The largest answer that is read. etcd takes no object beyond 1.5 MiB, so no node is larger.
const LARGEST: usize = 2 << 20;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) what: What,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) content: &'static str,
    pub(super) body: Value,
}

/// RFC 7386.
pub(super) const MERGE: &str = "application/merge-patch+json";
/// Kubernetes' own, which knows the keys of lists.
pub(super) const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Whole objects.
pub(super) const JSON: &str = "application/json";

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The server said no.
    #[error("the API server answered {code}: {}", status.said())]
    Answered {
        /// HTTP's.
        code: u16,
        /// In its words.
        status: Status,
        /// How long it wants to be left alone.
        after: Option<Duration>,
    },
    /// It said nothing.
    #[error("no answer of the API server within {} s", .0.as_secs())]
    Silent(Duration),
    /// It can't be spoken to.
    #[error("can't speak to the API server")]
    Away(#[source] kube::Error),
    /// Its answer can't be read.
    #[error("an answer that makes no sense: {0}")]
    Senseless(String),
}

impl CallError {
    /// For metrics.
    pub(super) const fn ending(&self) -> Ending {
        match self {
            Self::Answered { code: 404 | 409 | 410, .. } => Ending::Conflict,
            Self::Answered { code: 429, .. } => Ending::Busy,
            Self::Answered { code: 500.., .. } | Self::Senseless(_) => Ending::Failed,
            Self::Answered { .. } => Ending::Refused,
            Self::Silent(_) | Self::Away(_) => Ending::Away,
        }
    }

    /// How long the server wants to be left alone, where it says so.
    pub(super) const fn after(&self) -> Option<Duration> {
        match self {
            Self::Answered { after, .. } => *after,
            _ => None,
        }
    }
}

/// What of a `Status` matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    message: String,
    pub(super) reason: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

impl Status {
    /// Why a disruption budget says no, where one does.
    pub(super) fn budget(&self) -> Option<&str> {
        let cause = self.details.causes.iter().find(|cause| cause.reason == "DisruptionBudget")?;
        Some(if cause.message.is_empty() { &self.message } else { &cause.message })
    }

    /// In one line.
    pub(super) fn said(&self) -> &str {
        if self.message.is_empty() { &self.reason } else { &self.message }
    }
}

/// Speaks to one API server.
#[derive(Clone)]
pub(super) struct Line(Client);

impl Line {
    /// The client must not try again by itself: kube's default repeats each 429 up to fifteen times, and a disruption budget
    /// answers with 429.
    pub(super) const fn new(client: Client) -> Self {
        Self(client)
    }

    /// Makes a request.
    ///
    /// # Errors
    /// [`CallError`], after fifteen seconds at the latest, twelve for an eviction.
    pub(super) async fn call(&self, call: &Call) -> Result<Value, CallError> {
        let request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(CONTENT_TYPE, call.content)
            .header(ACCEPT, JSON);
        let body = if call.body.is_null() { Vec::new() } else { call.body.to_string().into_bytes() };
        let request =
            request.body(Body::from(body)).map_err(|error| CallError::Senseless(error.to_string()))?;
        let exchange = async { read(self.0.send(request).await.map_err(CallError::Away)?).await };
        let deadline = if call.what == What::Evict { EVICTION } else { DEADLINE };
        tokio::time::timeout(deadline, exchange).await.unwrap_or(Err(CallError::Silent(deadline)))
    }
}

async fn read(response: Response<Body>) -> Result<Value, CallError> {
    let (code, after) = (response.status(), retry_after(&response));
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| CallError::Senseless(error.to_string()))?.to_bytes();
    if code.is_success() {
        return serde_json::from_slice(&body).map_err(|error| CallError::Senseless(error.to_string()));
    }
    let status = serde_json::from_slice(&body).unwrap_or_else(|_| Status {
        message: code.canonical_reason().unwrap_or("no reason").to_owned(),
        ..Status::default()
    });
    Err(CallError::Answered { code: code.as_u16(), status, after: after.filter(|_| is_for_later(code)) })
}

fn is_for_later(code: StatusCode) -> bool {
    code == StatusCode::TOO_MANY_REQUESTS || code.is_server_error()
}

/// In seconds; the API server sends no dates.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether a name may be part of a path. The API server gives no other; one that is no API server might.
pub(super) fn is_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_told_from_a_server_that_is_busy() {
        let said = r#"{"message":"Cannot evict pod as it would violate the pod's disruption budget.","reason":"TooManyRequests",
            "details":{"causes":[{"reason":"DisruptionBudget","message":"The disruption budget web needs 1 healthy pods and has 1 currently"}]}}"#;
        let status: Status = serde_json::from_str(said).unwrap();
        assert_eq!(
            status.budget(),
            Some("The disruption budget web needs 1 healthy pods and has 1 currently")
        );
        let busy: Status = serde_json::from_str(r#"{"reason":"TooManyRequests","code":429}"#).unwrap();
        assert_eq!((busy.budget(), busy.said()), (None, "TooManyRequests"));
    }

    #[test]
    fn names_stay_within_their_part_of_the_path() {
        for (name, fits) in [
            ("web-0", true),
            ("n1.example.org", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a?x", false),
        ] {
            assert_eq!(is_name(name), fits, "{name:?}");
        }
    }
}
