//! The node as the stories see it: scripts are run in it, and its files are read and waited for.
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::vm::Machine;

/// For what must come at all on an emulated machine whose host does other things: never a measurement.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks: each costs the guest some processes.
const PAUSE: Duration = Duration::from_millis(700);
/// Where cgroups are.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// A machine that is up.
pub(super) struct Node(pub(super) Machine);

impl Node {
    /// Runs a script of the shell, and returns what it says.
    pub(super) fn script(&self, script: &str) -> Result<String> {
        let ended = self.0.shell().run(script).with_context(|| format!("running {script:?} in the node"))?;
        ensure!(ended.passed(), "{script:?} in the node: {ended}");
        Ok(ended.output)
    }

    /// Writes a file of the node, with all directories above it.
    pub(super) fn write(&self, path: &str, content: &str) -> Result<()> {
        let script =
            format!("mkdir -p \"$(dirname {path})\"\ncat > {path} <<'END-OF-FILE'\n{content}\nEND-OF-FILE");
        self.script(&script).map(drop)
    }

    /// A file of a cgroup, without the end of its line; nothing where the cgroup is gone.
    pub(super) fn cgroup(&self, path: &str, file: &str) -> Result<String> {
        Ok(self.script(&format!("cat {CGROUPS}/{path}/{file} 2>/dev/null || true"))?.trim().to_owned())
    }

    /// Waits until a script succeeds.
    pub(super) fn wait(&self, what: &str, script: &str) -> Result<()> {
        until(what, || Ok(self.0.shell().run(script)?.passed()))
    }

    /// Does something, by a script, to a machine on which a cgroup is frozen, and sees that it runs within the two seconds of the guest's
    /// clock that are promised. Frozen and let run in turns, as it is under pressure, it is waited for first.
    pub(super) fn thaws_after(&self, deed: &str, cgroup: &str) -> Result<()> {
        let events = format!("{CGROUPS}/{cgroup}/cgroup.events");
        let said = self.script(&format!(
            "now() {{ cut -d' ' -f1 /proc/uptime | tr -d .; }}
             start=$(now)
             until grep -q 'frozen 1' {events}; do [ $(($(now) - start)) -lt 6000 ] || exit 1; done
             {deed}
             start=$(now)
             until grep -q 'frozen 0' {events}; do [ $(($(now) - start)) -lt 1000 ] || break; done
             echo $(($(now) - start))"
        ))?;
        let hundredths: u32 = said.trim().parse().with_context(|| said.clone())?;
        ensure!(hundredths < 200, "it took {hundredths} hundredths of a second");
        Ok(())
    }

    /// The daemon judges its own plans. `log` prints what it has said since it found its first workload.
    pub(super) fn no_plan_broke_an_invariant(&self, log: &str) -> Result<()> {
        let said = self.script(&format!("{log} | grep -e 'workload came' -e 'a plan broke an invariant'"))?;
        ensure!(!said.contains("a plan broke an invariant"), "{said}");
        Ok(())
    }

    /// Installs a unit's command under systemd, and starts it.
    pub(super) fn start(&self, unit: &str, options: &str, command: &str) -> Result<()> {
        self.script(&format!("systemd-run --quiet --collect --unit {unit} {options} {command}")).map(drop)
    }

    /// Starts containerd for one of the drivers, with the images of the pods in it.
    pub(super) fn start_containerd(&self, driver: super::pods::Driver) -> Result<()> {
        let systemd = driver == super::pods::Driver::Systemd;
        self.script(&format!(
            "sed -i 's/SystemdCgroup = .*/SystemdCgroup = {systemd}/' /etc/containerd/config.toml
             systemctl restart containerd"
        ))?;
        self.wait("containerd answers", "ctr version")?;
        self.script("for image in /data/images/*.tar; do ctr -n k8s.io image import $image || exit 1; done")
            .map(drop)
    }
}

/// Waits until something is so.
pub(super) fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    let mut last = None;
    while start.elapsed() < PATIENCE {
        match done() {
            Ok(true) => return Ok(()),
            Ok(false) => last = None,
            Err(error) => last = Some(error),
        }
        std::thread::sleep(PAUSE);
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("waited in vain: {what}")),
        None => bail!("waited in vain: {what}"),
    }
}
