//! What happens to the pods, one scene after the other.
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Stage;
use super::daemon;
use super::pod::Pod;
use crate::node::guest::{CGROUPS, until};
use crate::node::pods::Driver;

/// A limit that is none.
const NO_LIMIT: &str = "max";
/// What fills the machine so far that one pod more makes it short; no workload of anybody.
const FILLER_MIB: u32 = 1500;
/// What fills it so far that one pod that does not grow is squeezed.
const MORE_MIB: u32 = 1850;

impl Stage<'_> {
    /// Something else on the machine takes memory, and the pod grows into what is left.
    fn press(&self, pod: &Pod) -> Result<()> {
        self.fill(FILLER_MIB)?;
        pod.go(self.node)
    }

    fn fill(&self, mib: u32) -> Result<()> {
        self.relieve()?;
        let load = format!("/data/plimsoll-workload batch-job --idle --from-mib {mib} --to-mib {mib}");
        self.node.start("filler", "--slice=filler.slice", &load)
    }

    /// A container of the least important pod that has not grown yet.
    fn fresh_batch(&mut self) -> Result<()> {
        self.batch.kill_container(self.node)?;
        self.batch.start_container(self.node, &self.cluster)?;
        let (node, pod) = (self.node, &self.batch);
        until("the workload has the new cgroup", || {
            let workload = daemon::workload(node, &pod.workload())?;
            Ok(workload.is_some_and(|it| it["cgroup"] == pod.cgroup().as_str()))
        })
    }

    /// The same, grown until it is frozen.
    fn frozen_batch(&mut self) -> Result<()> {
        self.fresh_batch()?;
        self.press(&self.batch)?;
        until("the least is frozen", || self.frozen(&self.batch))
    }

    fn relieve(&self) -> Result<()> {
        self.node.script("systemctl stop filler; true").map(drop)
    }

    fn frozen(&self, pod: &Pod) -> Result<bool> {
        Ok(self.node.cgroup(&pod.cgroup(), "cgroup.events")?.contains("frozen 1"))
    }

    fn high(&self, pod: &Pod) -> Result<String> {
        self.node.cgroup(&pod.cgroup(), "memory.high")
    }

    /// Nothing is done to it any more.
    fn free(&self, pod: &Pod) -> Result<bool> {
        Ok(!self.frozen(pod)?
            && self.high(pod)? == NO_LIMIT
            && self.node.cgroup(&pod.cgroup(), "cgroup.freeze")? == "0")
    }

    fn rung(&self, pod: &Pod) -> Result<Value> {
        let workload = daemon::workload(self.node, &pod.workload())?;
        Ok(workload.with_context(|| format!("no workload {}", pod.workload()))?["rung"].clone())
    }
}

pub(super) fn found(stage: &Stage<'_>) -> Result<()> {
    for (pod, priority) in [(&stage.chat, 2000), (&stage.batch, -10), (&stage.nightly, -5)] {
        until(&format!("{} is a workload", pod.workload()), || {
            let workload = daemon::workload(stage.node, &pod.workload())?;
            Ok(workload.is_some_and(|it| it["cgroup"] == pod.cgroup().as_str() && it["priority"] == priority))
        })?;
    }
    let known = daemon::status(stage.node)?["workloads"].to_string();
    for pod in [&stage.chat, &stage.batch, &stage.nightly] {
        ensure!(!known.contains(&pod.sandbox()), "a sandbox is a workload: {known}");
    }
    Ok(())
}

/// The client's requests go on from before the pressure until after it; every one of them has to be answered.
pub(super) fn held(stage: &Stage<'_>) -> Result<()> {
    let client = "/data/plimsoll-workload requests --connect 127.0.0.1:8000 --every 250ms --for 60s --out /run/requests";
    stage.node.start("client", "--property=OOMScoreAdjust=-900", client)?;
    stage.press(&stage.batch)?;
    until("the least is frozen", || stage.frozen(&stage.batch))?;
    ensure!(!stage.frozen(&stage.chat)? && stage.high(&stage.chat)? == NO_LIMIT, "the first is held as well");
    stage.node.wait("the client has ended", "! systemctl -q is-active client && [ -s /run/requests ]")?;
    let requests = stage.node.script("cat /run/requests")?;
    let unanswered = requests.lines().filter(|line| line.contains("\"answered\":false")).count();
    let all = requests.lines().count();
    ensure!(all > 0 && unanswered == 0, "{unanswered} of {all} requests were not answered");
    Ok(())
}

pub(super) fn sandboxes_untouched(stage: &Stage<'_>) -> Result<()> {
    for pod in [&stage.chat, &stage.batch, &stage.nightly] {
        for (file, untouched) in [("memory.high", NO_LIMIT), ("memory.low", "0"), ("cgroup.freeze", "0")] {
            let found = stage.node.cgroup(&pod.sandbox(), file)?;
            ensure!(found == untouched, "{file} of the sandbox of {} is {found}", pod.workload());
        }
    }
    Ok(())
}

pub(super) fn let_go(stage: &Stage<'_>) -> Result<()> {
    stage.relieve()?;
    until("the least is free", || stage.free(&stage.batch))?;
    until("the first has no memory.low of ours", || {
        Ok(stage.node.cgroup(&stage.chat.cgroup(), "memory.low")? == "0")
    })
}

pub(super) fn started_again(stage: &mut Stage<'_>) -> Result<()> {
    let before = stage.batch.cgroup();
    stage.frozen_batch()?;
    ensure!(stage.batch.cgroup() != before, "the container has the cgroup it had");
    let_go(stage)
}

/// Somebody lowers memory.high of a workload that is free: that is a ceiling for ours, and what is left at the end.
pub(super) fn lowered(stage: &mut Stage<'_>) -> Result<()> {
    stage.fresh_batch()?;
    let lowered = 1000_u64 << 20;
    set_high(stage, &stage.batch, &lowered.to_string())?;
    stage.press(&stage.batch)?;
    until("the least is frozen", || stage.frozen(&stage.batch))?;
    let high: u64 = stage.high(&stage.batch)?.parse().context("memory.high is no number")?;
    ensure!(high <= lowered, "memory.high was raised to {high}");
    stage.relieve()?;
    until("what was found stands there again", || {
        Ok(stage.rung(&stage.batch)? == "free" && stage.high(&stage.batch)? == lowered.to_string())
    })?;
    set_high(stage, &stage.batch, "infinity")
}

fn set_high(stage: &Stage<'_>, pod: &Pod, value: &str) -> Result<()> {
    let script = match stage.driver {
        Driver::Systemd => format!("systemctl set-property --runtime {} MemoryHigh={value}", pod.unit()),
        Driver::Cgroupfs => {
            format!("echo {} > {CGROUPS}/{}/memory.high", value.replace("infinity", NO_LIMIT), pod.cgroup())
        }
    };
    stage.node.script(&script).map(drop)
}

/// systemd puts files of its scopes back, and only of those: then ours is set again, and counted. A throttle stands for as long as it
/// helps, so there is swap space, and the workload sits on what it has.
pub(super) fn reloaded(stage: &mut Stage<'_>) -> Result<()> {
    stage.fresh_batch()?;
    stage.node.script(
        "modprobe zram && echo 1G > /sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0",
    )?;
    let shown = reloaded_with_swap(stage);
    stage.relieve()?;
    // It begins anew, so that it has none of that memory in the scenes that follow.
    stage.nightly.kill_container(stage.node)?;
    stage.nightly.start_container(stage.node, &stage.cluster)?;
    stage.node.script("swapoff /dev/zram0 && rmmod zram")?;
    shown
}

fn reloaded_with_swap(stage: &Stage<'_>) -> Result<()> {
    let pod = &stage.nightly;
    pod.go(stage.node)?;
    until("it has what it wants", || {
        let used: u64 = stage.node.cgroup(&pod.cgroup(), "memory.current")?.parse()?;
        Ok(used >= u64::from(super::NIGHTLY_MIB) << 20)
    })?;
    stage.fill(MORE_MIB)?;
    until("it is throttled", || Ok(stage.high(pod)? != NO_LIMIT))?;
    let foreign = || daemon::metric(stage.node, "plimsoll_foreign_writes_total");
    let before = foreign()?;
    stage.node.script("systemctl daemon-reload")?;
    match stage.driver {
        Driver::Systemd => {
            until("it was noticed", || Ok(foreign()? > before))?;
            until("it is throttled again", || Ok(stage.high(pod)? != NO_LIMIT))?;
        }
        Driver::Cgroupfs => ensure!(stage.high(pod)? != NO_LIMIT, "the limit is gone"),
    }
    stage.relieve()?;
    until("it is free", || stage.free(pod))
}

pub(super) fn as_a_modern_kubelet(stage: &mut Stage<'_>) -> Result<()> {
    stage.fresh_batch()?;
    let dir = format!("{CGROUPS}/{}", stage.batch.cgroup());
    stage.node.script(&format!("echo 0 > {dir}/memory.swap.max; echo 1 > {dir}/memory.oom.group"))?;
    until("it is known", || Ok(daemon::metric(stage.node, "plimsoll_workload_foreign")? > 0.0))?;
    stage.press(&stage.batch)?;
    until("it is held", || stage.frozen(&stage.batch))?;
    let_go(stage)?;
    for (file, value) in [("memory.swap.max", "0"), ("memory.oom.group", "1")] {
        let found = stage.node.cgroup(&stage.batch.cgroup(), file)?;
        ensure!(found == value, "{file} is {found}");
    }
    Ok(())
}

pub(super) fn api_server_away(stage: &mut Stage<'_>) -> Result<()> {
    stage.fresh_batch()?;
    stage.cluster.stop_api_server();
    stage.press(&stage.batch)?;
    until("the least is held", || stage.frozen(&stage.batch))?;
    let_go(stage)?;
    stage.cluster.start_api_server()?;
    until("it watches again", || Ok(daemon::metric(stage.node, "plimsoll_kubernetes_connected")? > 0.0))
}

pub(super) fn killed(stage: &mut Stage<'_>) -> Result<()> {
    stage.frozen_batch()?;
    let deed = "systemctl kill --kill-who=main --signal=KILL plimsoll";
    stage.node.thaws_after(deed, &stage.batch.cgroup())?;
    stage.relieve()?;
    until("nothing of ours is left", || stage.free(&stage.batch))?;
    stage.node.script("systemctl reset-failed plimsoll; systemctl start plimsoll").map(drop)
}

pub(super) fn deleted(stage: &mut Stage<'_>) -> Result<()> {
    found(stage)?;
    stage.frozen_batch()?;
    stage.batch.delete(stage.node, &stage.cluster)?;
    let dir = format!("{CGROUPS}/{}", stage.batch.cgroup());
    stage.node.wait("its cgroup is gone", &format!("[ ! -e {dir} ]"))?;
    until("it is forgotten", || Ok(daemon::workload(stage.node, &stage.batch.workload())?.is_none()))?;
    stage.relieve()?;
    stage.node.script("systemctl is-active plimsoll").map(drop)
}
