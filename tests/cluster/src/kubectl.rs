//! kubectl, as an administrator: for what a test sets the scene with.
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{Cluster, Place, User};

impl Cluster {
    /// Runs `kubectl` and returns what it prints.
    ///
    /// # Errors
    /// What it says of an error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, "")
    }

    /// The same, with its input: manifests after `apply -f -`.
    ///
    /// # Errors
    /// What it says of an error.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(self.options.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig(&User::Admin, Place::Here)?);
        // What it learns of the API is kept with the cluster, not in somebody's home.
        command.arg("--cache-dir").arg(self.dir().join("kubectl")).args(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("running kubectl")?;
        // Manifests of tests are smaller than a pipe; closed here, so that it sees the end.
        child.stdin.take().context("kubectl has no input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
