//! A program that lives no longer than the one who started it.
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

/// How often it is looked whether it still runs.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of a log that an error quotes.
const QUOTED: usize = 12;

/// A program that is not yet running.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
}

impl Program {
    /// Its log goes to `dir`, under its name.
    pub(crate) fn new(path: &Path, dir: &Path) -> Self {
        let log = dir.join(path.file_name().unwrap_or_default()).with_extension("log");
        Self { path: path.to_owned(), arguments: Vec::new(), log }
    }

    pub(crate) fn flag(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.arguments.push(format!("--{name}={value}").into());
        self
    }

    pub(crate) fn switch(&mut self, name: &str) -> &mut Self {
        self.arguments.push(format!("--{name}").into());
        self
    }

    /// A thread of its own starts it and waits for it: the kernel kills it (`PR_SET_PDEATHSIG`) when that thread ends, and the
    /// thread that calls this may be that of one test among many.
    pub(crate) fn start(&self) -> Result<Process> {
        let log = File::options().append(true).create(true).open(&self.log);
        let log = log.with_context(|| self.log.display().to_string())?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.path).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let (started, start) = channel();
        let (stop, stopped) = channel();
        let ended = Arc::new(Mutex::new(None));
        let end = Arc::clone(&ended);
        let keeper = thread::spawn(move || keep(command, &started, &stopped, &end));
        let id = start.recv().context("the thread that starts it ended")?;
        let id = id.with_context(|| format!("starting {}", self.path.display()))?;
        Ok(Process { id, log: self.log.clone(), ended, stop: Some(stop), keeper: Some(keeper) })
    }
}

/// How a program ended; none while it runs.
type Ended = Mutex<Option<String>>;

/// Starts the program, and stays until it has ended or nobody wants it any more.
fn keep(mut command: Command, started: &Sender<std::io::Result<u32>>, stopped: &Receiver<()>, ended: &Ended) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let _ = started.send(Ok(child.id()));
    let how = watch(&mut child, stopped);
    *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
}

fn watch(child: &mut Child, stopped: &Receiver<()>) -> String {
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return status.to_string(),
            Err(error) => return error.to_string(),
        }
        if stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
            // It has nothing to put in order that its successor would need.
            let _ = child.kill();
        }
    }
}

/// A program that runs, or has ended by itself. Killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    id: u32,
    log: PathBuf,
    ended: Arc<Ended>,
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// An error, with the end of its log, if it has ended.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(how) => Err(anyhow!("it ended with {how}:\n{}", self.last_words())),
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(QUOTED)..].join("\n");
        format!("the end of {}:\n{last}", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}
