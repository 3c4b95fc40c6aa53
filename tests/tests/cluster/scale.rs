//! Many nodes at one API server: what each asks of it when all is calm, when all of them are short at once, and when they end.
//!
//! A test runs a few hundred and asserts how often was asked, never how long it took. `cargo xtask scale` runs thousands.
use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use kube::api::Api;
use plimsoll::kubernetes::tell::counts::{Ending, What};
use plimsoll_cluster::{Cluster, Options, Place, User};
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::bystander::{self, Bystander};
use crate::instance::Instance;
use crate::meter::{Phase, Reading};
use crate::world::{MANIFESTS, admin, create, node, pod, pods};

/// Objects are made by so many at once.
const MAKERS: usize = 32;
/// Between two passes under pressure.
const PASS: Duration = Duration::from_secs(1);
/// After the last taint, for what else there is to tell.
const AFTER: Duration = Duration::from_secs(10);
/// The longest wait for all of them. Pauses after failures double to two minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// How much of it.
struct Size {
    nodes: usize,
    /// Of each.
    pods: usize,
    /// In which they start; zero is all at once.
    start_over: Duration,
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
            start_over: Duration::from_secs(number("PLIMSOLL_SCALE_START_OVER", 0) as u64),
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
    let options = Options { nodes: vec![bystander::NODE.into()], ..Options::from_env().unwrap() };
    let cluster = Cluster::start(options).unwrap();
    cluster.kubectl(&["apply", "-k", MANIFESTS]).unwrap();
    furnish(&admin(&cluster).await, size).await;
    let mut fleet = Fleet::new(cluster);
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
    assert!(fleet.missed.is_empty(), "not within {PATIENCE:?}: {:?}", fleet.missed);
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
    let (begun, mut makers) = (Instant::now(), JoinSet::new());
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
    println!("made {} nodes and their pods in {:.0} s", size.nodes, begun.elapsed().as_secs_f64());
}

fn name(index: usize) -> String {
    format!("node-{index:04}")
}

/// All nodes, in this process.
struct Fleet {
    cluster: Cluster,
    bystander: Bystander,
    instances: Vec<Instance>,
    last: Reading,
    /// What not all of them came to.
    missed: Vec<String>,
}

impl Fleet {
    fn new(cluster: Cluster) -> Self {
        let (bystander, last) = (Bystander::start(&cluster), Reading::take(&cluster));
        Self { cluster, bystander, instances: Vec::new(), last, missed: Vec::new() }
    }

    /// What happened since the last end of a phase. Said, for people.
    fn end(&mut self, what: &str, size: &Size) -> Phase {
        let now = Reading::take(&self.cluster);
        let phase = now.since(&self.last);
        say(what, &phase, &now, size);
        println!("  what came to nothing so far, as the nodes say: {:?}", self.failures());
        println!("  a kubelet beside them: {}", self.bystander.take());
        self.last = now;
        phase
    }

    /// What the nodes asked for in vain, by what and why: a connection that never comes about is no request for the API server.
    fn failures(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        let mut add = |what: &str, why: &str, count: u64| {
            if count > 0 {
                *all.entry(format!("{what} {why}")).or_default() += count;
            }
        };
        for instance in &self.instances {
            for (what, why) in What::ALL.into_iter().flat_map(|what| Ending::ALL.map(|why| (what, why))) {
                if why != Ending::Done {
                    add(what.name(), why.name(), instance.counts.requests(what, why));
                }
            }
            let watch = instance.parts.contact.standing().failures;
            watch.into_iter().for_each(|(why, count)| add("watch", why, count));
        }
        all
    }

    /// With the account of the DaemonSet: an administrator's requests are never made to wait by the API server.
    async fn start(&mut self, size: &Size) {
        let account = User::ServiceAccount("plimsoll".into(), "plimsoll".into());
        let kubeconfig = self.cluster.kubeconfig(&account, Place::Here).unwrap();
        let (begun, each) = (Instant::now(), size.start_over / size.nodes as u32);
        for index in 0..size.nodes {
            sleep_until(begun + each * index as u32).await;
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
    async fn until(&mut self, what: &str, is_so: impl Fn(&Instance) -> bool) {
        let (start, all) = (Instant::now(), self.instances.len());
        let mut steps = [50, 99, 100].into_iter().peekable();
        while let Some(share) = steps.peek() {
            let there = self.instances.iter().filter(|instance| is_so(instance)).count();
            if there * 100 >= all * share {
                println!("  {what}: {share} % after {:.1} s", start.elapsed().as_secs_f64());
                steps.next();
                continue;
            }
            if start.elapsed() > PATIENCE {
                let missed = format!("{what}: only {there} of {all}");
                println!("  {missed}");
                return self.missed.push(missed);
            }
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
