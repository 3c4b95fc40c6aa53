//! What happens on the node, one scene after the other.
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{NODE, Stage, join, pods};
use crate::node::guest::{CGROUPS, until};

/// What fills the machine so far that one pod more makes it short; no workload of anybody.
const FILLER_MIB: u32 = 1500;
/// What is left in the middle between critical and emergency, as a percentage.
const CRITICAL_LEFT: u64 = 4;
/// To what the pod would grow.
const BATCH_MIB: u32 = 1300;
/// Names of ours in the API.
pub(super) const TAINT: &str = "plimsoll.dev/memory-pressure";
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

    /// Takes all but so much of the memory, slowly, so that it does not look as if there were none in a moment.
    fn fill_but(&self, percent: u64) -> Result<()> {
        let meminfo = self.node.script("cat /proc/meminfo")?;
        let kib = |name: &str| -> Result<u64> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).context("no meminfo")?;
            line.trim_end_matches(" kB").trim().parse().with_context(|| format!("{name}{line}"))
        };
        let kept = kib("MemTotal:")? / 100 * percent;
        let mib = kib("MemAvailable:")?.saturating_sub(kept) / 1024;
        let load =
            format!("/data/plimsoll-workload batch-job --idle --from-mib 1 --to-mib {mib} --rate-mib 20");
        self.node.start("more", "--slice=filler.slice", &load)
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

    /// The cgroup of the workload of a pod, below the root.
    fn cgroup(&self, name: &str) -> Result<String> {
        self.cgroup_of(name, "server")
    }

    /// The cgroup of a container of a pod.
    fn cgroup_of(&self, name: &str, container: &str) -> Result<String> {
        let pod = pods::get(&self.cluster, name)?.with_context(|| format!("there is no pod {name}"))?;
        Ok(self.driver.container(&pods::uid(&pod)?, &pods::container_id(&pod, container)?))
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

/// Neither the container beside the workload nor the pod as a whole.
pub(super) fn sidecar_untouched(stage: &Stage<'_>) -> Result<()> {
    let sidecar = stage.cgroup_of("batch", pods::SIDECAR)?;
    let pod = sidecar.rsplit_once('/').map(|(pod, _)| pod).context("a container is in a pod")?;
    for cgroup in [sidecar.as_str(), pod] {
        ensure!(stage.is_free(cgroup)?, "something is done to {cgroup}");
    }
    let address = join::our_address(&stage.cluster)?;
    let known = stage.node.script(&format!("/data/plimsoll status --json --url http://{address}:9478"))?;
    ensure!(!known.contains(&sidecar), "{} is a workload: {known}", pods::SIDECAR);
    Ok(())
}

/// What a user would type in the pod. The machine has no swap, and its kernel is older than memory.high that does not reclaim.
pub(super) fn checked(stage: &Stage<'_>) -> Result<()> {
    let (_, id) = join::our_container(&stage.cluster)?;
    let said = stage.node.script(&format!("ctr -n k8s.io task exec --exec-id check {id} plimsoll check"))?;
    let missing = said.lines().filter_map(|line| line.strip_prefix("missing")?.split_whitespace().next());
    let missing: Vec<_> = missing.collect();
    ensure!(missing == ["swap", "nonblocking_high"], "the check in the pod said: {said}");
    Ok(())
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

/// The pod was braked in time, so the node was hardly critical: it is once more is taken.
pub(super) fn tainted(stage: &Stage<'_>) -> Result<()> {
    stage.fill_but(CRITICAL_LEFT)?;
    let tainted = until("the node has the taint", || Ok(stage.taint()? == "NoSchedule"));
    stage.node.script("systemctl stop more; true")?;
    tainted?;
    until("the node has the condition", || Ok(stage.condition()? == "True"))?;
    stage.apply(&pods::newcomer())?;
    until("the scheduler keeps a new pod away", || {
        let said = "jsonpath={.status.conditions[?(@.reason==\"Unschedulable\")].message}";
        Ok(stage.cluster.kubectl(&["get", "pod", "newcomer", "-o", said])?.contains(TAINT))
    })
}

pub(super) fn calm(stage: &Stage<'_>) -> Result<()> {
    let cgroup = stage.cgroup("batch")?;
    stage.relieve()?;
    until("the least is free", || stage.is_free(&cgroup))?;
    until("the taint is gone", || Ok(stage.taint()?.is_empty()))?;
    until("the condition is over", || Ok(stage.condition()? != "True"))?;
    pods::ready(&stage.cluster, "newcomer")?;
    stage.cluster.kubectl(&["delete", "pod", "newcomer", "--wait=false"]).map(drop)
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

/// All processes of our container die at once, which is how a runtime ends it. The guardian is not among them; kubelet starts the next.
pub(super) fn killed(stage: &Stage<'_>) -> Result<()> {
    let cgroup = stage.frozen_batch()?;
    let (uid, id) = join::our_container(&stage.cluster)?;
    let ours = stage.driver.container(&uid, &id);
    stage.node.thaws_after(&format!("echo 1 > {CGROUPS}/{ours}/cgroup.kill"), &cgroup)?;
    stage.relieve()?;
    until("another container has taken over", || Ok(join::our_container(&stage.cluster)?.1 != id))?;
    stage.known("batch")?;
    until("nothing of ours is left", || stage.is_free(&cgroup))
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
