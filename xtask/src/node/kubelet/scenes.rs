//! What happens on the node, one scene after the other.
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{NODE, Stage, join, pods};
use crate::node::guest::{CGROUPS, until};

/// What fills the machine so far that one pod more makes it short; no workload of anybody.
const FILLER_MIB: u32 = 1500;
/// To what the pod would grow.
const BATCH_MIB: u32 = 1300;
/// Names of ours in the API.
const TAINT: &str = "plimsoll.dev/memory-pressure";
const CONDITION: &str = "plimsoll.dev/MemoryTier";

impl Stage<'_> {
    fn apply(&self, object: &Value) -> Result<()> {
        self.cluster.kubectl_with(&["apply", "-f", "-"], &object.to_string()).map(drop)
    }

    /// Something else on the machine takes memory, and the pod grows into what is left.
    fn press(&self) -> Result<()> {
        let load =
            format!("/data/plimsoll-workload batch-job --idle --from-mib {FILLER_MIB} --to-mib {FILLER_MIB}");
        self.node.script("systemctl stop filler 2>/dev/null; true")?;
        self.node.start("filler", "--slice=filler.slice", &load)?;
        self.node.script("timeout 60 sh -c 'echo go > /run/pods/batch/go'").map(drop)
    }

    fn relieve(&self) -> Result<()> {
        self.node.script("systemctl stop filler; true").map(drop)
    }

    /// The least important pod, alive and small again.
    fn fresh_batch(&self) -> Result<()> {
        self.cluster.kubectl(&["delete", "pod", "batch", "--ignore-not-found", "--grace-period=1"])?;
        self.apply(&pods::batch(BATCH_MIB))?;
        pods::ready(&self.cluster, "batch")?;
        self.known("batch")
    }

    /// Waits until the daemon has the pod as a workload.
    fn known(&self, name: &str) -> Result<()> {
        let cgroup = self.cgroup(name)?;
        until(&format!("{name} is a workload"), || {
            let address = join::our_address(&self.cluster)?;
            let said =
                self.node.script(&format!("/data/plimsoll status --json --url http://{address}:9478"))?;
            Ok(said.contains(&cgroup))
        })
    }

    /// The cgroup of the container of a pod, below the root.
    fn cgroup(&self, name: &str) -> Result<String> {
        let pod = pods::get(&self.cluster, name)?.with_context(|| format!("there is no pod {name}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let uid = text(&pod["metadata"]["uid"]);
        let id = text(&pod["status"]["containerStatuses"][0]["containerID"]);
        Ok(self.driver.container(&uid, id.trim_start_matches("containerd://")))
    }

    fn is_frozen(&self, cgroup: &str) -> Result<bool> {
        Ok(self.node.cgroup(cgroup, "cgroup.events")?.contains("frozen 1"))
    }

    fn is_free(&self, cgroup: &str) -> Result<bool> {
        let (freeze, high) =
            (self.node.cgroup(cgroup, "cgroup.freeze")?, self.node.cgroup(cgroup, "memory.high")?);
        Ok(freeze == "0" && high == "max" && !self.is_frozen(cgroup)?)
    }

    /// A fresh pod that grew until it was frozen: its cgroup.
    fn frozen_batch(&self) -> Result<String> {
        self.fresh_batch()?;
        let cgroup = self.cgroup("batch")?;
        self.press()?;
        until("the least is frozen", || self.is_frozen(&cgroup))?;
        Ok(cgroup)
    }

    fn has_event(&self, pod: &str, reason: &str) -> Result<bool> {
        let of_it = format!("involvedObject.name={pod}");
        let reasons = ["get", "events", "--field-selector", &of_it, "-o", "jsonpath={.items[*].reason}"];
        Ok(self.cluster.kubectl(&reasons)?.contains(reason))
    }

    /// The name of the only pod of the set.
    fn only_batch(&self) -> Result<String> {
        let mut name = String::new();
        until("the set has its pod", || {
            let names = ["get", "pods", "-l", "app=batch", "-o", "jsonpath={.items[*].metadata.name}"];
            name = self.cluster.kubectl(&names)?;
            Ok(!name.is_empty() && !name.contains(' '))
        })?;
        Ok(name)
    }

    fn taint(&self) -> Result<String> {
        let effect = format!("jsonpath={{.spec.taints[?(@.key==\"{TAINT}\")].effect}}");
        self.cluster.kubectl(&["get", "node", NODE, "-o", &effect])
    }

    fn condition(&self) -> Result<String> {
        let status = format!("jsonpath={{.status.conditions[?(@.type==\"{CONDITION}\")].status}}");
        self.cluster.kubectl(&["get", "node", NODE, "-o", &status])
    }
}

pub(super) fn pods_run(stage: &Stage<'_>) -> Result<()> {
    stage.node.script("mkdir -p /run/pods/chat /run/pods/batch; mkfifo /run/pods/batch/go")?;
    stage.apply(&pods::chat())?;
    pods::ready(&stage.cluster, "chat")?;
    stage.known("chat")?;
    stage.fresh_batch()
}

/// Not even for the seconds before the status names the container. The daemon's log has every workload that came.
pub(super) fn sandboxes_left_alone(stage: &Stage<'_>) -> Result<()> {
    let list = "ctr -n k8s.io containers ls -q 'labels.\"io.cri-containerd.kind\"==sandbox'";
    let sandboxes = stage.node.script(list)?;
    ensure!(sandboxes.lines().count() >= 3, "there should be three sandboxes: {sandboxes}");
    let came = stage.node.script("grep -h 'workload came' /var/log/pods/plimsoll_*/plimsoll/*.log")?;
    for sandbox in sandboxes.lines() {
        ensure!(!came.contains(sandbox.trim()), "the sandbox {sandbox} was a workload: {came}");
    }
    Ok(())
}

pub(super) fn held(stage: &Stage<'_>) -> Result<()> {
    let cgroup = stage.cgroup("batch")?;
    stage.press()?;
    until("the least is frozen", || stage.is_frozen(&cgroup))
}

/// Over the network of pods, from the node.
pub(super) fn chat_answers(stage: &Stage<'_>) -> Result<()> {
    let pod = pods::get(&stage.cluster, "chat")?.context("there is no pod chat")?;
    let ip = pod["status"]["podIP"].as_str().context("chat has no address")?;
    let said = stage.node.script(&format!(
        "/data/plimsoll-workload requests --connect {ip}:8000 --every 250ms --for 10s --out /run/requests && cat /run/requests"
    ))?;
    let unanswered = said.lines().filter(|line| line.contains("\"answered\":false")).count();
    let all = said.lines().filter(|line| line.contains("\"answered\"")).count();
    ensure!(all > 0 && unanswered == 0, "{unanswered} of {all} requests were not answered");
    ensure!(
        stage.node.script(&format!("busybox wget -q -O - http://{ip}:8080/index.html"))?.contains("fine")
    );
    ensure!(pod["status"]["containerStatuses"][0]["ready"] == true, "chat is not ready: {}", pod["status"]);
    ensure!(pods::restarts(&stage.cluster, "chat")? == 0, "chat was started again");
    Ok(())
}

pub(super) fn event(stage: &Stage<'_>) -> Result<()> {
    until("an Event says that it is frozen", || stage.has_event("batch", "ModelFrozen"))
}

pub(super) fn tainted(stage: &Stage<'_>) -> Result<()> {
    until("the node has the taint", || Ok(stage.taint()?.contains("NoSchedule")))?;
    until("the node has the condition", || Ok(stage.condition()? == "True"))
}

pub(super) fn calm(stage: &Stage<'_>) -> Result<()> {
    let cgroup = stage.cgroup("batch")?;
    stage.relieve()?;
    until("the least is free", || stage.is_free(&cgroup))?;
    until("the taint is gone", || Ok(stage.taint()?.is_empty()))?;
    until("the condition is over", || Ok(stage.condition()? != "True"))
}

pub(super) fn kubelet_restarted(stage: &Stage<'_>) -> Result<()> {
    let cgroup = stage.frozen_batch()?;
    stage.node.script("systemctl restart kubelet")?;
    stage.node.wait("kubelet runs again", "systemctl -q is-active kubelet")?;
    stage.relieve()?;
    until("the least is free", || stage.is_free(&cgroup))?;
    ensure!(pods::restarts(&stage.cluster, "chat")? == 0, "chat was started again");
    Ok(())
}

pub(super) fn api_server_away(stage: &mut Stage<'_>) -> Result<()> {
    stage.fresh_batch()?;
    let cgroup = stage.cgroup("batch")?;
    stage.cluster.stop_api_server();
    stage.press()?;
    until("the least is frozen", || stage.is_frozen(&cgroup))?;
    stage.relieve()?;
    until("the least is free", || stage.is_free(&cgroup))?;
    stage.cluster.start_api_server()?;
    pods::ready(&stage.cluster, "chat")
}

/// Somebody else's memory stays, so the node stays short, and the pod stays held: until it is sent away. Its successor has not grown.
pub(super) fn evicted(stage: &Stage<'_>) -> Result<()> {
    stage.cluster.kubectl(&["delete", "pod", "batch", "--ignore-not-found", "--grace-period=1"])?;
    stage.apply(&pods::budget("batch", 1))?;
    stage.apply(&pods::batches(BATCH_MIB))?;
    let name = stage.only_batch()?;
    pods::ready(&stage.cluster, &name)?;
    stage.known(&name)?;
    let cgroup = stage.cgroup(&name)?;
    stage.press()?;
    until("the least is frozen", || stage.is_frozen(&cgroup))?;
    until("an Event says that the budget forbids it", || stage.has_event(&name, "EvictionBlocked"))?;
    ensure!(pods::get(&stage.cluster, &name)?.is_some(), "it was evicted all the same");
    stage.cluster.kubectl(&["delete", "poddisruptionbudget", "batch"])?;
    until("the pod is gone", || Ok(pods::get(&stage.cluster, &name)?.is_none()))?;
    stage.relieve()?;
    stage.cluster.kubectl(&["delete", "replicaset", "batches"]).map(drop)
}

pub(super) fn uninstalled(stage: &Stage<'_>) -> Result<()> {
    let cgroup = stage.frozen_batch()?;
    stage.cluster.kubectl(&["-n", "plimsoll", "delete", "daemonset", "plimsoll", "--wait=false"])?;
    until("the pod is let go", || stage.is_free(&cgroup))?;
    let chat = stage.cgroup("chat")?;
    ensure!(
        stage.node.script(&format!("cat {CGROUPS}/{chat}/memory.low"))?.trim() == "0",
        "chat keeps memory.low"
    );
    until("the taint is gone", || Ok(stage.taint()?.is_empty()))?;
    stage.relieve()
}
