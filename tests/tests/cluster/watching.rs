//! The pods of a node, as a real API server tells them.
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use plimsoll_cluster::{Cluster, Options, Place, User};
use serde_json::{Value, json};

use crate::instance::Instance;
use crate::world::{admin, create, eventually, merge, node, pod, pods, remove, shared};

/// As the kubelet does when a container has started.
async fn report_running(api: &Api<Pod>, name: &str, id: &str) {
    let state = json!({ "running": { "startedAt": "2026-11-22T11:00:00Z" } });
    let container = json!({ "name": "main", "image": "model", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{id}"), "state": state });
    let status =
        json!({ "status": { "phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [container] } });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test]
async fn pods_of_this_node_are_known_and_no_others_with_what_changes_of_them() {
    let cluster = shared();
    let client = admin(&cluster).await;
    for name in ["w1", "w2"] {
        create(&Api::all(client.clone()), &node(name)).await;
    }
    let api = pods(&client);
    create(&api, &pod("w1-chat", "w1", &json!({ "plimsoll.dev/priority": "7" }))).await;
    create(&api, &pod("w2-chat", "w2", &Value::Null)).await;
    let kubeconfig = cluster.kubeconfig(&User::Admin, Place::Here).unwrap();
    let instance = Instance::start(&kubeconfig, "w1");
    eventually("the list", || async { instance.pods().confirmed }).await;
    assert_eq!(instance.names(), ["w1-chat"]);
    let priority = || {
        let pods = instance.pods();
        let chat = pods.pods.values().find(|pod| pod.name == "w1-chat");
        chat.map(|pod| pod.containers[0].spec.priority)
    };
    assert_eq!(priority(), Some(7));
    merge(&api, "w1-chat", json!({ "metadata": { "annotations": { "plimsoll.dev/priority": "-3" } } })).await;
    eventually("the new priority", || async { priority() == Some(-3) }).await;
    report_running(&api, "w1-chat", "c0ffee").await;
    let id = || instance.pods().pods.values().find_map(|pod| pod.containers[0].id.clone());
    eventually("the container's ID", || async { id().as_deref() == Some("c0ffee") }).await;
    // Restarted, it is another container.
    report_running(&api, "w1-chat", "decaf").await;
    eventually("the ID of its successor", || async { id().as_deref() == Some("decaf") }).await;
    create(&api, &pod("w1-batch", "w1", &Value::Null)).await;
    eventually("a pod more", || async { instance.names() == ["w1-batch", "w1-chat"] }).await;
    remove(&client, "w1-chat").await;
    eventually("a pod less", || async { instance.names() == ["w1-batch"] }).await;
}

#[tokio::test]
async fn with_the_api_server_away_the_pods_stay_known_and_what_changed_meanwhile_is_heard_of_afterwards() {
    let mut cluster = Cluster::start(Options::from_env().unwrap()).unwrap();
    let kubeconfig = cluster.kubeconfig(&User::Admin, Place::Here).unwrap();
    let client = admin(&cluster).await;
    let api = pods(&client);
    for name in ["stays", "goes"] {
        create(&api, &pod(name, "n1", &Value::Null)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let first = Instance::start_in(dir.path(), &kubeconfig, "n1");
    eventually("the list", || async { first.names() == ["goes", "stays"] && first.pods().confirmed }).await;
    cluster.stop_api_server();
    eventually("that nobody answers", || async { !first.parts.contact.standing().connected }).await;
    assert_eq!(first.names(), ["goes", "stays"]);
    // The daemon is restarted while there is nobody to ask.
    let second = Instance::start_in(dir.path(), &kubeconfig, "n1");
    assert_eq!(second.names(), ["goes", "stays"]);
    assert!(!second.pods().confirmed);
    cluster.start_api_server().unwrap();
    let client = admin(&cluster).await;
    remove(&client, "goes").await;
    create(&pods(&client), &pod("comes", "n1", &Value::Null)).await;
    for instance in [&first, &second] {
        eventually("what changed", || async { instance.names() == ["comes", "stays"] }).await;
        assert!(instance.pods().confirmed && instance.parts.contact.standing().connected);
    }
    let failures = first.parts.contact.standing().failures;
    assert!(failures.values().sum::<u64>() >= 1, "{failures:?}");
}
