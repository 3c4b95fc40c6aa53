//! Every engine as it should be: offered, released, restored, tried; and the traps that single engines have.

use std::path::Path;
use std::time::Duration;

use plimsoll::ask::way::WayError;
use plimsoll::engines;
use plimsoll_policy::concession::Level;
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::engine::{EngineAt, EngineKind};

use super::server::{FULL, Fault, Server, Where};
use super::{Entry, TABLE, Tried, ask, engine_at, others, shelves, sleepers};

#[tokio::test]
async fn every_engine_gives_and_takes_back() {
    for entry in &TABLE {
        let Entry { kind, level, .. } = *entry;
        let tried = Tried::new(entry, Fault::None, Where::Everywhere).await;
        let offer = tried.way.offer().await.unwrap();
        assert!(offer.levels.contains_key(&level), "{kind} offers {offer:?}");
        tried.ask(1, level, 5000).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(tried.server.bytes(), 0, "{kind} let go");
        let said = tried.server.said();
        tried.ask(1, level, 5000).await.unwrap();
        assert_eq!(tried.server.said(), said, "{kind}: the same number is the same asking");
        let offer = tried.way.offer().await.unwrap();
        if entry.tells || entry.restores {
            assert_eq!(offer.level, Some(level), "{kind}");
        }
        tried.ask(2, Level::Nothing, 5000).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
        if entry.restores {
            assert_eq!(tried.server.bytes(), FULL, "{kind} is back");
        }
    }
}

/// Who was asked by a predecessor of ours is restored as well, if it says by itself that it is released.
#[tokio::test]
async fn an_engine_that_was_released_before_we_started_is_restored() {
    for entry in TABLE.iter().filter(|entry| entry.tells) {
        let tried = Tried::new(entry, Fault::None, Where::Everywhere).await;
        tried.ask(1, entry.level, 5000).await.unwrap();
        let mut at = engine_at(entry.kind, &tried.server.url);
        // Without its name nobody can know what an engine had loaded.
        at.models = vec![if entry.kind == EngineKind::Ollama { "m:latest".into() } else { "m".into() }];
        if entry.kind == EngineKind::Lmstudio {
            // Nor with what settings.
            continue;
        }
        let successor = engines::way(&at, &Ask::default()).unwrap();
        let level = successor.offer().await.unwrap().level;
        // One without a metric says that it sleeps, and not how deep; an empty shelf may have been empty ever since.
        let shelf = !matches!(entry.kind.name(), "vllm" | "trtllm" | "ray");
        let away = level.is_some_and(|level| level >= Level::Offload);
        assert!(away != shelf, "{}: {level:?}", entry.kind);
        ask(&*successor, 2, Level::Nothing, 5000)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", entry.kind));
        assert_eq!(tried.server.bytes(), FULL, "{}", entry.kind);
    }
}

#[tokio::test]
async fn the_next_request_undoes_an_unload_and_that_is_seen() {
    for entry in
        TABLE.iter().filter(|entry| matches!(entry.kind.name(), "ollama" | "llama-swap" | "llamacpp-router"))
    {
        let tried = Tried::new(entry, Fault::None, Where::Everywhere).await;
        tried.ask(1, Level::Unload, 5000).await.unwrap();
        let offer = tried.way.offer().await.unwrap();
        assert_eq!((offer.level, offer.gated), (Some(Level::Unload), false), "{}", entry.kind);
        let client = engines::http::Client::new("a user", &tried.server.url, loopback()).unwrap();
        let by = tokio::time::Instant::now() + Duration::from_secs(2);
        let (path, model) = match entry.kind {
            EngineKind::Ollama => ("/api/generate", "m:latest"),
            _ => ("/v1/completions", "m"),
        };
        let body = serde_json::json!({ "model": model, "prompt": "hello" });
        client.post(path, &body, by).await.unwrap().ok().unwrap();
        assert_eq!(tried.way.offer().await.unwrap().level, Some(Level::Nothing), "{}", entry.kind);
    }
}

#[tokio::test]
async fn vllm_at_level_2_is_woken_in_three_steps() {
    let vllm = &TABLE[0];
    let tried = Tried::new(vllm, Fault::None, Where::Everywhere).await;
    tried.ask(1, Level::Unload, 5000).await.unwrap();
    tried.ask(2, Level::Nothing, 5000).await.unwrap();
    let said = tried.server.said();
    assert_eq!(
        said,
        [
            "POST /pause?mode=wait&wait_for_inflight_requests=true",
            "POST /sleep?level=2&mode=wait",
            "POST /wake_up?tags=weights",
            "POST /collective_rpc",
            "POST /wake_up?tags=kv_cache",
            "POST /resume",
            "POST /v1/completions",
        ]
    );
}

#[tokio::test]
async fn vllm_that_sleeps_at_level_1_wakes_before_it_drops_its_weights() {
    let tried = Tried::new(&TABLE[0], Fault::None, Where::Everywhere).await;
    tried.ask(1, Level::Offload, 5000).await.unwrap();
    tried.ask(2, Level::Unload, 5000).await.unwrap();
    assert_eq!(tried.way.offer().await.unwrap().level, Some(Level::Unload));
    let said = tried.server.said();
    assert_eq!(said[2..], ["POST /wake_up", "POST /sleep?level=2&mode=wait"]);
}

#[tokio::test]
async fn sglang_without_its_saver_is_not_asked() {
    let server = Server::start(sleepers::Sglang::with(Fault::None, false, true), Where::Everywhere).await;
    let way = engines::way(&engine_at(EngineKind::Sglang, &server.url), &Ask::default()).unwrap();
    let error = way.offer().await.unwrap_err().to_string();
    assert!(error.contains("--enable-memory-saver"), "{error}");
    assert!(matches!(ask(&*way, 1, Level::Offload, 500).await, Err(WayError::NotOffered(_))));
    assert_eq!(server.said(), [""; 0]);
}

#[tokio::test]
async fn sglang_without_a_backup_loads_its_weights_again() {
    let server = Server::start(sleepers::Sglang::with(Fault::None, true, false), Where::Everywhere).await;
    let way = engines::way(&engine_at(EngineKind::Sglang, &server.url), &Ask::default()).unwrap();
    assert_eq!(way.offer().await.unwrap().levels.into_keys().collect::<Vec<_>>(), [Level::Unload]);
    ask(&*way, 1, Level::Unload, 5000).await.unwrap();
    ask(&*way, 2, Level::Nothing, 5000).await.unwrap();
    let said = server.said();
    let paths: Vec<&str> = said.iter().filter_map(|said| said.strip_prefix("POST ")).collect();
    assert_eq!(
        paths,
        [
            "/pause_generation",
            "/flush_cache",
            "/release_memory_occupation",
            "/resume_memory_occupation",
            "/update_weights_from_disk",
            "/resume_memory_occupation",
            "/continue_generation",
            "/v1/completions",
        ]
    );
}

#[tokio::test]
async fn triton_that_may_not_unload_says_how_it_has_to_be_started() {
    let server = Server::start(shelves::triton_polling(), Where::Everywhere).await;
    let way = engines::way(&engine_at(EngineKind::Triton, &server.url), &Ask::default()).unwrap();
    assert!(way.offer().await.is_ok(), "it is found out by trying");
    assert!(matches!(ask(&*way, 1, Level::Unload, 500).await, Err(WayError::Refused(_))));
    let error = way.offer().await.unwrap_err().to_string();
    assert!(error.contains("--model-control-mode=explicit"), "{error}");
}

#[tokio::test]
async fn llamacpp_that_sleeps_is_not_woken_by_looking() {
    let server = Server::start(others::llamacpp_asleep(), Where::Everywhere).await;
    let way = engines::way(&engine_at(EngineKind::Llamacpp, &server.url), &Ask::default()).unwrap();
    for _ in 0..3 {
        assert_eq!(way.offer().await.unwrap().level, Some(Level::Unload));
    }
    assert_eq!(server.bytes(), 0);
    ask(&*way, 1, Level::Nothing, 2000).await.unwrap();
    assert_eq!(server.bytes(), FULL, "the smoke test wakes it");
}

#[tokio::test]
async fn tfserving_is_emptied_and_filled_by_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("models.config");
    let config = "model_config_list { config { name: \"m\" base_path: \"/models/m\" } }\n";
    std::fs::write(&file, config).unwrap();
    let start = |fault| Server::start(others::tfserving(fault, file.clone()), Where::Everywhere);
    let at = |url: &str| EngineAt {
        config_file: Some(file.to_string_lossy().into_owned()),
        ..engine_at(EngineKind::Tfserving, url)
    };
    let server = start(Fault::None).await;
    let way = engines::way(&at(&server.url), &Ask::default()).unwrap();
    assert_eq!(way.offer().await.unwrap().level, Some(Level::Nothing));
    ask(&*way, 1, Level::Unload, 3000).await.unwrap();
    assert_eq!(
        (server.bytes(), std::fs::read_to_string(&file).unwrap().as_str()),
        (0, "model_config_list {}\n")
    );
    // A successor knows by what lies beside the file.
    let way = engines::way(&at(&server.url), &Ask::default()).unwrap();
    assert_eq!(way.offer().await.unwrap().level, Some(Level::Unload));
    ask(&*way, 2, Level::Nothing, 3000).await.unwrap();
    assert_eq!((server.bytes(), std::fs::read_to_string(&file).unwrap().as_str()), (FULL, config));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    let busy = start(Fault::Busy).await;
    let way = engines::way(&at(&busy.url), &Ask::default()).unwrap();
    assert!(matches!(ask(&*way, 3, Level::Unload, 800).await, Err(WayError::Busy(_))));
}

#[tokio::test]
async fn what_answers_is_recognised() {
    for entry in &TABLE {
        // Ray is seen by its models only, a server of somebody's own by nothing; LocalAI and TensorRT-LLM show nothing unasked.
        if matches!(entry.kind.name(), "ray" | "http" | "localai" | "trtllm") {
            continue;
        }
        let server = Server::start((entry.protocol)(Fault::None, Path::new("")), Where::Everywhere).await;
        let way = engines::way(
            &EngineAt { kind: EngineKind::Auto, ..engine_at(entry.kind, &server.url) },
            &Ask::default(),
        );
        let offer = way.unwrap().offer().await;
        let offer = offer.unwrap_or_else(|error| panic!("{}: {error}", entry.kind));
        assert!(offer.levels.contains_key(&entry.level), "{}: {offer:?}", entry.kind);
    }
    let stranger = Server::start(others::own(Fault::None), Where::Everywhere).await;
    let way = engines::way(&engine_at(EngineKind::Auto, &stranger.url), &Ask::default()).unwrap();
    assert!(way.offer().await.unwrap_err().to_string().contains("say which one"));
}

#[tokio::test]
async fn addresses_elsewhere_are_not_connected_to() {
    for url in ["http://192.0.2.1:80", "http://[2001:db8::1]:80", "http://0.0.0.0:80"] {
        let way = engines::way(&engine_at(EngineKind::Vllm, url), &Ask::default()).unwrap();
        let error = way.offer().await.unwrap_err();
        assert!(
            matches!(&error, WayError::Misconfigured(why) if why.contains("ask.addresses")),
            "{url}: {error}"
        );
    }
}

#[tokio::test]
async fn a_secret_that_can_not_be_read_is_named_and_never_shown() {
    let server = Server::start(shelves::ollama(Fault::WrongSecret), Where::Everywhere).await;
    let mut at = engine_at(EngineKind::Ollama, &server.url);
    let way = engines::way(&at, &Ask::default()).unwrap();
    let error = way.offer().await.unwrap_err();
    assert!(!format!("{error} {error:?} {way:?}").contains("a-secret"));
    at.secret_file = Some("/nonexistent/key".into());
    let way = engines::way(&at, &Ask::default()).unwrap();
    let error = way.offer().await.unwrap_err();
    assert!(matches!(&error, WayError::Misconfigured(why) if why.contains("/nonexistent/key")), "{error}");
}

#[tokio::test]
async fn an_engine_on_a_unix_socket_is_asked_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let routes = axum::Router::new().route("/api/ps", axum::routing::get(|| async { "{\"models\": []}" }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let at =
        EngineAt { kind: EngineKind::Ollama, url: format!("unix:{}", path.display()), ..EngineAt::default() };
    let offer = engines::way(&at, &Ask::default()).unwrap().offer().await.unwrap();
    assert_eq!((offer.level, offer.inflight), (Some(Level::Nothing), Some(0)));
}

/// Whoever asks may go away at any moment. What it left shut is opened at the next look.
#[tokio::test]
async fn a_drain_that_nobody_waits_for_any_more_lets_requests_in_again() {
    let tried = Tried::new(&TABLE[0], Fault::Busy, Where::Everywhere).await;
    let given_up =
        tokio::time::timeout(Duration::from_millis(300), tried.ask(1, Level::Offload, 10_000)).await;
    assert!(given_up.is_err());
    assert!(tried.server.said().last().unwrap().starts_with("POST /pause"));
    tried.way.offer().await.unwrap();
    assert_eq!(tried.server.said().last().unwrap(), "POST /resume");
    assert_eq!(tried.server.bytes(), FULL);
}

/// Much, slowly or for ever: an answer ends with its deadline or its limit.
#[tokio::test]
async fn answers_have_a_largest_size_and_a_last_moment() {
    use axum::routing::get;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = axum::Router::new()
        .route("/much", get(|| async { vec![b'x'; 9 << 20] }))
        .route("/never", get(|| async { std::future::pending::<()>().await }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let client = engines::http::Client::new("a server", &url, loopback()).unwrap();
    let by = || tokio::time::Instant::now() + Duration::from_millis(500);
    let much = client.get("/much", by() + Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(much.to_string(), "a server: GET /much: the answer is longer than 8 MiB");
    let never = WayError::from(client.get("/never", by()).await.unwrap_err());
    assert!(matches!(never, WayError::Late(after) if after >= Duration::from_millis(490)), "{never:?}");
}

fn loopback() -> engines::http::Reach {
    engines::http::Reach::Networks(Vec::new())
}
