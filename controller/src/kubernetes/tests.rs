//! The watch against an API server on this machine, for what a real one can't be made to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

/// One pod, and then nothing new.
async fn pods(RawQuery(query): RawQuery) -> Response {
    if query.is_some_and(|query| query.contains("watch=")) {
        std::future::pending::<()>().await;
    }
    let pod = json!({ "metadata": { "name": "web-0", "namespace": "ns", "uid": "u1" }, "spec": { "nodeName": "n1" } });
    let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": [pod] });
    Json(list).into_response()
}

/// The configuration with the way to that server.
async fn server(dir: &Path) -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().route("/api/v1/pods", get(pods));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let named = |kind: &str, what| json!([{ "name": "x", kind: what }]);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": named("cluster", json!({ "server": url })),
        "contexts": named("context", json!({ "cluster": "x", "user": "x" })), "users": named("user", json!({})),
    });
    let file = dir.join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let mut config = Config::default();
    config.kubernetes.kubeconfig = Some(file.to_str().unwrap().into());
    config
}

#[tokio::test]
async fn a_watch_that_panics_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = server(dir.path()).await;
    let (book, mut pods) = book::Book::new(Pods::default());
    let (reads, contact) = (Arc::new(AtomicU32::new(0)), Contact::default());
    let read = move |object: &ApiPod| {
        assert!(reads.fetch_add(1, Ordering::Relaxed) > 0, "a pod that nobody thought of");
        Pod { uid: object.metadata.uid.clone().unwrap_or_default(), ..Pod::default() }
    };
    let watch = Watch { node: "n1".into(), read, book, contact: contact.clone() };
    let running = tokio::spawn(run(config, watch, latest::channel(None).0));
    let known = timeout(Duration::from_secs(30), pods.wait_for(|pods| pods.confirmed)).await;
    assert!(known.unwrap().unwrap().pods.contains_key("u1"));
    let now = contact.standing();
    assert_eq!((now.restarts, now.connected), (1, true));
    running.abort();
}
