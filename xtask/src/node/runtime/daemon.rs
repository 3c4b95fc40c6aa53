//! Plimsoll as a service of the node: the unit and the configuration that are shipped, with the section `kubernetes` on.
use anyhow::{Context as _, Result};
use plimsoll_cluster::{Cluster, Place, User};
use serde_json::Value;

use crate::build;
use crate::node::guest::Node;

/// Where it answers.
const URL: &str = "http://127.0.0.1:9478";
/// What the shipped files are changed by: the unit does not start it again, so that what its death leaves can be seen.
const DROP_IN: &str = "[Service]\nRestart=no\nExecStopPost=\n";

/// Installs and starts it, and waits until it protects.
pub(super) fn start(node: &Node, cluster: &Cluster) -> Result<()> {
    let shipped = |name: &str| {
        let path = build::root().join("manifests").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let config = shipped("plimsoll.yaml")?
        .replace("\n  enabled: false\n", "\n  enabled: true\n")
        .replace("\n  node: none\n", &format!("\n  node: {}\n", super::NODE))
        .replace("\n  kubeconfig: none\n", "\n  kubeconfig: /etc/plimsoll/kubeconfig\n");
    let user = cluster.kubeconfig(&User::Admin, Place::Guest)?;
    node.write("/etc/plimsoll/plimsoll.yaml", &config)?;
    node.write("/etc/plimsoll/kubeconfig", &std::fs::read_to_string(user)?)?;
    node.write("/etc/systemd/system/plimsoll.service", &shipped("plimsoll.service")?)?;
    node.write("/etc/systemd/system/plimsoll.service.d/test.conf", DROP_IN)?;
    node.script(
        "ln -sf /data/plimsoll /usr/bin/plimsoll; systemctl daemon-reload; systemctl restart plimsoll",
    )
    .map(drop)
}

/// What it says of itself.
pub(super) fn status(node: &Node) -> Result<Value> {
    let said = node.script(&format!("plimsoll status --json --url {URL}"))?;
    serde_json::from_str(&said).context("the daemon's status")
}

/// What it says of a workload; nothing if it knows none of that name.
pub(super) fn workload(node: &Node, name: &str) -> Result<Option<Value>> {
    let status = status(node)?;
    let all = status["workloads"].as_array().context("a status lists workloads")?;
    Ok(all.iter().find(|workload| workload["name"] == name).cloned())
}

/// The sum of a metric over its labels.
pub(super) fn metric(node: &Node, name: &str) -> Result<f64> {
    let said = node.script(&format!("busybox wget -q -O - {URL}/metrics"))?;
    let values = said.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    Ok(values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}
