//! A real kubelet in the node, which joins the control plane on this machine, and the DaemonSet as it is shipped.
use anyhow::{Context as _, Result, ensure};
use plimsoll_cluster::{ALL, Cluster, Options, Place, User};
use serde_json::json;

use super::{NODE, pods};
use crate::build;
use crate::node::guest::{Node, until};
use crate::node::pods::Driver;
use crate::setup;

/// Where pods find the API server, and what they reach it by.
const SERVICE: &str = "10.96.0.1";
const HOST: &str = "10.0.2.2";

/// etcd, the API server, all controllers and the scheduler, on this machine.
pub(super) fn control_plane() -> Result<Cluster> {
    Cluster::start(Options {
        programs: setup::kubernetes()?,
        nodes: vec![NODE.into()],
        controllers: Some(ALL),
        scheduler: true,
    })
}

/// Starts containerd and kubelet, and waits until the node is ready.
pub(super) fn join(node: &Node, cluster: &Cluster, driver: Driver) -> Result<()> {
    node.start_containerd(driver)?;
    let kubeconfig = cluster.kubeconfig(&User::Node(NODE.into()), Place::Guest)?;
    node.write("/etc/kubernetes/kubeconfig", &std::fs::read_to_string(kubeconfig)?)?;
    node.write("/etc/kubernetes/kubelet.yaml", &configuration(driver).to_string())?;
    forward(node, cluster)?;
    start_kubelet(node)?;
    until("the node is ready", || {
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        Ok(cluster.kubectl(&["get", "node", NODE, "-o", ready])? == "True")
    })
}

/// As a unit of its own: `systemctl restart kubelet` is what an administrator would type.
fn start_kubelet(node: &Node) -> Result<()> {
    let unit = "[Service]\nExecStart=/data/kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/etc/kubernetes/kubeconfig \
                --hostname-override=node --node-ip=10.0.2.15 --container-runtime=remote \
                --container-runtime-endpoint=unix:///run/containerd/containerd.sock\nRestart=always\nOOMScoreAdjust=-999\n";
    node.write("/etc/systemd/system/kubelet.service", unit)?;
    node.script("systemctl daemon-reload; systemctl start kubelet").map(drop)
}

/// What kubeadm writes, but for eviction: kubelet's own is to leave the stage to us for as long as it can.
fn configuration(driver: Driver) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "cgroupDriver": driver.name(), "failSwapOn": false,
        "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "evictionHard": { "memory.available": "30Mi" },
        "resolvConf": "/dev/null",
    })
}

/// The two rules that stand for kube-proxy: the API server's service, for pods and for the node itself.
fn forward(node: &Node, cluster: &Cluster) -> Result<()> {
    let url = cluster.url();
    let port = url.rsplit_once(':').map(|(_, port)| port).context("an address has a port")?;
    let rule = format!("-d {SERVICE} -p tcp --dport 443 -j DNAT --to-destination {HOST}:{port}");
    node.script(&format!("iptables -t nat -A PREROUTING {rule} && iptables -t nat -A OUTPUT {rule}"))
        .map(drop)
}

/// `kubectl apply -k manifests/`, and waits until the node is protected.
pub(super) fn install(cluster: &Cluster) -> Result<()> {
    let manifests = build::root().join("manifests");
    cluster.kubectl(&["apply", "-k", &manifests.to_string_lossy()])?;
    until("the DaemonSet is ready", || {
        let ready = "jsonpath={.status.numberReady}";
        Ok(cluster.kubectl(&["-n", "plimsoll", "get", "daemonset", "plimsoll", "-o", ready])? == "1")
    })
}

/// The UID of our pod on the node, and what the runtime calls its container.
pub(super) fn our_container(cluster: &Cluster) -> Result<(String, String)> {
    let said = cluster.kubectl(&["-n", "plimsoll", "get", "pods", "-o", "json"])?;
    let pods: serde_json::Value = serde_json::from_str(&said).context("our pods")?;
    let pod = &pods["items"][0];
    Ok((pods::uid(pod)?, pods::container_id(pod, "plimsoll")?))
}

/// Where our pod on the node answers.
pub(super) fn our_address(cluster: &Cluster) -> Result<String> {
    let address = ["-n", "plimsoll", "get", "pods", "-o", "jsonpath={.items[0].status.podIP}"];
    let address = cluster.kubectl(&address)?;
    ensure!(!address.trim().is_empty(), "the pod of the DaemonSet has no address");
    Ok(address)
}
