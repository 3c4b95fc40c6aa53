//! The rights that the manifests give: what the daemon does needs each of them, and no more.
use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::Api;
use plimsoll::kubernetes::tell::counts::{Ending, What};
use plimsoll_cluster::{Cluster, Options, Place, User};
use plimsoll_policy::plan::{ActResult, Tier};
use plimsoll_policy::sample::Rung;
use serde_json::{Value, json};
use tokio::time::{advance, pause, resume};

use crate::instance::Instance;
use crate::world::{MANIFESTS, admin, create, eventually, node, pod, pods};

/// Everything that a daemon asks for, with the rights that it has; how often each was refused.
async fn everything(cluster: &Cluster, name: &str) -> BTreeMap<&'static str, u64> {
    let client = admin(cluster).await;
    create(&Api::all(client.clone()), &node(name)).await;
    create(&pods(&client), &pod(name, name, &json!({ "plimsoll.dev/priority": "high" }))).await;
    let user = User::ServiceAccount("plimsoll".into(), "plimsoll".into());
    let mut instance = Instance::start(&cluster.kubeconfig(&user, Place::Here).unwrap(), name);
    let refused_watch = |instance: &Instance| {
        instance.parts.contact.standing().failures.get("forbidden").copied().unwrap_or_default()
    };
    eventually("the pods, or a refusal", || async {
        instance.pods().confirmed || refused_watch(&instance) > 0
    })
    .await;
    instance.pass(Tier::Critical, Rung::Throttle);
    for _ in 0..4 {
        // Looks, writes and refusals follow each other, some seconds apart.
        tokio::time::sleep(Duration::from_millis(700)).await;
        pause();
        advance(Duration::from_secs(4)).await;
        resume();
    }
    let ended = |what| Ending::ALL.iter().map(|how| instance.counts.requests(what, *how)).sum::<u64>();
    for what in [What::Event, What::Taint] {
        eventually(what.name(), || async { ended(what) > 0 }).await;
    }
    if !instance.names().is_empty() {
        instance.want_evictions();
        let result = &instance.evicted().await[0].result;
        assert!(matches!(result, ActResult::Done | ActResult::Failed(_)), "{result:?}");
    }
    let refused = |what: What| (what.name(), instance.counts.requests(what, Ending::Refused));
    let mut all: BTreeMap<_, _> = What::ALL.into_iter().map(refused).collect();
    all.insert("pods", refused_watch(&instance));
    all.retain(|_, count| *count > 0);
    instance.teller.farewell().await;
    all
}

#[tokio::test]
async fn the_manifests_give_the_rights_that_are_needed_and_no_rule_can_be_missed() {
    let cluster = Cluster::start(Options::from_env().unwrap()).unwrap();
    cluster.kubectl(&["apply", "-k", MANIFESTS]).unwrap();
    assert_eq!(everything(&cluster, "r-all").await, BTreeMap::new());
    let role = cluster.kubectl(&["get", "clusterrole", "plimsoll", "-o", "json"]).unwrap();
    let role: Value = serde_json::from_str(&role).unwrap();
    let rules = role["rules"].as_array().unwrap();
    let needed = ["pods", "events", "nodes", "nodes/status", "pods/eviction"];
    assert_eq!(rules.len(), needed.len());
    for (index, resource) in needed.iter().enumerate() {
        assert_eq!(rules[index]["resources"], json!([resource]));
        let others: Vec<_> = rules.iter().filter(|rule| rule["resources"] != json!([resource])).collect();
        let patch = json!({ "rules": others }).to_string();
        cluster.kubectl(&["patch", "clusterrole", "plimsoll", "--type=merge", "-p", &patch]).unwrap();
        let refused = everything(&cluster, &format!("r-{index}")).await;
        let what = ["pods", "event", "taint", "condition", "evict"][index];
        assert!(refused.contains_key(what), "without {resource}: {refused:?}");
    }
}

#[test]
fn the_monitoring_can_be_built() {
    let cluster = Cluster::start(Options::from_env().unwrap()).unwrap();
    // Applied it needs the operator's own kinds. The component for GPUs wants a kubectl of 1.21 or later.
    let objects = cluster.kubectl(&["kustomize", &format!("{MANIFESTS}/monitoring")]).unwrap();
    assert!(objects.contains("kind: ServiceMonitor"), "{objects}");
}
