//! What the tests of this binary share: a control plane, clients, and objects to fill it with.
use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use plimsoll_cluster::{Cluster, NO_KUBELETS, Options, Place, User};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What `kubectl apply -k` takes.
pub(crate) const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// One for all tests that run at the same time. The last of them ends it.
pub(crate) fn shared() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let options = Options { controllers: Some(NO_KUBELETS), ..Options::from_env().unwrap() };
    let cluster = Arc::new(Cluster::start(options).unwrap());
    *shared = Arc::downgrade(&cluster);
    cluster
}

/// The client of somebody.
pub(crate) async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// An administrator's.
pub(crate) async fn admin(cluster: &Cluster) -> Client {
    client(&cluster.kubeconfig(&User::Admin, Place::Here).unwrap()).await
}

/// A node for which no kubelet speaks. It has the images of an ordinary one: what is written of a node is the whole of it.
pub(crate) fn node(name: &str) -> Node {
    let image = |index: u32| {
        let repository = format!("registry.example.org/models/server-{index}");
        json!({ "names": [format!("{repository}@sha256:{index:064x}"), format!("{repository}:v{index}")],
                "sizeBytes": 4_000_000_000_u64 + u64::from(index) })
    };
    object(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": {
            "images": (0..30).map(image).collect::<Vec<_>>(),
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        },
    }))
}

/// A pod of one container, `main`, bound to a node.
pub(crate) fn pod(name: &str, node: &str, annotations: &Value) -> Pod {
    object(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "annotations": annotations, "labels": { "app": name } },
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": "registry.example.org/model:1" }],
        },
    }))
}

pub(crate) fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Creates it, or takes the one that is there.
pub(crate) async fn create<K>(api: &Api<K>, object: &K) -> K
where
    K: Clone + Debug + DeserializeOwned + Serialize + kube::Resource,
{
    api.create(&PostParams::default(), object).await.unwrap()
}

pub(crate) fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), "default")
}

/// Changes a part of it.
pub(crate) async fn merge<K: Clone + Debug + DeserializeOwned>(api: &Api<K>, name: &str, patch: Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Takes a pod away at once, as a kubelet does when its containers have ended.
pub(crate) async fn remove(client: &Client, pod: &str) {
    pods(client).delete(pod, &DeleteParams::default().grace_period(0)).await.unwrap();
}

/// Waits until it is so. A minute is for machines that do ten other things.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let start = std::time::Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < Duration::from_secs(90), "not within a minute and a half: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
