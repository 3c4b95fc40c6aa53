//! Many nodes at one API server: what each asks of it when all is calm, when all of them are short at once, and when they end.
//!
//! A test runs a few hundred and asserts how often was asked, never how long it took. `cargo xtask scale` runs thousands.
use std::time::Duration;

use kube::Client;
use kube::api::Api;
use plimsoll_cluster::{Cluster, Options, Place, User};
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::instance::Instance;
use crate::meter::{Phase, Reading};
use crate::world::{admin, create, node, pod, pods};

/// Objects are made by so many at once.
const MAKERS: usize = 32;
/// Between two passes under pressure.
const PASS: Duration = Duration::from_secs(1);
/// After the last taint, for what else there is to tell.
const AFTER: Duration = Duration::from_secs(10);

/// How much of it.
struct Size {
    nodes: usize,
    /// Of each.
    pods: usize,
    /// How long nothing happens.
    calm: Duration,
}

impl Size {
    fn from_env() -> Self {
        let number = |name: &str, or: usize| {
            std::env::var(name)
                .map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
        };
        Self {
            nodes: number("PLIMSOLL_SCALE_NODES", 200),
            pods: number("PLIMSOLL_SCALE_PODS", 2),
            calm: Duration::from_secs(number("PLIMSOLL_SCALE_CALM", 10) as u64),
        }
    }
}

#[test]
fn what_many_nodes_ask_is_bounded() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(story(&Size::from_env()));
}

async fn story(size: &Size) {
    let cluster = Cluster::start(Options::from_env().unwrap()).unwrap();
    furnish(&admin(&cluster).await, size).await;
    let mut fleet = Fleet { cluster, instances: Vec::new(), last: None };
    fleet.begin();
    fleet.start(size).await;
    let start = fleet.end("start", size);
    fleet.calm(size).await;
    let calm = fleet.end("calm", size);
    fleet.pressure().await;
    let pressure = fleet.end("all short at once", size);
    fleet.relief().await;
    let relief = fleet.end("all calm again", size);
    fleet.farewell().await;
    let farewell = fleet.end("all end at once", size);
    judge(size, &[start, calm, pressure, relief, farewell]);
}

/// How often each node may ask. A server that does not keep up is asked again, within a node's budget of twelve requests a minute.
fn judge(size: &Size, phases: &[Phase; 5]) {
    let [start, calm, pressure, relief, farewell] = phases;
    let (nodes, pods) = (size.nodes as u64, size.pods as u64);
    let check = |what: &str, phase: &Phase, sum: u64| {
        let again = if phase.kept_up() { 0 } else { nodes * (1 + phase.took.as_secs() / 5) };
        let (count, most) = (phase.count(), sum + again);
        assert!(count <= most, "{what}: {count} requests, {most} at most: {:#?}", phase.requests);
    };
    // Pods are listed, the node is looked at, its condition written.
    check("start", start, 4 * nodes);
    assert!(start.of("LIST pods 200") >= nodes && start.of("PATCH nodes/status 200") >= nodes);
    // A watch is renewed every few minutes, and so is the condition.
    check("calm", calm, nodes * (1 + calm.took.as_secs() / 60));
    // The taint (looked at and set), the condition, an Event of the node and one of each pod; each twice where it climbs in two steps.
    check("all short at once", pressure, nodes * 2 * (4 + pods));
    assert!(pressure.of("PATCH nodes ") >= nodes && pressure.of("POST events ") >= nodes);
    check("all calm again", relief, nodes * 2 * (4 + pods));
    check("all end at once", farewell, nodes * (4 + pods));
}

async fn furnish(client: &Client, size: &Size) {
    let nodes: Vec<_> = (0..size.nodes).map(name).collect();
    let mut makers = JoinSet::new();
    for some in nodes.chunks(nodes.len().div_ceil(MAKERS)).map(<[String]>::to_vec) {
        let (api, pods, each) = (Api::all(client.clone()), pods(client), size.pods);
        makers.spawn(async move {
            for name in some {
                create(&api, &node(&name)).await;
                for index in 0..each {
                    create(&pods, &pod(&format!("{name}-{index}"), &name, &Value::Null)).await;
                }
            }
        });
    }
    makers.join_all().await;
}

fn name(index: usize) -> String {
    format!("node-{index:04}")
}

/// All nodes, in this process.
struct Fleet {
    cluster: Cluster,
    instances: Vec<Instance>,
    last: Option<Reading>,
}

impl Fleet {
    fn begin(&mut self) {
        self.last = Some(Reading::take(&self.cluster));
    }

    /// What happened since the last end of a phase. Said, for people.
    fn end(&mut self, what: &str, size: &Size) -> Phase {
        let now = Reading::take(&self.cluster);
        let phase = now.since(self.last.as_ref().unwrap());
        say(what, &phase, &now, size);
        self.last = Some(now);
        phase
    }

    /// All at once, as no rollout would.
    async fn start(&mut self, size: &Size) {
        let kubeconfig = self.cluster.kubeconfig(&User::Admin, Place::Here).unwrap();
        for index in 0..size.nodes {
            let mut instance = Instance::start(&kubeconfig, &name(index));
            instance.pass(Tier::Normal, Rung::Free);
            self.instances.push(instance);
        }
        let ready = |instance: &Instance| {
            let pods = instance.pods();
            pods.confirmed && pods.pods.len() == size.pods && instance.counts.condition().is_some()
        };
        self.until("pods and condition", ready).await;
    }

    async fn calm(&mut self, size: &Size) {
        let end = Instant::now() + size.calm;
        while Instant::now() < end {
            self.pass(Tier::Normal, Rung::Free);
            sleep(PASS * 5).await;
        }
    }

    async fn pressure(&mut self) {
        self.pass(Tier::Critical, Rung::Throttle);
        self.until("taints", |instance| instance.counts.taint() == 2).await;
        sleep(AFTER).await;
    }

    async fn relief(&mut self) {
        self.pass(Tier::Normal, Rung::Free);
        self.until("no taints", |instance| instance.counts.taint() == 0).await;
        sleep(AFTER).await;
    }

    /// All at once, as when the DaemonSet is deleted.
    async fn farewell(&mut self) {
        let instances = std::mem::take(&mut self.instances);
        let farewells: JoinSet<_> =
            instances.into_iter().map(|instance| instance.teller.farewell()).collect();
        farewells.join_all().await;
    }

    fn pass(&mut self, tier: Tier, rung: Rung) {
        self.instances.iter_mut().for_each(|instance| instance.pass(tier, rung));
    }

    /// Waits for all, and says when half, nearly all, and all were there.
    async fn until(&self, what: &str, is_so: impl Fn(&Instance) -> bool) {
        let (start, all) = (Instant::now(), self.instances.len());
        let mut steps = [50, 99, 100].into_iter().peekable();
        while let Some(share) = steps.peek() {
            let there = self.instances.iter().filter(|instance| is_so(instance)).count();
            if there * 100 >= all * share {
                println!("  {what}: {share} % after {:.1} s", start.elapsed().as_secs_f64());
                steps.next();
                continue;
            }
            assert!(start.elapsed() < Duration::from_secs(600), "{what}: only {there} of {all}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// One phase, in a few lines.
fn say(what: &str, phase: &Phase, now: &Reading, size: &Size) {
    let (nodes, minutes) = (size.nodes as f64, phase.took.as_secs_f64() / 60.0);
    let each = phase.count() as f64 / nodes;
    let mib = |bytes: u64| bytes >> 20;
    println!(
        "{what}: {:.0} s, {} requests, {each:.2} a node, {:.2} a node and minute, {} MiB answered, {} watches open",
        phase.took.as_secs_f64(),
        phase.count(),
        each / minutes,
        mib(phase.bytes),
        now.watches,
    );
    println!(
        "  API server {:.1} s of a processor, {} MiB; the nodes {:.1} s, {} MiB",
        phase.cpu.0.as_secs_f64(),
        mib(now.server_rss()),
        phase.cpu.1.as_secs_f64(),
        mib(now.own_rss()),
    );
    for (request, count) in &phase.requests {
        println!("  {count:>7} {request}");
    }
}
