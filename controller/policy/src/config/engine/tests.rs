//! Addresses and keys of engines, as they are written and as they are refused.

use super::super::node::Node;
use super::super::section::within;
use super::*;

fn text(text: &str) -> Node {
    Node::Text(text.into())
}

fn map(entries: &[(&str, Node)]) -> Node {
    Node::Map(entries.iter().map(|(key, node)| ((*key).to_owned(), node.clone())).collect())
}

/// What was read, or every mistake on a line of its own.
fn read(entries: &[(&str, Node)]) -> Result<EngineAt, String> {
    let mut errors = Vec::new();
    let at = within("engine".into(), &map(entries), &mut errors, engine);
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if lines.is_empty() { Ok(at) } else { Err(lines.join("\n")) }
}

#[test]
fn an_engine_needs_an_address() {
    let at = read(&[("kind", text("vllm")), ("url", text("http://127.0.0.1:8000"))]).unwrap();
    assert_eq!((at.kind, at.url.as_str()), (EngineKind::Vllm, "http://127.0.0.1:8000"));
    assert_eq!(read(&[]).unwrap_err(), "engine: needs `url`, the address where the engine listens");
    for right in ["unix:/run/x.sock", "http://[::1]:80", "http://llm.internal:8000/prefix"] {
        assert!(read(&[("url", text(right))]).is_ok(), "{right}");
    }
    for wrong in [
        "https://127.0.0.1:8000",
        "http://127.0.0.1",
        "http://:80",
        "http://user:pw@127.0.0.1:80",
        "http://127.0.0.1:80/x?y=z",
        "http://127.0.0.1:0",
        "unix:run/x.sock",
        "127.0.0.1:8000",
    ] {
        assert!(read(&[("url", text(wrong))]).is_err(), "{wrong}");
    }
}

#[test]
fn keys_of_one_kind_are_refused_elsewhere() {
    let url = ("url", text("http://127.0.0.1:8000"));
    let models = ("models", Node::List(vec![text("m")]));
    let error = |entries: &[(&str, Node)]| read(entries).unwrap_err();
    assert_eq!(
        error(&[("kind", text("tfserving")), url.clone(), models.clone()]),
        "engine: needs `config_file`, for kind tfserving"
    );
    assert_eq!(
        error(&[("kind", text("vllm")), url.clone(), ("config_file", text("/x"))]),
        "engine.config_file: is for kind tfserving only"
    );
    assert_eq!(
        error(&[("kind", text("ray")), url]),
        "engine: needs `models`: kind ray can't list what it has loaded"
    );
    let kvcached = [("kind", text("kvcached")), models, ("kv_limit", text("8GiB"))];
    assert_eq!(read(&kvcached).unwrap().kv_limit, Some(Bytes(8 << 30)));
}

#[test]
fn calls_are_read_with_their_headers() {
    let unload = map(&[
        ("method", text("POST")),
        ("path", text("/unload?all=1")),
        ("headers", Node::List(vec![text("X-Admin: yes")])),
        ("body", text("{}")),
        ("status", Node::Int(204)),
    ]);
    let entries =
        [("kind", text("http")), ("url", text("http://127.0.0.1:1")), ("calls", map(&[("unload", unload)]))];
    let call = read(&entries).unwrap().calls.unwrap().unload.unwrap();
    assert_eq!((call.method, call.path.as_str(), call.status), (Method::Post, "/unload?all=1", Some(204)));
    let wrong = |call: Node| {
        read(&[
            ("kind", text("http")),
            ("url", text("http://127.0.0.1:1")),
            ("calls", map(&[("unload", call)])),
        ])
    };
    assert!(wrong(map(&[("path", text("no-slash"))])).is_err());
    assert!(wrong(map(&[("path", text("/x")), ("headers", Node::List(vec![text("a b: c")]))])).is_err());
    assert!(
        wrong(map(&[("path", text("/x")), ("headers", Node::List(vec![text("a: b\r\nc: d")]))])).is_err()
    );
}
