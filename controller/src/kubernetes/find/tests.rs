//! What is found in a tree as kubelet makes it, with and without what the API server says.
use std::fs;

use plimsoll_policy::sample::{Qos, Rung, Spec};

use super::super::book::Book;
use super::super::pods::PodRef;
use super::*;

const POD: &str = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podaa_bb.slice";

/// A tree of ordinary files, and processes that are no more than their names.
struct Node {
    dir: tempfile::TempDir,
    pids: u32,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        fs::create_dir_all(dir.path().join("root")).unwrap();
        Self { dir, pids: 0 }
    }

    /// A cgroup in a pod's directory with one process in it.
    fn runs(&mut self, path: &str, comm: &str) {
        self.scored(path, comm, 1000);
    }

    fn scored(&mut self, path: &str, comm: &str, score: i32) {
        self.pids += 1;
        let (group, process) = (self.root().join(path), self.dir.path().join(format!("proc/{}", self.pids)));
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("cgroup.procs"), format!("{}\n", self.pids)).unwrap();
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("comm"), format!("{comm}\n")).unwrap();
        fs::write(process.join("oom_score_adj"), format!("{score}\n")).unwrap();
    }

    fn ends(&self, path: &str) {
        fs::remove_dir_all(self.root().join(path)).unwrap();
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The names of those that are workloads, by the last part of their path.
    fn found(&self, pods: &Pods, alone: bool) -> Vec<(String, String)> {
        let found = self.finder(pods).join(&walk(&self.root()), pods, alone);
        found.into_iter().map(|(path, workload)| (last(&path), workload.spec.name)).collect()
    }

    fn finder(&self, pods: &Pods) -> Finder {
        let mut config = Config::default();
        config.daemon.cgroup_root = self.root().to_str().unwrap().to_owned();
        let (_, pods) = Book::new(pods.clone());
        Finder::at(&config, &self.dir.path().join("proc"), pods)
    }
}

fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap().to_owned()
}

fn container(name: &str, id: Option<&str>) -> Container {
    let of = PodRef { uid: "aa-bb".into(), container: name.into(), ..PodRef::default() };
    let spec = Spec { name: name.into(), ..Spec::default() };
    Container { of, id: id.map(str::to_owned), spec, ..Container::default() }
}

fn pods(containers: Vec<Container>, others: Vec<Option<&str>>) -> Pods {
    let others = others.into_iter().map(|id| id.map(str::to_owned)).collect();
    let pod = Pod { uid: "aa-bb".into(), containers, others, ..Pod::default() };
    Pods { pods: [(pod.uid.clone(), pod)].into(), confirmed: true }
}

fn scope(id: &str) -> String {
    format!("{POD}/cri-containerd-{id}.scope")
}

fn named(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(id, name)| (format!("cri-containerd-{id}.scope"), (*name).to_owned())).collect()
}

#[test]
fn a_status_says_which_cgroup_it_is_and_what_it_does_not_name_is_left_alone() {
    let mut node = Node::new();
    node.runs(&scope("00"), "pause");
    node.runs(&scope("11"), "model");
    node.runs(&scope("22"), "sidecar");
    let pods = pods(vec![container("m", Some("11"))], vec![None]);
    assert_eq!(node.found(&pods, false), named(&[("11", "m")]));
    let mut unmanaged = pods.clone();
    unmanaged.pods.get_mut("aa-bb").unwrap().unmanaged = Some("not selected".into());
    assert!(node.found(&unmanaged, true).is_empty());
}

#[test]
fn before_its_status_the_only_container_is_found_when_it_runs() {
    let mut node = Node::new();
    let pods = pods(vec![container("m", None)], vec![]);
    assert!(node.found(&pods, false).is_empty());
    node.runs(&scope("00"), "runc:[2:INIT]");
    assert!(node.found(&pods, false).is_empty(), "a sandbox that is being made looks like this");
    node.runs(&scope("00"), "pause");
    assert!(node.found(&pods, false).is_empty());
    node.runs(&scope("11"), "python3");
    assert_eq!(node.found(&pods, false), named(&[("11", "m")]));
    node.runs(&scope("22"), "sh");
    assert!(node.found(&pods, false).is_empty(), "it could be either");
}

#[test]
fn who_calls_himself_pause_and_is_large_is_none() {
    let mut node = Node::new();
    let pods = pods(vec![container("m", None)], vec![]);
    node.runs(&scope("11"), "pause");
    fs::write(node.root().join(scope("11")).join("memory.current"), "99999999\n").unwrap();
    assert_eq!(node.found(&pods, false), named(&[("11", "m")]));
}

#[test]
fn with_others_it_is_found_as_soon_as_they_are_accounted_for() {
    let mut node = Node::new();
    node.runs(&scope("00"), "pause");
    node.runs(&scope("22"), "init");
    let starting = pods(vec![container("m", None)], vec![None]);
    assert!(node.found(&starting, false).is_empty(), "an init container is no model");
    node.runs(&scope("11"), "model");
    let known = pods(vec![container("m", None)], vec![Some("22")]);
    assert_eq!(node.found(&known, false), named(&[("11", "m")]));
}

#[test]
fn a_container_that_restarted_is_the_same_under_another_id() {
    let mut node = Node::new();
    let pods = pods(vec![container("m", Some("11")), container("n", Some("33"))], vec![Some("22")]);
    for (id, comm) in [("00", "pause"), ("11", "m"), ("22", "sidecar"), ("33", "n")] {
        node.runs(&scope(id), comm);
    }
    assert_eq!(node.found(&pods, false), named(&[("11", "m"), ("33", "n")]));
    node.ends(&scope("11"));
    assert_eq!(node.found(&pods, false), named(&[("33", "n")]));
    node.runs(&scope("44"), "m");
    assert_eq!(node.found(&pods, false), named(&[("33", "n"), ("44", "m")]));
    node.ends(&scope("22"));
    assert_eq!(node.found(&pods, false), named(&[("33", "n")]), "it could be the sidecar's");
}

#[test]
fn a_process_in_a_cgroup_of_its_containers_own_counts() {
    let mut node = Node::new();
    let pods = pods(vec![container("m", None)], vec![]);
    node.runs(&format!("{}/container", scope("11")), "model");
    assert_eq!(node.found(&pods, false), named(&[("11", "m")]));
}

#[test]
fn strangers_are_workloads_only_where_nobody_can_say_who_they_are() {
    let mut node = Node::new();
    node.runs(&scope("00"), "pause");
    node.runs(&scope("11"), "model");
    node.runs("kubepods.slice/kubepods-podcc.slice/cri-containerd-22.scope", "guaranteed");
    node.runs("kubepods/besteffort/pod0123456789abcdef0123456789abcdef/33", "static");
    node.scored("kubepods/burstable/poddd/44", "critical", -997);
    let nobody = Pods::default();
    assert!(node.found(&nobody, false).is_empty());
    let mut finder = node.finder(&nobody);
    let found = finder.join(&walk(&node.root()), &nobody, true);
    let seen: Vec<_> = found.keys().map(|path| last(path)).collect();
    assert_eq!(seen, ["cri-containerd-11.scope"]);
    let spec = &found.values().next().unwrap().spec;
    assert_eq!((spec.priority, spec.qos, spec.name.as_str()), (0, Qos::Burstable, "unknown/aa-bb/11"));
    assert!(
        !spec.rungs.contains(&Rung::Kill)
            && spec.rungs.contains(&Rung::Throttle)
            && spec.freeze_max.is_some()
    );
    fs::write(node.dir.path().join("proc/2/oom_score_adj"), "-997\n").unwrap();
    assert_eq!(
        finder.join(&walk(&node.root()), &nobody, true).len(),
        1,
        "who was judged is not judged again"
    );
}

#[test]
fn the_api_server_has_the_last_word() {
    let mut node = Node::new();
    node.runs(&scope("11"), "model");
    let confirmed = Pods { confirmed: true, ..Pods::default() };
    assert!(node.found(&confirmed, false).is_empty(), "its pod was deleted");
}
