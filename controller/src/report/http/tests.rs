//! The daemon over HTTP, as scrapers, probes and `plimsoll status` see it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use plimsoll_policy::config::Config;
use plimsoll_policy::plan::{Assessment, Plan, Tier};
use plimsoll_policy::sample::{Host, Meminfo, Sample};
use plimsoll_policy::units::{Monotonic, Span};

use super::*;
use crate::report::{About, client};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn server() -> Server {
    let about = About { guardian: Some(7), ..About::default() };
    Server::start(Some(ANY), State::new(&Config::default(), about, None)).unwrap()
}

fn record() -> Arc<Record> {
    after(Host { meminfo: Some(Meminfo::default()), ..Host::default() })
}

/// After a look at the host that saw this.
fn after(host: Host) -> Arc<Record> {
    Arc::new(Record {
        sample: Sample { at: Monotonic(1), host, ..Sample::default() },
        assessment: Assessment { tier: Tier::Elevated, ..Assessment::default() },
        plan: Plan::default(),
        findings: Vec::new(),
        took: Span::millis(1),
        ..Record::default()
    })
}

fn get(server: &Server, path: &str) -> String {
    let mut stream = TcpStream::connect(server.address.unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The keeper works on its own time.
fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ready_means_that_a_pass_was_made() {
    let server = server();
    let answer = get(&server, "/readyz");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("the first pass is not done yet"),
        "{answer}"
    );
    assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 "), "it may still come");
    server.show(News::Pass(record()));
    until(|| get(&server, "/readyz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_pass_that_could_not_see_the_memory_is_no_readiness() {
    let server = server();
    server.show(News::Pass(after(Host::default())));
    until(|| get(&server, "/readyz").contains("/proc/meminfo can't be read"));
    assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_control_loop_that_stands_still_is_neither_ready_nor_healthy() {
    let mut state = State::new(&Config::default(), About::default(), None);
    state.apply(record());
    if let Some((at, _)) = &mut state.last {
        *at = at.checked_sub(Duration::from_secs(60)).expect("up for a minute");
    }
    let server = Server::start(Some(ANY), state).unwrap();
    for path in ["/readyz", "/healthz"] {
        let answer = get(&server, path);
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("stopped making progress"),
            "{answer}"
        );
    }
}

#[test]
fn a_scraper_gets_openmetrics() {
    let server = server();
    let answer = get(&server, "/metrics");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn status_arrives_as_it_was_sent() {
    let server = server();
    server.show(News::Pass(record()));
    let url = format!("http://{}", server.address.unwrap());
    until(|| get(&server, "/readyz").starts_with("HTTP/1.1 200 "));
    let status = client::status(&url).await.unwrap();
    assert_eq!((status.guardian_pid, status.totals.passes), (Some(7), 1));
    assert_eq!(status.host.unwrap().tier, Tier::Elevated);
}

/// The daemon builds everything from within its runtime.
#[tokio::test]
async fn it_starts_within_a_runtime() {
    assert!(get(&server(), "/healthz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_port_in_use_is_named() {
    let first = server();
    let error =
        Server::start(first.address, State::new(&Config::default(), About::default(), None)).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {}", first.address.unwrap()));
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("Address already in use"), "{source}");
}

#[tokio::test]
async fn who_answers_something_else_is_no_daemon() {
    let listener = TcpListener::bind(ANY).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let error = client::status(&url).await.unwrap_err();
    assert!(error.to_string().ends_with("is no plimsoll daemon: it says 404 Not Found"), "{error}");
}
