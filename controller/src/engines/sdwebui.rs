//! Stable Diffusion web UI and its forks: moves the checkpoint to host memory, and back.

use plimsoll_policy::concession::Level;
use serde::Deserialize;
use tokio::time::Instant;

use super::http::{Ask, Client, Method};
use super::{Capabilities, Engine, Probed, Release, Request, Requests, State};
use crate::ask::way::WayError;

const MISSING: &str = "it has no /sdapi: start it with --api";

/// One server.
#[derive(Debug)]
pub(super) struct Sdwebui(pub(super) Client);

#[derive(Deserialize)]
struct Progress {
    state: Job,
}

#[derive(Deserialize)]
struct Job {
    #[serde(default)]
    job_count: i64,
}

impl Sdwebui {
    async fn post(&self, path: &str, by: Instant) -> Result<(), WayError> {
        Ok(self.0.send(&Ask::new(Method::POST, path), by).await?.ok().map(drop)?)
    }
}

impl Engine for Sdwebui {
    fn kind(&self) -> &'static str {
        "sdwebui"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let answer = self.0.get("/sdapi/v1/progress?skip_current_image=true", by).await?;
        if answer.absent() {
            let can = Capabilities::nothing(MISSING);
            return Ok(Probed { can, state: State::Active, ..Probed::default() });
        }
        let Progress { state: Job { job_count } } = answer.json()?;
        // While nothing is generated some forks say -1.
        let inflight = Some(u32::try_from(job_count).unwrap_or(0));
        let can =
            Capabilities { requests: Requests::Lost, ..Capabilities::one(Level::Offload, Release::OFFLOAD) };
        Ok(Probed { can, state: State::Unknown, inflight, ..Probed::default() })
    }

    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        self.post("/sdapi/v1/unload-checkpoint", by).await
    }

    async fn restore(&self, _: Option<Release>, by: Instant) -> Result<(), WayError> {
        self.post("/sdapi/v1/reload-checkpoint", by).await
    }

    /// A picture takes longer than any smoke test may: that it answers with its memory is all that is asked.
    async fn smoke(&self, by: Instant) -> Result<(), WayError> {
        Ok(self.0.get("/sdapi/v1/memory", by).await?.ok().map(drop)?)
    }

    /// Works where it was started with `--api-server-stop`.
    async fn stop(&self, by: Instant) -> Result<(), WayError> {
        self.post("/sdapi/v1/server-stop", by).await
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use plimsoll_policy::units::Share;

    use super::*;
    use crate::engines::http::Reach;
    use crate::engines::ollama::Ollama;
    use crate::engines::shelf::Shelved;
    use crate::engines::way::EngineWay;

    #[tokio::test]
    async fn it_can_be_asked_to_end_and_others_can_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().route("/sdapi/v1/server-stop", post(|| async {}));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let client = || Client::new("sdwebui", &url, Reach::Networks(Vec::new())).unwrap();
        let soon = std::time::Duration::from_secs(2);
        assert_eq!(EngineWay::new(Sdwebui(client()), Share::ZERO).stop(soon).await, Ok(()));
        let ollama = EngineWay::new(Shelved::new(Ollama(client()), Vec::new()), Share::ZERO);
        assert!(matches!(ollama.stop(soon).await, Err(WayError::Refused(_))));
    }
}
