//! The smallest request in OpenAI's words, which most engines understand: one token, or one embedding.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::http::Client;
use crate::ask::way::WayError;

#[derive(Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// Asks a model for one token, and where it does not complete, for one embedding. Without a name: the first model listed.
pub(super) async fn smoke(http: &Client, model: Option<&str>, by: Instant) -> Result<(), WayError> {
    let model = match model {
        Some(model) => model.to_owned(),
        None => first(http, by).await?,
    };
    let completion = json!({ "model": model, "prompt": "OK", "max_tokens": 1 });
    let answer = http.post("/v1/completions", &completion, by).await?;
    if !other_kind(answer.status) {
        return Ok(answer.ok().map(drop)?);
    }
    let embedding = json!({ "model": model, "input": "OK" });
    let embedded = http.post("/v1/embeddings", &embedding, by).await?;
    // What is said to the first request is the better explanation.
    if other_kind(embedded.status) { Err(answer.failure().into()) } else { Ok(embedded.ok().map(drop)?) }
}

async fn first(http: &Client, by: Instant) -> Result<String, WayError> {
    let answer = http.get("/v1/models", by).await?;
    let List { data } = answer.json()?;
    data.into_iter().next().map(|model| model.id).ok_or_else(|| WayError::Refused("it lists no model".into()))
}

/// What a server says that is well and does not do this kind of request.
fn other_kind(status: StatusCode) -> bool {
    use StatusCode as Is;
    matches!(
        status,
        Is::BAD_REQUEST
            | Is::NOT_FOUND
            | Is::METHOD_NOT_ALLOWED
            | Is::UNPROCESSABLE_ENTITY
            | Is::NOT_IMPLEMENTED
    )
}
