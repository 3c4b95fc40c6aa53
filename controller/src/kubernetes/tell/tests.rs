//! The whole of it against an API server that is a function: hours pass in a moment, and every request is seen.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http_body_util::BodyExt;
use hyper::{Request, Response};
use kube::client::Body;
use plimsoll_policy::plan::{Act, ActResult, Tier, Wanted};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::Monotonic;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::counts::{Ending, What};
use super::taint::TAINT;
use super::*;

/// What the server does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    /// Says 503 and `Retry-After`.
    Ill,
    /// Answers after ten seconds.
    Slow,
    /// Makes us panic.
    Breaks,
    /// Says nothing.
    Hangs,
}

#[derive(Default)]
struct Inner {
    mood: Mood,
    version: u64,
    taints: Vec<Value>,
    conditions: BTreeMap<String, Value>,
    events: Vec<Value>,
    requests: Vec<(Instant, String)>,
    /// Whether somebody else changes the node between our looking and our writing.
    races: u32,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Inner>>);

impl Server {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let serve = move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, std::io::Error>(server.serve(request).await) }
        };
        Client::new(tower::service_fn(serve), "default")
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mood = {
            let mut inner = self.lock();
            inner.requests.push((Instant::now(), format!("{} {}", parts.method, parts.uri.path())));
            inner.mood
        };
        match mood {
            Mood::Well => {}
            Mood::Ill => return respond(503, &json!({ "message": "ill" })),
            Mood::Slow => sleep(Duration::from_secs(10)).await,
            Mood::Breaks => panic!("an answer that nobody thought of"),
            Mood::Hangs => std::future::pending().await,
        }
        let (code, answer) = self.lock().answer(parts.method.as_str(), parts.uri.path(), &body);
        respond(code, &answer)
    }

    fn taints(&self) -> Vec<String> {
        self.lock()
            .taints
            .iter()
            .map(|taint| format!("{}:{}", taint["key"], taint["effect"]).replace('"', ""))
            .collect()
    }

    fn condition(&self) -> Option<(String, String)> {
        let inner = self.lock();
        let condition = inner.conditions.get("plimsoll.dev/MemoryTier")?;
        Some((condition["status"].as_str()?.into(), condition["reason"].as_str()?.into()))
    }

    fn told(&self) -> Vec<String> {
        self.lock().events.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }
}

impl Inner {
    fn answer(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        match (method, path.rsplit('/').next().unwrap_or_default()) {
            ("GET", _) => {
                let node = self.node();
                self.version += u64::from(self.races > 0);
                (200, node)
            }
            ("PATCH", "n1") => {
                let made_from = body["metadata"]["resourceVersion"].as_str().unwrap();
                if made_from.parse() != Ok(self.version) {
                    self.races = self.races.saturating_sub(1);
                    return (409, json!({ "reason": "Conflict" }));
                }
                self.taints = body["spec"]["taints"].as_array().unwrap().clone();
                (200, self.node())
            }
            ("PATCH", "status") => {
                let condition = &body["status"]["conditions"][0];
                let of = condition["type"].as_str().unwrap().to_owned();
                if condition["$patch"] == "delete" {
                    self.conditions.remove(&of);
                } else {
                    self.conditions.insert(of, condition.clone());
                }
                (200, self.node())
            }
            ("POST", "eviction") => (201, json!({ "status": "Success" })),
            ("POST", _) => {
                self.events.push(body.clone());
                (201, body.clone())
            }
            _ => (200, json!({})),
        }
    }

    fn node(&self) -> Value {
        json!({
            "metadata": { "name": "n1", "resourceVersion": self.version.to_string() }, "spec": { "taints": self.taints },
            "status": { "conditions": self.conditions.values().collect::<Vec<_>>() },
        })
    }
}

fn respond(code: u16, body: &Value) -> Response<Body> {
    let response = Response::builder().status(code).header("retry-after", "1");
    response.body(Body::from(body.to_string().into_bytes())).unwrap()
}

/// A node with one pod, which tells.
struct World {
    server: Server,
    teller: Teller,
    ends: mpsc::Receiver<Evicted>,
    counts: Arc<Counts>,
    pods: watch::Sender<Arc<Pods>>,
    _client: watch::Sender<Option<Client>>,
}

impl World {
    fn new(server: &Server) -> Self {
        Self::with(server, &Config::default())
    }

    fn with(server: &Server, config: &Config) -> Self {
        let (pods, seen) = watch::channel(Arc::default());
        let (client, way) = watch::channel(Some(server.client()));
        let counts = Arc::new(Counts::default());
        let (mut teller, ends) = start(config, way, "n1", seen, Arc::clone(&counts));
        let workload = crate::sense::discover::Workload { pod: Some(pod()), ..Default::default() };
        teller.take_workloads(&[("kubepods/pod1/c1".to_owned(), workload)].into());
        Self { server: server.clone(), teller, ends, counts, pods, _client: client }
    }

    /// One pass, and time for what follows from it.
    async fn pass(&mut self, tier: Tier, wanted: Option<Wanted>, lasts: u64) {
        let assessment = Assessment { tier, ..Assessment::default() };
        let plan =
            Plan { workloads: wanted.map(|wanted| (id(), wanted)).into_iter().collect(), ..Plan::default() };
        self.teller.pass(&sample(), &assessment, &plan);
        sleep(Duration::from_millis(lasts)).await;
    }

    async fn refuses_an_eviction(&mut self) {
        self.pass(Tier::Critical, Some(Wanted { evict: true, ..throttled(300) }), 100).await;
        let refused = self.ends.try_recv().unwrap();
        assert_eq!(refused.result, ActResult::Failed("what speaks to the API server failed".into()));
    }

    fn requests(&self) -> usize {
        self.server.lock().requests.len()
    }
}

fn id() -> WorkloadId {
    WorkloadId { path: "kubepods/pod1/c1".into(), inode: 7 }
}

fn pod() -> PodRef {
    PodRef { namespace: "ns".into(), pod: "web-0".into(), uid: "u1".into(), container: "model".into() }
}

fn sample() -> Sample {
    let at = Monotonic(crate::sense::clock::now().0);
    Sample {
        at,
        workloads: [(id(), plimsoll_policy::sample::Workload::default())].into(),
        ..Sample::default()
    }
}

fn throttled(action: u64) -> Wanted {
    let high = Some(plimsoll_policy::units::Bytes::mib(100));
    Wanted { rung: Rung::Throttle, high, action, ..Wanted::default() }
}

#[tokio::test(start_paused = true)]
async fn pressure_is_seen_at_the_node_and_gone_after_a_calm() {
    let server = Server::default();
    server.lock().taints =
        vec![json!({ "key": "theirs", "effect": "NoExecute", "timeAdded": "2026-11-22T11:14:00Z" })];
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 20_000).await;
    assert_eq!(server.condition(), Some(("False".into(), "Normal".into())));
    world.pass(Tier::Constrained, None, 20_000).await;
    assert_eq!(server.condition(), Some(("True".into(), "Constrained".into())));
    assert_eq!(server.taints(), ["theirs:NoExecute", "plimsoll.dev/memory-pressure:PreferNoSchedule"]);
    world.pass(Tier::Emergency, None, 20_000).await;
    assert_eq!(server.taints(), ["theirs:NoExecute", "plimsoll.dev/memory-pressure:NoSchedule"]);
    world.pass(Tier::Normal, None, 55_000).await;
    assert_eq!(server.taints().len(), 2, "too early");
    assert_eq!(server.condition(), Some(("False".into(), "Normal".into())));
    world.pass(Tier::Normal, None, 60_000).await;
    assert_eq!(server.taints(), ["theirs:NoExecute"]);
    assert_eq!(server.told(), ["MemoryConstrained", "MemoryEmergency", "MemoryCalm"]);
    assert_eq!(server.lock().taints[0]["timeAdded"], "2026-11-22T11:14:00Z");
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_no_matter_for_the_node() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 20_000).await;
    for _ in 0..20 {
        world.pass(Tier::Emergency, None, 1500).await;
        world.pass(Tier::Normal, None, 1500).await;
    }
    assert_eq!((server.taints().len(), server.told().len()), (0, 0));
    assert_eq!(server.condition().unwrap().0, "False");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_run_left_goes_and_so_does_ours_at_the_end() {
    let server = Server::default();
    server.lock().taints = vec![json!({ "key": TAINT, "effect": "NoSchedule" })];
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 59_000).await;
    assert_eq!(server.taints().len(), 1);
    world.pass(Tier::Normal, None, 60_000).await;
    assert_eq!(server.taints().len(), 0);
    world.pass(Tier::Critical, Some(throttled(3)), 20_000).await;
    assert_eq!(server.taints().len(), 1);
    world.teller.farewell().await;
    assert_eq!((server.taints().len(), server.condition()), (0, None));
    assert_eq!(server.told().last().unwrap(), "ModelReleased");
}

#[tokio::test(start_paused = true)]
async fn others_who_write_the_node_are_waited_out() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 10_000).await;
    server.lock().races = 3;
    world.pass(Tier::Critical, None, 10_000).await;
    assert_eq!(server.taints().len(), 1);
    assert_eq!(world.counts.requests(What::Taint, Ending::Conflict), 3);
    // Somebody who takes it away has his way for a while.
    server.lock().taints.clear();
    world.pass(Tier::Emergency, None, 60_000).await;
    assert_eq!(server.taints().len(), 0);
    world.pass(Tier::Emergency, None, 700_000).await;
    assert_eq!(server.taints().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_hears_how_it_is_and_not_how_it_was() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 10_000).await;
    server.lock().mood = Mood::Ill;
    let before = world.requests();
    for action in 1..=200 {
        world.pass(Tier::Critical, Some(throttled(action)), 5000).await;
        world.pass(Tier::Critical, None, 4000).await;
    }
    // Half an hour: one request after each pause.
    assert!((10..40).contains(&(world.requests() - before)), "{}", world.requests() - before);
    // An eviction is refused at once: the pass has other means.
    world.pass(Tier::Critical, Some(Wanted { evict: true, ..throttled(300) }), 100).await;
    let refused = world.ends.try_recv().unwrap();
    assert!(matches!(&refused.result, ActResult::Failed(why) if why.contains("away")), "{refused:?}");
    assert_eq!(world.teller.take_evicted(refused)[0].act, Act::Evict);
    server.lock().mood = Mood::Well;
    world.pass(Tier::Constrained, None, 200_000).await;
    assert_eq!(server.condition(), Some(("True".into(), "Constrained".into())));
    assert_eq!(server.taints(), ["plimsoll.dev/memory-pressure:PreferNoSchedule"]);
    assert!(world.counts.fates(Fate::Dropped) > 300, "{}", world.counts.fates(Fate::Dropped));
    assert!(server.told().len() < 5, "{:?}", server.told());
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_two_seconds_for_a_server_that_hangs() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.pass(Tier::Critical, None, 20_000).await;
    server.lock().mood = Mood::Hangs;
    world.pass(Tier::Critical, Some(throttled(1)), 6000).await;
    let before = Instant::now();
    world.teller.farewell().await;
    assert!(before.elapsed() <= Duration::from_millis(2100), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_is_waited_for_and_asked_once() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 20_000).await;
    server.lock().mood = Mood::Slow;
    let before = world.requests();
    world.pass(Tier::Critical, None, 55_000).await;
    assert_eq!((server.taints().len(), server.condition().unwrap().0.as_str()), (1, "True"));
    assert_eq!(server.told(), ["MemoryCritical"]);
    assert_eq!(world.requests() - before, 4, "look, taint, condition, Event");
    // Others are always quicker, and the eviction waits for one try at most.
    server.lock().races = u32::MAX;
    world.pass(Tier::Normal, None, 95_000).await;
    world.pass(Tier::Normal, Some(Wanted { evict: true, ..throttled(9) }), 0).await;
    let asked = Instant::now();
    assert_eq!(world.ends.recv().await.unwrap().result, ActResult::Done);
    assert!(asked.elapsed() <= Duration::from_secs(31), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_teller_that_panics_begins_again_and_goes_on() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 20_000).await;
    server.lock().mood = Mood::Breaks;
    let before = world.requests();
    world.pass(Tier::Critical, None, 300_000).await;
    let fell = world.counts.restarts();
    assert!((5..20).contains(&fell), "{fell}");
    assert!(world.requests() - before < 20, "{}", world.requests() - before);
    world.refuses_an_eviction().await;
    server.lock().mood = Mood::Well;
    world.pass(Tier::Constrained, None, 200_000).await;
    assert_eq!(server.taints(), ["plimsoll.dev/memory-pressure:PreferNoSchedule"]);
    assert_eq!(server.condition(), Some(("True".into(), "Constrained".into())));
    // At the end it has its last word, though it lies.
    server.lock().mood = Mood::Breaks;
    world.pass(Tier::Emergency, None, 20_000).await;
    server.lock().mood = Mood::Well;
    world.teller.farewell().await;
    assert_eq!((server.taints().len(), server.condition()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn who_wants_the_eviction_over_which_the_teller_panics_knows_at_once() {
    let server = Server::default();
    let mut world = World::new(&server);
    world.pass(Tier::Normal, None, 20_000).await;
    server.lock().mood = Mood::Breaks;
    world.refuses_an_eviction().await;
    assert_eq!(world.counts.restarts(), 1);
    assert!(server.lock().requests.last().unwrap().1.ends_with("/eviction"));
}

#[tokio::test(start_paused = true)]
async fn an_eviction_is_asked_for_once_and_its_end_is_an_outcome() {
    let server = Server::default();
    let mut world = World::new(&server);
    for _ in 0..50 {
        world.pass(Tier::Critical, Some(Wanted { evict: true, ..throttled(9) }), 100).await;
    }
    let asked = server.lock().requests.iter().filter(|(_, request)| request.ends_with("/eviction")).count();
    assert_eq!(asked, 1);
    let outcomes = world.teller.take_evicted(world.ends.recv().await.unwrap());
    assert_eq!((outcomes.len(), &outcomes[0].result, outcomes[0].workload.inode), (1, &ActResult::Done, 7));
    let dry = Config {
        kubernetes: plimsoll_policy::config::Kubernetes { evict: false, ..Default::default() },
        ..Config::default()
    };
    let server = Server::default();
    let mut world = World::with(&server, &dry);
    world.pass(Tier::Critical, Some(Wanted { evict: true, ..throttled(9) }), 1000).await;
    assert!(!server.lock().requests.iter().any(|(_, request)| request.ends_with("/eviction")));
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_an_annotation_is_told_once() {
    let server = Server::default();
    let mut world = World::new(&server);
    let problem = super::super::pods::Problem {
        annotation: "plimsoll.dev/rungs".into(),
        why: "\"fly\" is no rung".into(),
    };
    let pod = super::super::pods::Pod {
        uid: "u1".into(),
        name: "web-0".into(),
        namespace: "ns".into(),
        problems: vec![problem],
        ..Default::default()
    };
    for _ in 0..20 {
        world
            .pods
            .send_replace(Arc::new(Pods { pods: [("u1".into(), pod.clone())].into(), confirmed: true }));
        world.pass(Tier::Normal, None, 10_000).await;
    }
    assert_eq!(server.told(), ["InvalidAnnotation"]);
    assert_eq!(world.counts.problems(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the tiers and rungs do, and however the server takes it.
    #[test]
    fn no_course_makes_more_requests_than_the_budget(
        course in prop::collection::vec((0_usize..5, 0_u8..3, 1_u64..8000, any::<bool>()), 50..600),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let requests = runtime.block_on(async {
            let server = Server::default();
            let mut world = World::new(&server);
            for (action, (tier, rung, lasts, well)) in course.into_iter().enumerate() {
                server.lock().mood = if well { Mood::Well } else { Mood::Ill };
                let wanted = match rung {
                    0 => None,
                    1 => Some(throttled(action as u64 + 1)),
                    _ => Some(Wanted { evict: true, ..throttled(action as u64 + 1) }),
                };
                world.pass(Tier::ALL[tier], wanted, lasts).await;
            }
            let requests = server.lock().requests.clone();
            requests.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
        });
        for (n, first) in requests.iter().enumerate() {
            let minute = requests[n..].iter().take_while(|at| **at - *first < Duration::from_secs(60)).count();
            // The bucket, what comes back, and the second request of a taint and its races.
            prop_assert!(minute <= 30 + 12 + 8, "{} requests within a minute", minute);
        }
        let lasted = *requests.last().unwrap() - requests[0];
        prop_assert!(requests.len() as u64 <= 30 + lasted.as_secs() / 5 + 8);
    }
}
