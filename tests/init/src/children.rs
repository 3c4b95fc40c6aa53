//! Runs the command and does what only PID 1 can do: reap everybody's orphans.
use std::fs::{File, OpenOptions};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use plimsoll_init::{STDOUT_PORT, Spec, survivors};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::ports::port;

/// How long the survivors of the command may take to die.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the command to its end and returns its exit code as a shell would.
pub(crate) fn run(spec: &Spec) -> Result<i32> {
    let (program, arguments) = spec.command.split_first().context("is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&spec.env).current_dir("/");
    if !spec.interactive {
        let out = output()?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    }
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    loop {
        match wait(WaitOptions::empty())? {
            Some((who, status)) if who == pid => return Ok(exit_code(status)),
            _ => {}
        }
    }
}

/// Kills every process that the command left behind, and reaps what it can.
pub(crate) fn end_the_rest() {
    survivors::kill_all(GRACE);
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

fn output() -> io::Result<File> {
    let path = port(STDOUT_PORT).map_err(io::Error::other)?;
    OpenOptions::new().write(true).open(path)
}

fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1)
}
