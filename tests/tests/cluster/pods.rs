//! The watch of a node's pods and what discovery makes of it, against a real API server that comes and goes.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use plimsoll::kubernetes::find::Finder;
use plimsoll::kubernetes::{self, Bell, Parts};
use plimsoll_cluster::{Cluster, Options, Place, User};
use plimsoll_policy::config::Config;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::harness::client;

const ID: &str = "0f3c5a0e7b3d9d6f0f3c5a0e7b3d9d6f0f3c5a0e7b3d9d6f0f3c5a0e7b3d9d6f";
/// Far more than anything here takes on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon's configuration on a machine of its own.
fn config(cluster: &Cluster, user: &User, dir: &Path) -> Config {
    let mut config = Config::default();
    config.kubernetes.enabled = true;
    config.kubernetes.node = Some("n1".into());
    config.kubernetes.kubeconfig =
        Some(cluster.kubeconfig(user, Place::Here).unwrap().to_str().unwrap().into());
    config.daemon.run_dir = dir.join("run").to_str().unwrap().into();
    config.daemon.cgroup_root = dir.join("cgroup").to_str().unwrap().into();
    fs::create_dir_all(&config.daemon.run_dir).unwrap();
    config
}

fn start(config: &Config) -> (Parts, Bell) {
    kubernetes::start(config, "system.slice/plimsoll.service", &Handle::current()).unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn pod(name: &str, node: &str) -> Pod {
    let object: Value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "annotations": { "plimsoll.dev/priority": "7" } },
        "spec": { "nodeName": node, "containers": [{ "name": "model", "image": "model" }] },
    });
    serde_json::from_value(object).unwrap()
}

/// As kubelet tells that its container runs.
async fn runs(api: &Api<Pod>, name: &str, id: &str) {
    let status = json!({ "status": { "phase": "Running", "containerStatuses": [{
        "name": "model", "image": "model", "imageID": "", "ready": true, "restartCount": 0, "started": true,
        "containerID": format!("containerd://{id}"),
    }] } });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Its cgroup, as runc makes it.
fn scope(config: &Config, uid: &str, id: &str) {
    let path = format!("kubepods/besteffort/pod{uid}/{id}");
    fs::create_dir_all(Path::new(&config.daemon.cgroup_root).join(path)).unwrap();
}

fn names(finder: &mut Finder) -> Vec<String> {
    finder.find().into_values().map(|workload| workload.spec.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pods_are_workloads_whether_the_api_server_is_there_or_not() {
    let mut cluster =
        Cluster::start(Options { nodes: vec!["n1".into()], ..Options::from_env().unwrap() }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = config(&cluster, &User::Node("n1".into()), dir.path());
    let admin = client(&cluster, &User::Admin).await;
    let api: Api<Pod> = Api::namespaced(admin, "default");
    let uid = api.create(&PostParams::default(), &pod("here", "n1")).await.unwrap().metadata.uid.unwrap();
    api.create(&PostParams::default(), &pod("elsewhere", "n2")).await.unwrap();
    scope(&config, &uid, ID);

    let (parts, bell) = start(&config);
    until("the pod is known", || parts.pods.borrow().confirmed).await;
    assert_eq!(parts.pods.borrow().pods.keys().collect::<Vec<_>>(), [&uid]);
    assert!(parts.client.borrow().is_some() && bell.try_recv().is_ok());
    let mut finder = Finder::new(&config, parts.pods.clone());
    assert!(names(&mut finder).is_empty(), "nothing runs in it, and no status names it");
    runs(&api, "here", ID).await;
    until("its status makes it a workload", || names(&mut finder) == ["default/here/model"]).await;
    let found = finder.find().into_values().next().unwrap();
    assert_eq!((found.spec.priority, found.pod.unwrap().uid), (7, uid.clone()));

    cluster.stop_api_server();
    until("it is missed", || parts.contact.standing().failures.contains_key("refused")).await;
    let before: u64 = parts.contact.standing().failures.values().sum();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let after: u64 = parts.contact.standing().failures.values().sum();
    assert!(
        (1..=6).contains(&(after - before)),
        "it is asked for again, and not too often: {before}, {after}"
    );
    assert!(!parts.contact.standing().connected);
    assert_eq!(names(&mut finder), ["default/here/model"]);

    let (second, _bell) = start(&config);
    let known = second.pods.borrow().clone();
    assert!(
        !known.confirmed && known.pods.contains_key(&uid),
        "a daemon that starts now knows it from the file"
    );
    assert_eq!(names(&mut Finder::new(&config, second.pods.clone())), ["default/here/model"]);

    cluster.start_api_server().unwrap();
    let again = "77".repeat(32);
    until("it is told again", || parts.contact.standing().connected && second.pods.borrow().confirmed).await;
    runs(&api, "here", &again).await;
    scope(&config, &uid, &again);
    let ends = |path: &str| path.ends_with(&again);
    until("its restarted container is the workload", || finder.find().keys().any(|path| ends(path))).await;
    assert_eq!(finder.find().len(), 1, "the old one is none any more");

    api.delete("here", &DeleteParams::default().grace_period(0)).await.unwrap();
    until("it is gone", || parts.pods.borrow().pods.is_empty() && second.pods.borrow().pods.is_empty()).await;
    assert!(names(&mut finder).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_deleted_while_nobody_looks_is_gone_and_who_may_not_look_is_told() {
    let mut cluster =
        Cluster::start(Options { nodes: vec!["n1".into()], ..Options::from_env().unwrap() }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let stranger = config(&cluster, &User::Node("n2".into()), dir.path());
    let (refused, _bell) = start(&stranger);
    until("it is forbidden", || {
        refused.contact.standing().failures.contains_key("forbidden")
            || refused.contact.standing().failures.contains_key("unauthorized")
    })
    .await;
    assert!(!refused.pods.borrow().confirmed);

    let known = json!({ "v": 1, "pods": { "confirmed": true, "pods": {
        "gone": serde_json::to_value(kubernetes::pods::Pod { uid: "gone".into(), ..Default::default() }).unwrap(),
    } } });
    let config = config(&cluster, &User::Node("n1".into()), dir.path());
    fs::write(Path::new(&config.daemon.run_dir).join("pods.json"), known.to_string()).unwrap();
    cluster.stop_api_server();
    let (parts, _bell) = start(&config);
    assert!(parts.pods.borrow().pods.contains_key("gone"));
    cluster.start_api_server().unwrap();
    until("the list lacks it", || parts.pods.borrow().confirmed).await;
    assert!(parts.pods.borrow().pods.is_empty());
}
