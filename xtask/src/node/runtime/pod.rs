//! A pod without a kubelet: an object of the API server, and containers that `ctr` makes where kubelet would.
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use plimsoll_cluster::Cluster;
use serde_json::{Value, json};

use crate::node::guest::{Node, until};
use crate::node::image::{PAUSE, PAUSING, WORKLOAD};
use crate::node::pods::Driver;

/// A pod on the node, with a sandbox and one container.
pub(super) struct Pod {
    name: &'static str,
    uid: String,
    driver: Driver,
    /// What the container runs.
    command: String,
    sandbox: String,
    /// The runtime's ID of the container that runs now.
    id: String,
}

/// What a pod is to be.
pub(super) struct Wanted {
    pub(super) name: &'static str,
    pub(super) annotations: Value,
    /// A script of the shell, without single quotes.
    pub(super) command: String,
}

impl Pod {
    /// Makes the object, then the sandbox and the container; the status says so last, as kubelet's would.
    pub(super) fn start(node: &Node, cluster: &Cluster, driver: Driver, wanted: Wanted) -> Result<Self> {
        let Wanted { name, annotations, command } = wanted;
        let made = cluster
            .kubectl_with(&["create", "-o", "json", "-f", "-"], &object(name, &annotations).to_string())?;
        let made: Value = serde_json::from_str(&made).context("the pod that was made")?;
        let uid = made["metadata"]["uid"].as_str().context("a pod without a UID")?.to_owned();
        let mut pod = Self { name, uid, driver, command, sandbox: fresh_id(), id: String::new() };
        node.script(&format!(
            "mkdir -p /run/pods/{name}; [ -p /run/pods/{name}/go ] || mkfifo /run/pods/{name}/go"
        ))?;
        pod.ctr_run(node, PAUSE, &pod.sandbox, &PAUSING.join(" "))?;
        pod.start_container(node, cluster)?;
        Ok(pod)
    }

    /// Starts the container, again if it has ended: with another ID, as kubelet does.
    pub(super) fn start_container(&mut self, node: &Node, cluster: &Cluster) -> Result<()> {
        self.id = fresh_id();
        self.ctr_run(node, WORKLOAD, &self.id, &format!("/bin/sh -c '{}'", self.command))?;
        let path = format!("/api/v1/namespaces/default/pods/{}", self.name);
        // Others change the object too: a conflict is answered by another look.
        until("the pod has a status", || {
            let mut object: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", &path])?)?;
            object["status"] = status(&self.id);
            let place = format!("{path}/status");
            Ok(cluster.kubectl_with(&["replace", "--raw", &place, "-f", "-"], &object.to_string()).is_ok())
        })
    }

    /// Kills the container and forgets it; the sandbox stays.
    pub(super) fn kill_container(&self, node: &Node) -> Result<()> {
        remove(node, &self.id)
    }

    /// Deletes the object at once, and its containers after it.
    pub(super) fn delete(&self, node: &Node, cluster: &Cluster) -> Result<()> {
        cluster.kubectl(&["delete", "pod", self.name, "--grace-period=0", "--force"])?;
        remove(node, &self.id)?;
        remove(node, &self.sandbox)
    }

    /// Lets the load in it go on: it waits for a line before it grows.
    pub(super) fn go(&self, node: &Node) -> Result<()> {
        node.script(&format!("timeout 60 sh -c 'echo go > /run/pods/{}/go'", self.name)).map(drop)
    }

    /// The container's cgroup, below the root.
    pub(super) fn cgroup(&self) -> String {
        self.driver.container(&self.uid, &self.id)
    }

    /// The sandbox's cgroup.
    pub(super) fn sandbox(&self) -> String {
        self.driver.container(&self.uid, &self.sandbox)
    }

    /// The scope's unit, which only systemd's driver has.
    pub(super) fn unit(&self) -> String {
        format!("cri-containerd-{}.scope", self.id)
    }

    /// What it is called as a workload.
    pub(super) fn workload(&self) -> String {
        format!("default/{}/server", self.name)
    }

    fn ctr_run(&self, node: &Node, image: &str, id: &str, command: &str) -> Result<()> {
        let cgroup = self.driver.of_ctr(&self.uid, id);
        let trigger = format!("type=bind,src=/run/pods/{},dst=/trigger,options=rbind:rw", self.name);
        node.script(&format!(
            "ctr -n k8s.io run -d --net-host --mount {trigger} {cgroup} {image} {id} {command}"
        ))
        .map(drop)
    }
}

fn remove(node: &Node, id: &str) -> Result<()> {
    node.script(&format!("ctr -n k8s.io task kill -s KILL {id}; true"))?;
    node.wait(
        "a container is removed",
        &format!("ctr -n k8s.io task rm -f {id}; ctr -n k8s.io container rm {id}"),
    )
}

/// As long as those of runtimes.
fn fresh_id() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("{:064x}", 0xabc0_0000_u32 + LAST.fetch_add(1, Ordering::Relaxed))
}

fn object(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "annotations": annotations },
        "spec": {
            "nodeName": super::NODE,
            "containers": [{
                "name": "server", "image": WORKLOAD, "imagePullPolicy": "Never",
                "resources": { "requests": { "memory": "64Mi" } },
            }],
        },
    })
}

fn status(id: &str) -> Value {
    let state = json!({ "running": { "startedAt": "2026-01-01T00:00:00Z" } });
    json!({
        "phase": "Running", "qosClass": "Burstable", "podIP": "10.0.2.15", "podIPs": [{ "ip": "10.0.2.15" }],
        "containerStatuses": [{
            "name": "server", "image": WORKLOAD, "imageID": "", "ready": true, "started": true, "restartCount": 0,
            "containerID": format!("containerd://{id}"), "state": state,
        }],
    })
}
