//! The watch against an API server on this machine, for what a real one can't be made to do.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;

/// One pod, and then nothing new.
async fn pods(RawQuery(query): RawQuery) -> Response {
    if query.is_some_and(|query| query.contains("watch=")) {
        pending::<()>().await;
    }
    Json(list("u1")).into_response()
}

fn list(uid: &str) -> Value {
    let pod = json!({ "metadata": { "name": "web-0", "namespace": "ns", "uid": uid }, "spec": { "nodeName": "n1" } });
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": [pod] })
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

/// A server in this process, which gives these answers and then none; and what it was asked, when.
fn scripted(answers: Vec<(u16, Value)>) -> (Client, mpsc::UnboundedReceiver<(&'static str, Instant)>) {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let (ask, asked) = mpsc::unbounded_channel();
    let answer = async move |RawQuery(query): RawQuery| {
        let watch = query.is_some_and(|query| query.contains("watch="));
        ask.send((if watch { "watch" } else { "list" }, Instant::now())).unwrap();
        let next = answers.lock().unwrap().pop_front();
        match next {
            Some((code, body)) => (StatusCode::from_u16(code).unwrap(), Json(body)).into_response(),
            None => pending().await,
        }
    };
    (Client::new(Router::new().route("/api/v1/pods", get(answer)), "default"), asked)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_forgotten_is_asked_for_a_list_at_once() {
    let status =
        |code: u16| json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code });
    let away = || (503, status(503));
    for gone in [(410, status(410)), (200, json!({ "type": "ERROR", "object": status(410) }))] {
        let before = [(200, list("u1")), away(), away(), away(), away()];
        let answers = before.into_iter().chain([gone.clone(), (200, list("u2"))]).collect();
        let (client, mut asked) = scripted(answers);
        let (book, mut pods) = book::Book::new(Pods::default());
        let read =
            |object: &ApiPod| Pod { uid: object.metadata.uid.clone().unwrap_or_default(), ..Pod::default() };
        let watch = Watch { node: "n1".into(), read, book, contact: Contact::default() };
        let running = tokio::spawn(async move { watch.run(client).await });
        let known = pods.wait_for(|pods| pods.pods.contains_key("u2"));
        timeout(Duration::from_secs(120), known).await.expect("it is listed again").unwrap();
        running.abort();
        let mut what = Vec::new();
        let mut when = Vec::new();
        while let Ok((kind, at)) = asked.try_recv() {
            what.push(kind);
            when.push(at);
        }
        assert_eq!(what[..7], ["list", "watch", "watch", "watch", "watch", "watch", "list"], "{gone:?}");
        let pauses: Vec<Duration> = when.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses[4] > Duration::from_secs(6), "that is what it had learned to wait: {pauses:?}");
        assert!(pauses[5] < Duration::from_secs(2), "{pauses:?}");
    }
}
