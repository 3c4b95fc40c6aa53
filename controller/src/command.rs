//! The sub-commands that act, between their arguments and the library.

use anyhow::{Context, Result};
use plimsoll::exec::Exec;
use plimsoll::ledger::Ledger;
use plimsoll::ledger::release;
use plimsoll::{config, exec, run};
use plimsoll_policy::config::Config;
use plimsoll_policy::sample;

use crate::cli::{ConfigFile, ExecArgs, Preference};

fn load(file: &ConfigFile) -> Result<Config> {
    match &file.config {
        Some(path) => Ok(config::load(path)?),
        None => Ok(Config::default()),
    }
}

pub(crate) fn run(file: &ConfigFile, dry_run: bool) -> Result<()> {
    let mut config = load(file)?;
    config.ladder.dry_run |= dry_run;
    Ok(run::run(&config)?)
}

pub(crate) fn exec(arguments: ExecArgs) -> Result<()> {
    let ExecArgs { name, priority, preference, file, command } = arguments;
    let preference = match preference {
        Preference::None => sample::Preference::None,
        Preference::Avoid => sample::Preference::Avoid,
        Preference::Omit => sample::Preference::Omit,
    };
    let daemon = load(&file)?.daemon;
    match exec::exec(&Exec { name, priority, preference, command }, &daemon)? {}
}

/// A daemon that runs would set again what is released here, so it has to be told to go instead.
pub(crate) fn release(file: &ConfigFile) -> Result<()> {
    let config = load(file)?;
    let run_dir = config.daemon.run_dir.as_ref();
    let Some(_) = Ledger::existing(run_dir)? else {
        return Ok(release::print(&release::Released::default(), &mut std::io::stdout())?);
    };
    let ledger = Ledger::own(run_dir, &config.daemon.cgroup_root)
        .context("stop the daemon first: it releases everything at its end")?;
    let released = release::release(&ledger);
    release::print(&released, &mut std::io::stdout())?;
    anyhow::ensure!(released.failed.is_empty(), "{} things could not be undone", released.failed.len());
    Ok(())
}
