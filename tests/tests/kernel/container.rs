//! The daemon in a container: its end takes nobody along, and it sees the tree as the host does.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plimsoll_tests::guest;
use rustix::process::Pid;

use crate::survive::processes;
use crate::world::{Daemon, Group, Workload, available_mib, get, wait, within};

/// The cgroup of a container in kubelet's layout; the workloads lie elsewhere in the tree.
struct Container {
    own: Group,
    _pods: Group,
}

impl Container {
    fn new() -> Self {
        let pods = Group::new("kubepods.slice");
        pods.write("cgroup.subtree_control", "+memory");
        Self { own: Group::new("kubepods.slice/cri-containerd-own.scope"), _pods: pods }
    }

    /// A program that is started in it, with a cgroup namespace of its own or the host's.
    fn command(&self, namespace: bool) -> Command {
        let mut command = Command::new(guest::workload());
        command.arg("launch").arg("--cgroup").arg(&self.own.path);
        command.args(namespace.then_some("--cgroup-namespace")).arg("--").arg(guest::plimsoll());
        command
    }

    fn daemon(&self, namespace: bool, config: &str) -> Daemon {
        Daemon::launch(&mut self.command(namespace), tempfile::tempdir_in("/run").unwrap(), config)
    }
}

const RULES: &str = "
workloads:
  - { name: chat, cgroup: t-chat, priority: 1000 }
  - { name: batch, cgroup: t-batch, priority: -10 }
";

fn guardian() -> Pid {
    let guardians = processes("plimsoll-guardian");
    assert_eq!(guardians.len(), 1, "one guardian");
    guardians[0]
}

fn cgroup_of(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).unwrap().trim().to_owned()
}

const SLICE: &str = "/sys/fs/cgroup/plimsoll.slice";

/// A workload that is frozen by a daemon in a container.
fn frozen(container: &Container, groups: (&Group, &Group), namespace: bool) -> ([Workload; 2], Daemon) {
    let protected = groups.0.idle_on(100);
    let daemon = container.daemon(namespace, RULES);
    let mib = (available_mib() + 200).to_string();
    let hog = groups.1.workload(&["batch-job", "--to-mib", &mib, "--rate-mib", "200"]);
    wait("the hog is frozen", || groups.1.is_frozen());
    ([protected, hog], daemon)
}

/// What a container runtime does to a container that it removes. Two seconds are the promise itself.
#[test]
fn the_end_of_the_container_releases_everything() {
    let container = Container::new();
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let (_loads, mut daemon) = frozen(&container, (&chat, &batch), true);
    assert_eq!(cgroup_of(guardian()), "0::/plimsoll.slice/guardian");
    container.own.write("cgroup.kill", "1");
    within(Duration::from_secs(2), "released after the container's end", || {
        !batch.is_frozen() && batch.read("memory.high") == "max" && chat.read("memory.low") == "0"
    });
    assert!(batch.is_populated(), "released means alive");
    daemon.child.wait().unwrap();
    wait("nothing of the daemon is left in its cgroup", || !container.own.is_populated());
    wait("the guardian goes", || processes("plimsoll-guardian").is_empty());
    wait("and takes its cgroup along", || !Path::new(SLICE).exists());
}

#[test]
fn an_orderly_end_leaves_no_cgroup() {
    let container = Container::new();
    let chat = Group::new("t-chat");
    let _protected = chat.idle_on(30);
    let daemon = container.daemon(false, RULES);
    assert!(Path::new(SLICE).join("guardian").exists());
    assert_eq!(daemon.finish().0, Some(0));
    assert!(!Path::new(SLICE).exists());
    assert!(!container.own.is_populated());
}

/// To a container's processes everybody else is in `/../..`.
#[test]
fn it_sees_the_tree_as_the_host_does() {
    let container = Container::new();
    let chat = Group::new("t-chat");
    let _protected = chat.idle_on(30);
    let rule =
        "workloads: [ { name: chat, process: { command: plimsoll-workload batch-job }, priority: 1000 } ]\n";
    let program = guest::workload();
    let rule = rule.replace("plimsoll-workload", program.to_str().unwrap());
    let daemon = container.daemon(true, &rule);
    wait("a workload is found by its process", || {
        get("/status").is_some_and(|status| status.contains("\"cgroup\":\"t-chat\""))
    });
    assert_eq!(container.own.number("memory.min"), 32 << 20, "it protects its own cgroup");
    let log = daemon.log();
    assert!(!log.contains("cgroup namespace") && !log.contains("could not protect itself"), "{log}");
    assert_eq!(daemon.finish().0, Some(0));
    assert_eq!(container.own.number("memory.min"), 0);
}

#[test]
fn check_in_a_container_finds_where_it_is() {
    let container = Container::new();
    let output = container.command(true).args(["check", "--json"]).output().unwrap();
    let found: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let row = |name: &str| found.iter().find(|row| row["name"] == name).unwrap().clone();
    let paths = row("cgroup_paths");
    assert!(paths["detail"] == "runs in /kubepods.slice/cri-containerd-own.scope", "{paths}");
    for name in ["cgroup_paths", "host_processes", "cgroup_writable"] {
        assert!(row(name)["missing"].is_null(), "{}", row(name));
    }
}
