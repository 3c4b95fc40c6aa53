//! TensorRT-LLM: releases by memory tag, drains by itself, is idempotent, and wants every control request signed.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use plimsoll_policy::concession::Level;
use serde::Deserialize;
use sha2::Sha256;
use tokio::time::{Instant, sleep};

use super::http::{Answer, Ask, Client, Method};
use super::{Capabilities, Door, Engine, Probed, Release, Request, Requests, State, openai};
use crate::ask::way::WayError;

const MISSING: &str = "it has no /memory_status: start it with --enable_sleep_mode and TRTLLM_RUNTIME_CONTROL_API_KEY in its environment";

/// How often it is asked whether it is done.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// One server.
#[derive(Debug)]
pub(super) struct Trtllm {
    http: Client,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    state: String,
}

impl Trtllm {
    pub(super) fn new(http: Client, model: Option<String>) -> Self {
        Self { http, model }
    }

    async fn call(&self, method: Method, path: &'static str, by: Instant) -> Result<Answer, WayError> {
        let body: &[u8] = if method == Method::POST { b"{}" } else { b"" };
        let signed = Signed::now(self.http.secret().await?.expose(), method.as_str(), path, body)?;
        let mut ask = Ask::new(method, path);
        ask.body = body.to_vec();
        ask.headers = signed.headers();
        ask.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        Ok(self.http.send(&ask, by).await?)
    }

    /// `None` without sleep mode.
    async fn status(&self, by: Instant) -> Result<Option<State>, WayError> {
        let answer = self.call(Method::GET, "/memory_status", by).await?;
        if answer.absent() {
            return Ok(None);
        }
        let Status { state } = answer.json()?;
        Ok(Some(match state.as_str() {
            "running" => State::Active,
            "parking" => State::Releasing,
            "parked" => State::Released(Some(Level::Offload)),
            "waking" => State::Restoring,
            "failed" => State::Failed,
            _ => State::Unknown,
        }))
    }

    /// Posts, and waits for the state that it leads to.
    async fn bring(&self, path: &'static str, to: State, by: Instant) -> Result<(), WayError> {
        self.call(Method::POST, path, by).await?.ok().map_err(WayError::from)?;
        loop {
            match self.status(by).await? {
                Some(state) if state == to => return Ok(()),
                Some(State::Failed) => {
                    return Err(WayError::Refused("it says that the transition failed".into()));
                }
                _ => sleep(LOOK).await,
            }
        }
    }
}

impl Engine for Trtllm {
    fn kind(&self) -> &'static str {
        "trtllm"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let Some(state) = self.status(by).await? else {
            let can = Capabilities::nothing(MISSING);
            return Ok(Probed { can, state: State::Active, ..Probed::default() });
        };
        let levels = [(Level::Offload, Release::OFFLOAD)].into();
        let can = Capabilities { levels, door: Door::Own, requests: Requests::Finished, missing: None };
        Ok(Probed { can, state, ..Probed::default() })
    }

    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        self.bring("/release_memory", State::Released(Some(Level::Offload)), by).await
    }

    async fn restore(&self, _: Option<Release>, by: Instant) -> Result<(), WayError> {
        self.bring("/resume_memory", State::Active, by).await
    }

    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        openai::smoke(&self.http, self.model.as_deref(), by).await
    }
}

/// What shows that a request comes from one who has the key, and only once.
struct Signed {
    digest: String,
    timestamp: String,
    nonce: String,
}

impl Signed {
    fn now(key: &str, method: &str, path: &str, body: &[u8]) -> Result<Self, WayError> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut random = [0; 16];
        let unfit = |error: rustix::io::Errno| WayError::Refused(format!("no random number: {error}"));
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(unfit)?;
        Ok(Self::new(key, method, path, seconds.to_string(), hex(&random), body))
    }

    fn new(key: &str, method: &str, path: &str, timestamp: String, nonce: String, body: &[u8]) -> Self {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of every length");
        mac.update(format!("trtllm-runtime-control-v1\n{method}\n{path}\n{timestamp}\n{nonce}\n").as_bytes());
        mac.update(body);
        Self { digest: format!("sha256={}", hex(&mac.finalize().into_bytes())), timestamp, nonce }
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let named = |name: &'static str, text: &str| {
            // Hexadecimal digits and a decimal number are always fit.
            HeaderValue::from_str(text).ok().map(|value| (HeaderName::from_static(name), value))
        };
        [
            named("x-trtllm-runtime-control-auth", &self.digest),
            named("x-trtllm-runtime-control-timestamp", &self.timestamp),
            named("x-trtllm-runtime-control-nonce", &self.nonce),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference was computed by Python's `hmac`, after the server's documentation.
    #[test]
    fn the_signature_is_that_of_the_documentation() {
        let nonce = "00112233445566778899aabbccddeeff";
        let signed =
            Signed::new("secret", "POST", "/release_memory", "1700000000".into(), nonce.into(), b"{}");
        assert_eq!(signed.digest, "sha256=f20cda7d126ad3393d860b1fbf1d20616ba99a812b5094182cc5ac82386dbe87");
    }
}
