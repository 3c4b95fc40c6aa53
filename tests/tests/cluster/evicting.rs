//! Handing a pod over: the Eviction API grants it, a disruption budget forbids it, or there is nobody left.
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use plimsoll_cluster::{Cluster, Place, User};
use plimsoll_policy::plan::{Act, ActResult};
use serde_json::{Value, json};

use crate::instance::Instance;
use crate::world::{admin, create, eventually, node, pod, pods, remove, shared};

/// An instance whose node has one pod, of that name, which runs and is ready.
async fn with_pod(cluster: &Cluster, client: &Client, name: &str) -> Instance {
    create(&Api::all(client.clone()), &node(name)).await;
    let pods = pods(client);
    create(&pods, &pod(name, name, &Value::Null)).await;
    let ready =
        json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    let _: Pod = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    let instance = Instance::start(&cluster.kubeconfig(&User::Admin, Place::Here).unwrap(), name);
    eventually("the pod", || async { instance.names() == [name] }).await;
    instance
}

async fn evict(instance: &mut Instance) -> ActResult {
    instance.want_evictions();
    let mut outcomes = instance.evicted().await;
    assert_eq!((outcomes.len(), &outcomes[0].act), (1, &Act::Evict));
    outcomes.remove(0).result
}

#[tokio::test]
async fn a_pod_goes_when_it_is_asked_to_and_is_gone_afterwards() {
    let cluster = shared();
    let client = admin(&cluster).await;
    let mut instance = with_pod(&cluster, &client, "e1").await;
    assert_eq!(evict(&mut instance).await, ActResult::Done);
    let left = pods(&client).get("e1").await.unwrap();
    assert!(left.metadata.deletion_timestamp.is_some(), "it is ending");
}

#[tokio::test]
async fn a_pod_that_is_gone_is_an_answer() {
    let cluster = shared();
    let client = admin(&cluster).await;
    let mut instance = with_pod(&cluster, &client, "e2").await;
    // Between this and the request the watch may tell; here it can't, since nothing runs on this thread meanwhile.
    instance.want_evictions();
    cluster.kubectl(&["delete", "pod", "e2", "--grace-period=0", "--force"]).unwrap();
    assert_eq!(instance.evicted().await[0].result, ActResult::Gone);
}

#[tokio::test]
async fn a_disruption_budget_is_honoured() {
    let cluster = shared();
    let client = admin(&cluster).await;
    let mut instance = with_pod(&cluster, &client, "e3").await;
    let budget = json!({
        "apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": { "name": "e3", "namespace": "default" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "e3" } } },
    });
    cluster.kubectl_with(&["apply", "-f", "-"], &budget.to_string()).unwrap();
    let healthy = ["get", "pdb", "e3", "-o", "jsonpath={.status.currentHealthy}"];
    eventually("that the budget has been looked at", || async { cluster.kubectl(&healthy).unwrap() == "1" })
        .await;
    let result = evict(&mut instance).await;
    assert!(matches!(&result, ActResult::Blocked(why) if why.contains("e3")), "{result:?}");
    assert!(pods(&client).get("e3").await.unwrap().metadata.deletion_timestamp.is_none());
    remove(&client, "e3").await;
}
