//! What `kubectl apply -k manifests/` does to a cluster, and what its daemons may do there.
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll::check::{self, Capability};
use plimsoll_cluster::{Cluster, NO_KUBELETS, Options, Place, User};
use plimsoll_policy::config::Config;
use serde_json::{Value, json};

fn manifests() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests").display().to_string()
}

/// As the pod has it.
fn config(cluster: &Cluster) -> Config {
    let account = User::ServiceAccount("plimsoll".into(), "plimsoll".into());
    let mut config = Config::default();
    config.kubernetes.enabled = true;
    let file = cluster.kubeconfig(&account, Place::Here).unwrap();
    config.kubernetes.kubeconfig = Some(file.display().to_string());
    config
}

/// Names of what is missing.
fn missing(rows: &[Capability]) -> Vec<&str> {
    rows.iter().filter(|row| !row.available()).map(|row| &*row.name).collect()
}

/// The pods that the DaemonSet has made, as soon as there are any.
fn pods(cluster: &Cluster) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let list = cluster.kubectl(&["-n", "plimsoll", "get", "pods", "-o", "json"]).unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        let items = list["items"].as_array().unwrap();
        if !items.is_empty() {
            return items.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "the DaemonSet makes no pod");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_cluster_takes_the_manifests_and_they_grant_what_is_needed_and_no_more() {
    let options = Options { controllers: Some(NO_KUBELETS), ..Options::from_env().unwrap() };
    let mut cluster = Cluster::start(options).unwrap();
    let taint = json!({ "key": "plimsoll.dev/memory-pressure", "effect": "NoSchedule" });
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "spec": { "taints": [taint] },
        "metadata": { "name": "n1", "labels": { "kubernetes.io/os": "linux" } },
    });
    cluster.kubectl_with(&["apply", "-f", "-"], &node.to_string()).unwrap();
    let base = manifests();
    cluster.kubectl(&["apply", "-k", &base]).unwrap();
    let again = cluster.kubectl(&["apply", "-k", &base]).unwrap();
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    cluster.kubectl(&["apply", "-f", &format!("{base}/examples")]).unwrap();
    let pod = &pods(&cluster)[0];
    assert_eq!(pod["spec"]["priority"], 2_000_001_000, "critical to its node");

    let config = config(&cluster);
    let found = check::api(&config);
    assert!(missing(&found).is_empty(), "{found:?}");
    assert_eq!(found.len(), 1 + check::NEEDS.len());
    cluster.kubectl(&["delete", "clusterrolebinding", "plimsoll"]).unwrap();
    let bare = check::api(&config);
    let names: Vec<&str> = check::NEEDS.iter().map(|need| need.name).collect();
    assert_eq!(missing(&bare), names);
    assert!(bare[1].missing.as_ref().unwrap().mend.contains("verbs: [list, watch]"), "{bare:?}");
    cluster.stop_api_server();
    assert_eq!(missing(&check::api(&config)), ["api_server"]);
}
