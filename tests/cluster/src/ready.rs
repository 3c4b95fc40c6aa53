//! When the control plane can be used.
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::Cluster;
use crate::process::Process;

/// Five seconds are usual; a machine that does ten other things takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

impl Cluster {
    /// Returns when the API server says that it is ready.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        let server = self.api_server.as_ref().context("there is no API server")?;
        until(server, || self.certificate().is_file() && self.kubectl(&["get", "--raw=/readyz"]).is_ok())
            .context("kube-apiserver")
    }

    /// Returns when pods can be made in the namespace `default`.
    pub(crate) fn wait_for_service_account(&self) -> Result<()> {
        let controllers = self.others.last().context("there are no controllers")?;
        let secret = ["get", "serviceaccount", "default", "-o", "jsonpath={.secrets[0].name}"];
        until(controllers, || self.kubectl(&secret).is_ok_and(|name| !name.is_empty()))
            .context("kube-controller-manager")
    }
}

fn until(process: &Process, done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        process.check()?;
        anyhow::ensure!(start.elapsed() < PATIENCE, "it is not ready; {}", process.last_words());
        sleep(PAUSE);
    }
    Ok(())
}
