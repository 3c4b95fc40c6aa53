//! What pods need, at the real desk: whole passes on a machine of 16 GiB.

use plimsoll_policy::admission::Reason;
use plimsoll_policy::config::Config;
use plimsoll_policy::pass::step;
use plimsoll_policy::sample::{Meminfo, MemoryStat, Spec, Workload};
use plimsoll_policy::state::State;
use tokio::sync::watch;

use super::*;
use crate::kubernetes::pods::{Container, Pod};

/// A node, on which 1 GiB is in use by nobody in particular.
struct Node {
    config: Config,
    state: State,
    needs: Needs,
    told: watch::Sender<Arc<Pods>>,
    pods: Pods,
    cgroups: BTreeMap<WorkloadId, (PodRef, Bytes)>,
    at: Monotonic,
}

fn gib(n: u64) -> Bytes {
    Bytes::mib(n << 10)
}

fn of(pod: &str) -> PodRef {
    PodRef { namespace: "models".into(), pod: pod.into(), uid: pod.into(), container: "server".into() }
}

impl Node {
    fn new() -> Self {
        let (told, pods) = watch::channel(Arc::default());
        Self {
            config: Config::default(),
            state: State::default(),
            needs: Needs::new(pods, Tickets::default()),
            told,
            pods: Pods { confirmed: true, ..Pods::default() },
            cgroups: BTreeMap::new(),
            at: Monotonic(1_000_000_000_000),
        }
    }

    fn pod(&mut self, name: &str, needs: Bytes) {
        let container = Container { of: of(name), needs: Some(needs), ..Container::default() };
        let pod = Pod { uid: name.into(), containers: vec![container], ..Pod::default() };
        self.pods.pods.insert(name.into(), pod);
    }

    /// The container starts, in a cgroup that is new each time.
    fn start(&mut self, name: &str) -> WorkloadId {
        let inode = self.at.0;
        let id = WorkloadId { path: format!("kubepods/pod{name}/{inode}").into(), inode };
        self.cgroups.insert(id.clone(), (of(name), Bytes::ZERO));
        if let Some(pod) = self.pods.pods.get_mut(name) {
            pod.containers[0].id = Some(inode.to_string());
        }
        id
    }

    fn grow(&mut self, id: &WorkloadId, by: Bytes) {
        let anon = &mut self.cgroups.get_mut(id).unwrap().1;
        *anon = *anon + by;
    }

    fn sample(&self) -> Sample {
        let workload = |anon: Bytes| Workload {
            spec: Spec { priority: 5, ..Spec::default() },
            current: Some(anon),
            populated: Some(true),
            stat: Some(MemoryStat { anon, ..MemoryStat::default() }),
            stat_at: self.at,
            ..Workload::default()
        };
        let used: Bytes = self.cgroups.values().map(|(_, anon)| *anon).sum();
        let free = gib(15).saturating_sub(used);
        let meminfo = Meminfo { total: gib(16), free, available: free, ..Meminfo::default() };
        let mut sample = Sample { at: self.at, ..Sample::default() };
        sample.host.meminfo = Some(meminfo);
        sample.workloads = self.cgroups.iter().map(|(id, (_, anon))| (id.clone(), workload(*anon))).collect();
        sample
    }

    /// A second passes, and a pass is made.
    fn second(&mut self) -> Vec<Unmet> {
        self.at = self.at + Span::secs(1);
        self.told.send_replace(Arc::new(self.pods.clone()));
        self.needs.follow(self.cgroups.iter().map(|(id, (of, _))| (id, of)));
        let mut sample = self.sample();
        self.needs.ask(&mut sample, &self.config.admission);
        let pass = step(&self.config, std::mem::take(&mut self.state), &sample);
        self.state = pass.state;
        self.needs.hear(&pass.plan.answers, self.at)
    }

    fn seconds(&mut self, n: u64) {
        (0..n).for_each(|_| drop(self.second()));
    }

    fn reserved(&self) -> Bytes {
        self.state.admission.reserved()
    }
}

#[test]
fn room_is_kept_from_the_pod_to_the_loaded_model() {
    let mut node = Node::new();
    node.pod("chat", gib(6));
    assert_eq!((node.second(), node.reserved()), (Vec::new(), gib(6)));
    node.seconds(300);
    assert_eq!(node.reserved(), gib(6), "while its image is pulled");
    let chat = node.start("chat");
    node.second();
    assert_eq!(node.reserved(), gib(6), "now by its cgroup, and not twice");
    node.grow(&chat, gib(4));
    node.second();
    assert_eq!(node.reserved(), gib(2), "settled by what it has");
    node.grow(&chat, gib(2));
    node.second();
    assert_eq!(node.reserved(), Bytes::ZERO);
}

#[test]
fn it_is_given_back_with_the_pod_and_reserved_again_when_its_container_comes_again() {
    let mut node = Node::new();
    node.pod("chat", gib(6));
    node.second();
    let chat = node.start("chat");
    node.second();
    node.grow(&chat, gib(1));
    node.second();
    assert_eq!(node.reserved(), gib(5));
    node.cgroups.remove(&chat);
    node.second();
    assert_eq!(node.reserved(), Bytes::ZERO, "while it waits to be started again");
    node.start("chat");
    node.second();
    assert_eq!(node.reserved(), gib(6));
    node.pods.pods.clear();
    node.second();
    assert_eq!(node.reserved(), Bytes::ZERO);
}

#[test]
fn nobody_holds_memory_for_a_pod_that_never_starts_or_never_loads() {
    let mut node = Node::new();
    node.pod("stuck", gib(6));
    node.seconds(599);
    assert_eq!(node.reserved(), gib(6));
    node.seconds(2);
    assert_eq!(node.reserved(), Bytes::ZERO);
    node.pod("small", gib(4));
    node.second();
    node.start("small");
    node.seconds(800);
    assert_eq!(node.reserved(), Bytes::ZERO, "the time that a model may take to load is over");
}

#[test]
fn no_room_is_told_once_and_what_is_lacking_is_asked_for_again() {
    let mut node = Node::new();
    node.pod("first", gib(10));
    node.second();
    node.pod("second", gib(6));
    let told = node.second();
    let [unmet] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&unmet.of, unmet.needs, unmet.refusal.reason), (&of("second"), gib(6), Reason::NoRoom));
    let second = node.start("second");
    assert_eq!(node.second(), Vec::new());
    node.grow(&second, gib(2));
    node.pods.pods.remove("first");
    let told: Vec<_> = (0..15).flat_map(|_| node.second()).collect();
    assert_eq!((told.len(), node.reserved()), (0, gib(4)), "what it has already is not promised");
}

#[test]
fn a_node_that_nobody_has_confirmed_holds_nothing_for_pods_to_come() {
    let mut node = Node::new();
    node.pods.confirmed = false;
    node.pod("old", gib(6));
    node.second();
    assert_eq!(node.reserved(), Bytes::ZERO);
    node.start("old");
    node.second();
    assert_eq!(node.reserved(), gib(6), "it is there");
}

#[test]
fn there_is_room_left_at_the_desk_for_others() {
    let mut node = Node::new();
    for n in 0..MOST + 50 {
        node.pod(&format!("pod{n}"), Bytes::mib(1));
    }
    node.seconds(3);
    assert_eq!(node.state.admission.reservations.len(), MOST);
}
