//! Who plays: model server, batch job and client, each started in its cgroup and told when to grow.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use plimsoll_workload::record::Fate;

use super::parse;

/// How long a load may take until it says that it is ready: the server reads all its weights from disk.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A load that was started.
pub(super) struct Load {
    name: &'static str,
    child: Child,
    group: PathBuf,
    says: PathBuf,
}

impl Load {
    /// Starts a sub-command of this program in a cgroup; what it says goes to `OUT/NAME.jsonl`.
    pub(super) fn start(
        name: &'static str,
        group: &Path,
        oom_score_adj: i32,
        out: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let says = out.join(format!("{name}.jsonl"));
        let child = Command::new(&program)
            .args(["launch", "--oom-score-adj", &oom_score_adj.to_string(), "--cgroup"])
            .arg(group)
            .arg("--")
            .arg(&program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(File::create(&says).with_context(|| format!("creating {}", says.display()))?)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, group: group.to_owned(), says })
    }

    /// Waits until it has said that it is ready.
    pub(super) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + READY_WITHIN;
        while !std::fs::read_to_string(&self.says)?.contains(r#""event":"ready""#) {
            let status = self.child.try_wait()?;
            anyhow::ensure!(status.is_none(), "{} ended before it was ready: {status:?}", self.name);
            anyhow::ensure!(Instant::now() < end, "{} was not ready within {READY_WITHIN:?}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Tells it to grow.
    pub(super) fn grow(&mut self) -> anyhow::Result<()> {
        let input = self.child.stdin.as_mut().context("its standard input is a pipe")?;
        input.write_all(b"grow\n").with_context(|| format!("telling {} to grow", self.name))
    }

    /// Waits until it ends by itself.
    pub(super) fn wait(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        anyhow::ensure!(status.success(), "{} failed: {status}", self.name);
        Ok(())
    }

    /// Its name, and how it stands.
    pub(super) fn fate(&mut self) -> anyhow::Result<(String, Fate)> {
        let fate = match self.child.try_wait()? {
            None => Fate::Running,
            Some(status) => match status.signal() {
                None => Fate::Exited(status.code().unwrap_or(-1)),
                Some(signal) => Fate::Killed { signal, kernel_oom: self.kernel_oom_kills() },
            },
        };
        Ok((self.name.to_owned(), fate))
    }

    fn kernel_oom_kills(&self) -> u64 {
        let events = std::fs::read_to_string(self.group.join("memory.events.local")).unwrap_or_default();
        parse::keyed(&events, "oom_kill ").unwrap_or(0)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended already, and the guest is about to be switched off anyway.
        let _ = self.child.kill();
    }
}
