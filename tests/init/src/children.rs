//! Runs the command and does what only PID 1 can do: reap everybody's orphans.
use std::fs::{File, OpenOptions};
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use plimsoll_init::{STDOUT_PORT, Spec};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use crate::ports::port;

/// How long the survivors of the command may take to die: a process in uninterruptible sleep must not keep the guest.
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

/// Kills every process that the command left behind, and reaps it.
pub(crate) fn end_the_rest() {
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        for pid in processes() {
            // One that has just exited by itself is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return,
        }
    }
}

/// Every process but this one and the kernel's threads, which have no command line.
fn processes() -> Vec<Pid> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = dir.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let ours =
        |pid: &i32| *pid != 1 && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty());
    pids.filter(ours).filter_map(Pid::from_raw).collect()
}

fn output() -> io::Result<File> {
    let path = port(STDOUT_PORT).map_err(io::Error::other)?;
    OpenOptions::new().write(true).open(path)
}

fn exit_code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1)
}
