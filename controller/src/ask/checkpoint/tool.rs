//! The program `cuda-checkpoint`, one call at a time, each with a deadline at which it is ended.

use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::group::Group;

/// How long a question for the state may take: nothing is copied for it.
const STATE: Duration = Duration::from_secs(2);
/// How often is looked whether the program has ended. Copying takes seconds.
const NAP: Duration = Duration::from_millis(5);

/// What CUDA in a process is doing, in the program's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// Its CUDA calls wait.
    Locked,
    /// Its GPU memory is on the host.
    Checkpointed,
    /// Anything else, or no answer.
    Unknown,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Lock,
    Checkpoint,
    Restore,
    Unlock,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
            Self::Unlock => "unlock",
        })
    }
}

/// The program.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    program: PathBuf,
    /// How long the work that is under way on a GPU is waited for.
    lock: Duration,
}

impl Tool {
    pub(super) const fn new(program: PathBuf, lock: Duration) -> Self {
        Self { program, lock }
    }

    /// What a process is doing.
    pub(super) fn state(&self, pid: u32) -> State {
        let mut command = self.command(pid);
        let answer = run(command.arg("--get-state"), Instant::now() + STATE);
        match answer.as_deref().map(str::trim) {
            Ok("running") => State::Running,
            Ok("locked") => State::Locked,
            Ok("checkpointed") => State::Checkpointed,
            _ => State::Unknown,
        }
    }

    /// Takes a step, or says in words why not.
    pub(super) fn act(&self, action: Action, pid: u32, by: Instant) -> Result<(), String> {
        let mut command = self.command(pid);
        command.args(["--action", &action.to_string()]);
        if action == Action::Lock {
            let left = self.lock.min(by.saturating_duration_since(Instant::now()));
            command.args(["--timeout", &left.as_millis().max(1).to_string()]);
        }
        run(&mut command, by).map(drop).map_err(|why| format!("{action} of process {pid}: {why}"))
    }

    fn command(&self, pid: u32) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--pid", &pid.to_string()]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }
}

/// Runs it to its end or its deadline. What it says fits into a pipe: a line.
fn run(command: &mut Command, by: Instant) -> Result<String, String> {
    let mut child = command.spawn().map_err(|error| format!("can't be started: {error}"))?;
    let group = Group::of(Some(child.id()));
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < by => sleep(NAP),
            Ok(None) => {
                drop(group);
                reap(&mut child);
                return Err("no end within its time".into());
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    // A child that it left would keep its pipes open.
    drop(group);
    if status.success() {
        return Ok(text(child.stdout.take()));
    }
    let said = text(child.stderr.take());
    Err(if said.trim().is_empty() { status.to_string() } else { said.trim().to_owned() })
}

/// It may be in the driver, where no signal ends it: then it is left to whoever reaps orphans.
fn reap(child: &mut Child) {
    let patience = Instant::now() + Duration::from_millis(500);
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < patience {
        sleep(NAP);
    }
}

/// What it said, as far as it matters.
fn text(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    let _ = pipe.map(|pipe| pipe.take(1024).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
