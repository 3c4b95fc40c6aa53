//! Pods that the scheduler, the kubelet and the runtime bring up by themselves.
use anyhow::{Context as _, Result};
use plimsoll_cluster::Cluster;
use serde_json::{Value, json};

use super::scenes::TAINT;
use crate::node::guest::until;
use crate::node::image::{PAUSING, WORKLOAD};

/// The container of the least important pod that is no workload.
pub(super) const SIDECAR: &str = "telemetry";
/// Serves a model and answers probes over HTTP.
const CHAT: &str = "mkdir -p /www && echo fine > /www/index.html && httpd -p 8080 -h /www && \
                    plimsoll-workload weights --mib 32 /weights && exec plimsoll-workload model-server \
                    --listen 0.0.0.0:8000 --weights /weights --kv-mib 150";

/// Who matters most: probed all the time.
pub(super) fn chat() -> Value {
    let probe = json!({
        "httpGet": { "path": "/index.html", "port": 8080 }, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6,
    });
    let mut pod = pod("chat", &json!({ "plimsoll.dev/priority": "2000" }), CHAT);
    pod["spec"]["containers"][0]["readinessProbe"] = probe.clone();
    pod["spec"]["containers"][0]["livenessProbe"] = probe;
    pod
}

/// Who matters least: grows when it is told to. One container is the workload, others prepare it and look after it. The node takes it
/// while it has our taint, so that no scene waits for the end of an earlier one's.
pub(super) fn batch(mib: u32) -> Value {
    let command = format!(
        "exec plimsoll-workload batch-job --idle --from-mib 60 --to-mib {mib} --rate-mib 60 --grow-on-line < /trigger/go"
    );
    let annotations = json!({ "plimsoll.dev/priority": "-10", "plimsoll.dev/container": "server" });
    let mut pod = pod("batch", &annotations, &command);
    let helper = |name: &str, command: Value| json!({ "name": name, "image": WORKLOAD, "imagePullPolicy": "Never", "command": command });
    pod["spec"]["initContainers"] = json!([helper("prepare", json!(["/bin/echo", "prepared"]))]);
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.push(helper(SIDECAR, json!(PAUSING)));
    }
    pod["spec"]["tolerations"] = json!([{ "key": TAINT, "operator": "Exists" }]);
    pod
}

/// A pod that does nothing, and tolerates nothing.
pub(super) fn newcomer() -> Value {
    pod("newcomer", &json!({}), "exec sleep 100000")
}

/// The same in a set that starts it anew when it is gone: nobody else's pods are handed to another node.
pub(super) fn batches(mib: u32) -> Value {
    let mut template = batch(mib);
    let spec = template["spec"].take();
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": { "name": "batches", "namespace": "default" },
        "spec": {
            "replicas": 1, "selector": { "matchLabels": { "app": "batch" } },
            "template": {
                "metadata": {
                    "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
                },
                "spec": spec,
            },
        },
    })
}

fn pod(name: &str, annotations: &Value, command: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name }, "annotations": annotations },
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "server", "image": WORKLOAD, "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", command],
                "resources": { "requests": { "memory": "64Mi" } },
                "volumeMounts": [{ "name": "trigger", "mountPath": "/trigger" }],
            }],
            "volumes": [{ "name": "trigger", "hostPath": { "path": format!("/run/pods/{name}") } }],
        },
    })
}

/// So many pods with that label have to stay.
pub(super) fn budget(name: &str, min_available: u32) -> Value {
    json!({
        "apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "minAvailable": min_available, "selector": { "matchLabels": { "app": name } } },
    })
}

/// A pod as the API server has it; nothing once it is gone.
pub(super) fn get(cluster: &Cluster, name: &str) -> Result<Option<Value>> {
    let said = cluster.kubectl(&["get", "pod", name, "--ignore-not-found", "-o", "json"])?;
    if said.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&said).map(Some).context("a pod")
}

/// Its UID.
pub(super) fn uid(pod: &Value) -> Result<String> {
    Ok(pod["metadata"]["uid"].as_str().context("a pod without a UID")?.to_owned())
}

/// What the runtime calls a container of it.
pub(super) fn container_id(pod: &Value, name: &str) -> Result<String> {
    let all = pod["status"]["containerStatuses"].as_array().context("a pod without containers")?;
    let id = all.iter().find(|it| it["name"] == name).and_then(|it| it["containerID"].as_str());
    Ok(id.with_context(|| format!("no container {name}"))?.trim_start_matches("containerd://").to_owned())
}

/// Waits until it runs, and is ready if it can be.
pub(super) fn ready(cluster: &Cluster, name: &str) -> Result<()> {
    until(&format!("{name} is ready"), || {
        let pod = get(cluster, name)?;
        let containers =
            pod.and_then(|mut pod| pod["status"]["containerStatuses"].as_array_mut().map(std::mem::take));
        Ok(containers.is_some_and(|all| all.iter().all(|it| it["ready"] == true)))
    })
}

/// How often its container was started again.
pub(super) fn restarts(cluster: &Cluster, name: &str) -> Result<u64> {
    let pod = get(cluster, name)?.with_context(|| format!("there is no pod {name}"))?;
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().context("a pod without a status")
}
