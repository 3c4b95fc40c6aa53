//! What the API server is told: Events, the node's condition, its taint. All of it goes again.
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node};
use kube::Client;
use kube::api::{Api, ListParams};
use plimsoll_cluster::{Place, User};
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use serde_json::{Value, json};
use tokio::time::{advance, pause, resume};

use crate::instance::Instance;
use crate::world::{admin, create, eventually, merge, node, pod, pods, shared};

const TAINT: &str = "plimsoll.dev/memory-pressure";
const CONDITION: &str = "plimsoll.dev/MemoryTier";

/// Only the clock of what waits: neither the API server nor the tests' own patience know of it.
async fn pass_time(seconds: u64) {
    pause();
    advance(Duration::from_secs(seconds)).await;
    resume();
}

async fn get(client: &Client, name: &str) -> Node {
    Api::all(client.clone()).get(name).await.unwrap()
}

async fn effect(client: &Client, name: &str) -> Option<String> {
    let taints = get(client, name).await.spec.unwrap_or_default().taints.unwrap_or_default();
    taints.into_iter().find(|taint| taint.key == TAINT).map(|taint| taint.effect)
}

/// Status and reason.
async fn condition(client: &Client, name: &str) -> Option<(String, String)> {
    let conditions = get(client, name).await.status.unwrap_or_default().conditions.unwrap_or_default();
    let ours = conditions.into_iter().find(|condition| condition.type_ == CONDITION)?;
    Some((ours.status, ours.reason.unwrap_or_default()))
}

fn pair(status: &str, reason: &str) -> Option<(String, String)> {
    Some((status.to_owned(), reason.to_owned()))
}

/// Of a pod or a node.
async fn events(client: &Client, about: &str, reason: &str) -> Vec<Event> {
    let fields = format!("involvedObject.name={about},reason={reason}");
    Api::<Event>::all(client.clone()).list(&ListParams::default().fields(&fields)).await.unwrap().items
}

async fn start(name: &str) -> (std::sync::Arc<plimsoll_cluster::Cluster>, Client, Instance) {
    let cluster = shared();
    let client = admin(&cluster).await;
    create(&Api::all(client.clone()), &node(name)).await;
    let instance = Instance::start(&cluster.kubeconfig(&User::Admin, Place::Here).unwrap(), name);
    (cluster, client, instance)
}

#[tokio::test]
async fn a_node_that_is_short_says_so_as_long_as_it_is() {
    let (_cluster, client, mut instance) = start("t1").await;
    instance.pass(Tier::Normal, Rung::Free);
    eventually("calm", || async { condition(&client, "t1").await == pair("False", "Normal") }).await;
    assert_eq!(effect(&client, "t1").await, None);
    instance.pass(Tier::Constrained, Rung::Free);
    pass_time(11).await;
    eventually("the soft taint", || async {
        effect(&client, "t1").await.as_deref() == Some("PreferNoSchedule")
    })
    .await;
    eventually("the condition", || async { condition(&client, "t1").await == pair("True", "Constrained") })
        .await;
    instance.pass(Tier::Critical, Rung::Free);
    pass_time(11).await;
    eventually("the hard taint", || async { effect(&client, "t1").await.as_deref() == Some("NoSchedule") })
        .await;
    eventually("that it is critical", || async {
        condition(&client, "t1").await == pair("True", "Critical")
    })
    .await;
    instance.pass(Tier::Normal, Rung::Free);
    pass_time(20).await;
    eventually("a write", || async { !events(&client, "t1", "MemoryCritical").await.is_empty() }).await;
    assert_eq!(effect(&client, "t1").await.as_deref(), Some("NoSchedule"), "a short calm is none");
    pass_time(100).await;
    eventually("no taint", || async { effect(&client, "t1").await.is_none() }).await;
    eventually("calm again", || async { condition(&client, "t1").await == pair("False", "Normal") }).await;
    instance.teller.farewell().await;
    assert_eq!(condition(&client, "t1").await, None);
}

#[tokio::test]
async fn what_a_daemon_left_that_was_killed_its_successor_takes_away() {
    let (cluster, client, mut killed) = start("t2").await;
    killed.pass(Tier::Critical, Rung::Free);
    pass_time(11).await;
    eventually("the taint", || async { effect(&client, "t2").await.is_some() }).await;
    // SIGKILL says no farewell.
    std::mem::forget(killed.teller);
    let kubeconfig = cluster.kubeconfig(&User::Admin, Place::Here).unwrap();
    let mut successor = Instance::start(&kubeconfig, "t2");
    successor.pass(Tier::Normal, Rung::Free);
    eventually("a look", || async { successor.counts.taint() == 2 }).await;
    pass_time(100).await;
    eventually("no taint", || async { effect(&client, "t2").await.is_none() }).await;
    // And the next one says farewell while it is short.
    successor.pass(Tier::Critical, Rung::Free);
    pass_time(11).await;
    eventually("the taint again", || async { effect(&client, "t2").await.is_some() }).await;
    successor.teller.farewell().await;
    assert_eq!((effect(&client, "t2").await, condition(&client, "t2").await), (None, None));
}

#[tokio::test]
async fn what_others_write_of_the_node_at_the_same_time_is_left_as_it_is() {
    let (_cluster, client, mut instance) = start("t3").await;
    let nodes: Api<Node> = Api::all(client.clone());
    let others = json!([{ "key": "example.org/mine", "value": "x", "effect": "NoExecute" }]);
    merge(&nodes, "t3", json!({ "spec": { "taints": others } })).await;
    // A kubelet's and a label's writer, a hundred times as busy as they are.
    let writer = tokio::spawn({
        let nodes = nodes.clone();
        async move {
            for turn in 0.. {
                merge(&nodes, "t3", json!({ "metadata": { "labels": { "turn": format!("{turn}") } } })).await;
                let beat = json!({ "type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory",
                    "message": format!("turn {turn}") });
                let patch = kube::api::Patch::Strategic(json!({ "status": { "conditions": [beat] } }));
                tokio::time::sleep(Duration::from_millis(100)).await;
                nodes.patch_status("t3", &kube::api::PatchParams::default(), &patch).await.unwrap();
            }
        }
    });
    instance.pass(Tier::Critical, Rung::Free);
    pass_time(11).await;
    eventually("the taint", || async { effect(&client, "t3").await.is_some() }).await;
    eventually("the condition", || async {
        condition(&client, "t3").await.is_some_and(|(status, _)| status == "True")
    })
    .await;
    instance.pass(Tier::Normal, Rung::Free);
    pass_time(100).await;
    eventually("no taint", || async { effect(&client, "t3").await.is_none() }).await;
    writer.abort();
    let _ = writer.await;
    instance.teller.farewell().await;
    let left = get(&client, "t3").await;
    let taints = left.spec.unwrap().taints.unwrap();
    assert_eq!(serde_json::to_value(&taints).unwrap(), others);
    let conditions = left.status.unwrap().conditions.unwrap();
    let mut types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
    types.sort_unstable();
    assert_eq!(types, ["MemoryPressure", "Ready"]);
}

#[tokio::test]
async fn a_mistake_in_an_annotation_is_told_once_of_the_pod_by_however_many_daemons() {
    let (cluster, client, _first) = start("t4").await;
    create(&pods(&client), &pod("t4-chat", "t4", &json!({ "plimsoll.dev/priority": "high" }))).await;
    let told = || events(&client, "t4-chat", "InvalidAnnotation");
    eventually("the event", || async { told().await.len() == 1 }).await;
    let kubeconfig = cluster.kubeconfig(&User::Admin, Place::Here).unwrap();
    let second = Instance::start(&kubeconfig, "t4");
    eventually("that the second has read it", || async { second.counts.problems() == 1 }).await;
    // Anything that makes it look at the pod again.
    merge(&pods(&client), "t4-chat", json!({ "metadata": { "labels": { "other": "x" } } })).await;
    eventually("that the second has said it", || async { has_spoken(&second) }).await;
    let told = told().await;
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0].type_.as_deref(), Some("Warning"));
    assert!(told[0].message.as_deref().unwrap().contains("plimsoll.dev/priority"), "{told:#?}");
}

fn has_spoken(instance: &Instance) -> bool {
    use plimsoll::kubernetes::tell::counts::{Ending, What};
    Ending::ALL.iter().any(|ending| instance.counts.requests(What::Event, *ending) > 0)
}

#[tokio::test]
async fn what_is_done_to_a_pod_is_told_of_that_pod() {
    let (_cluster, client, mut instance) = start("t5").await;
    create(&pods(&client), &pod("t5-batch", "t5", &Value::Null)).await;
    eventually("the pod", || async { instance.names() == ["t5-batch"] }).await;
    instance.pass(Tier::Critical, Rung::Throttle);
    let told = |reason| events(&client, "t5-batch", reason);
    eventually("that it is throttled", || async { told("ModelThrottled").await.len() == 1 }).await;
    instance.pass(Tier::Normal, Rung::Free);
    eventually("that it is not any more", || async { told("ModelReleased").await.len() == 1 }).await;
    let event = told("ModelThrottled").await.remove(0);
    assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.containers{main}"));
    assert!(event.message.unwrap().contains("memory.high set to 1GiB"));
}
