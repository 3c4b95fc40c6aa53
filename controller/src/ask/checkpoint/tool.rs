//! The program `cuda-checkpoint`, one call at a time, each with a time after which it is ended.
//!
//! Ending it does not end what it has begun: a process goes on copying, and says nothing of its state until it is done.

use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::group::Group;
use super::patience::Patience;

/// How long a step may take that copies nothing, beyond what it is told to wait.
const STEP: Duration = Duration::from_secs(10);
/// How often is looked whether the program has ended. Copying takes seconds.
const NAP: Duration = Duration::from_millis(5);

/// What CUDA in a process is doing, in the program's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// Its CUDA calls wait.
    Locked,
    /// Its GPU memory is on the host.
    Checkpointed,
    /// It is of no more use.
    Failed,
    /// It did not answer yet: it is being copied, or stopped.
    Silent,
    /// Why it is not known.
    Unknown(String),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Locked => "locked",
            Self::Checkpointed => "checkpointed",
            Self::Failed => "failed and has to be restarted",
            Self::Silent => "silent, as while it is being copied",
            Self::Unknown(why) => return write!(f, "in an unknown state: {why}"),
        })
    }
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Lock,
    Checkpoint,
    Restore,
    Unlock,
}

impl Action {
    /// The state in which it can be taken.
    pub(super) const fn needs(self) -> State {
        match self {
            Self::Lock => State::Running,
            Self::Checkpoint | Self::Unlock => State::Locked,
            Self::Restore => State::Checkpointed,
        }
    }

    /// Where it leads.
    pub(super) const fn result(self) -> State {
        match self {
            Self::Lock | Self::Restore => State::Locked,
            Self::Checkpoint => State::Checkpointed,
            Self::Unlock => State::Running,
        }
    }
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
    pub(super) program: PathBuf,
    /// How long the work that is under way on a GPU is waited for.
    pub(super) lock: Duration,
    /// How long a copy may take.
    pub(super) copy: Duration,
}

impl Tool {
    /// What a process is doing. It does not say so in the middle of a copy: then this waits for its end.
    pub(super) fn state(&self, pid: u32, patience: &Patience) -> State {
        let mut command = self.command(pid);
        match run(command.arg("--get-state"), patience) {
            Ok(answer) => match answer.trim() {
                "running" => State::Running,
                "locked" => State::Locked,
                "checkpointed" => State::Checkpointed,
                "failed" => State::Failed,
                other => State::Unknown(format!("it says {other:?}")),
            },
            Err(Unfinished::Late) => State::Silent,
            Err(Unfinished::Failed(why)) => State::Unknown(why),
        }
    }

    /// The same, for somebody who waits no longer than this.
    pub(super) fn hurried(&self, left: Duration) -> Self {
        Self { lock: self.lock.min(left), ..self.clone() }
    }

    /// Takes a step, or says in words why not.
    pub(super) fn act(&self, action: Action, pid: u32) -> Result<(), String> {
        let mut command = self.command(pid);
        command.args(["--action", &action.to_string()]);
        let within = match action {
            Action::Lock => {
                command.args(["--timeout", &self.lock.as_millis().max(1).to_string()]);
                self.lock + STEP
            }
            Action::Unlock => STEP,
            Action::Checkpoint | Action::Restore => self.copy,
        };
        let acted = run(&mut command, &Patience::within(within));
        acted.map(drop).map_err(|why| format!("{action} of process {pid}: {why}"))
    }

    fn command(&self, pid: u32) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--pid", &pid.to_string()]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }
}

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("no end within its time")]
    Late,
    #[error("{0}")]
    Failed(String),
}

/// Runs it to its end, or until nobody waits any longer. What it says fits into a pipe: a line.
fn run(command: &mut Command, patience: &Patience) -> Result<String, Unfinished> {
    let failed = |error: std::io::Error| Unfinished::Failed(error.to_string());
    let mut child =
        command.spawn().map_err(|error| Unfinished::Failed(format!("can't be started: {error}")))?;
    let group = Group::of(Some(child.id()));
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if !patience.is_over() => sleep(NAP),
            None => {
                drop(group);
                reap(&mut child);
                return Err(Unfinished::Late);
            }
        }
    };
    // A child that it left would keep its pipes open.
    drop(group);
    if status.success() {
        return Ok(text(child.stdout.take()));
    }
    let said = text(child.stderr.take());
    Err(Unfinished::Failed(if said.trim().is_empty() { status.to_string() } else { said.trim().to_owned() }))
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
