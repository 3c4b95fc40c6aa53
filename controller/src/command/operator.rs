//! The sub-commands that ask a running daemon, over its control socket.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use plimsoll::control;
use plimsoll::control::client::{self, AskError, Operation};
use plimsoll::control::client::{ExplainReply, ReleaseReply, ResumeReply, StatusReply};
use plimsoll::ledger::Ledger;
use plimsoll::ledger::release::{self, Released};
use plimsoll::report;
use serde::Deserialize;

use super::{load, print};
use crate::cli::ConfigFile;

/// One call of the daemon that this configuration is of.
fn ask<T>(file: &ConfigFile, operation: Operation<'_>) -> Result<Result<T, AskError>>
where
    T: for<'de> Deserialize<'de> + std::fmt::Debug,
{
    let socket: Option<PathBuf> = control::path(&load(file)?.daemon);
    let Some(socket) = socket else { return Ok(Err(AskError::Off)) };
    Ok(client::block_on(client::operate(&socket, operation)).and_then(|answer| answer))
}

pub(crate) fn status(workload: Option<&str>, json: bool, url: Option<&str>, file: &ConfigFile) -> Result<()> {
    let status = match url {
        Some(url) => over_http(workload, url)?,
        None => match ask::<StatusReply>(file, Operation::Status { workload })? {
            Err(error @ (AskError::Denied(_) | AskError::Off)) => {
                return Err(error).context("ask over HTTP instead, like --url http://127.0.0.1:9478");
            }
            answer => answer?.status,
        },
    };
    if json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&status)?));
    }
    print(&report::render(&status))
}

fn over_http(workload: Option<&str>, url: &str) -> Result<report::status::Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(report::status(url))?;
    Ok(match workload {
        Some(name) => status.only(name)?,
        None => status,
    })
}

/// The story of an action as the daemon's own journal tells it; `None` where there is no daemon to be asked, or not by us.
pub(super) fn explained(id: u64, file: &ConfigFile) -> Result<Option<ExplainReply>> {
    match ask(file, Operation::Explain { action: id })? {
        Err(error) if error.is_absence() || matches!(error, AskError::Denied(_)) => Ok(None),
        answer => Ok(Some(answer?)),
    }
}

/// Without a daemon, what one has left behind is undone by what it wrote down.
pub(crate) fn release(workload: Option<&str>, file: &ConfigFile) -> Result<()> {
    match ask::<ReleaseReply>(file, Operation::Release { workload })? {
        Err(error) if error.is_absence() => {}
        answer => return released(&answer?.released),
    }
    if let Some(name) = workload {
        bail!("there is no daemon that could let {name} go; without a name everything is released");
    }
    let config = load(file)?;
    let run_dir = config.daemon.run_dir.as_ref();
    let Some(_) = Ledger::existing(run_dir)? else {
        return Ok(release::print(&Released::default(), &mut std::io::stdout())?);
    };
    let ledger = Ledger::own(run_dir, &config.daemon.cgroup_root)
        .context("stop the daemon first: it releases everything at its end")?;
    let released = release::release(&ledger);
    release::print(&released, &mut std::io::stdout())?;
    ensure!(released.failed.is_empty(), "{} things could not be undone", released.failed.len());
    Ok(())
}

pub(crate) fn pause(lasts: Duration, file: &ConfigFile) -> Result<()> {
    let seconds = lasts.as_secs();
    let ReleaseReply { released: let_go } = ask(file, Operation::Pause { seconds })??;
    released(&let_go)?;
    print(&format!("paused for {seconds} s; `plimsoll resume` ends it sooner\n"))
}

pub(crate) fn resume(file: &ConfigFile) -> Result<()> {
    let ResumeReply { paused } = ask(file, Operation::Resume {})??;
    print(if paused { "the pause is over\n" } else { "there was no pause\n" })
}

fn released(all: &[String]) -> Result<()> {
    if all.is_empty() {
        return print("nothing was set\n");
    }
    all.iter().try_for_each(|sentence| print(&format!("{sentence}\n")))
}
