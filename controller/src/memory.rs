//! What outlives the daemon, in a small JSON file: what was learned of each workload, and the number of the last action.
//!
//! Read once at the start. Written by a thread of its own, at most once a minute and at the end, to a temporary file that takes
//! the old one's place: whoever dies in between leaves one of the two. A file that can't be understood is kept aside for people, and the
//! daemon begins with what it would expect of anybody.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use plimsoll_policy::memory::Memory;
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Monotonic, Span};
use serde::{Deserialize, Serialize};

use crate::sense::clock::wall_ms;

/// Version of the format.
const VERSION: u64 = 1;
/// Time between two writes. What a crash loses is learned again soon.
const EVERY: Span = Span::secs(60);
/// Numbers that a file speaks for before they are given: after a crash they are left out, so that none is given twice. It is
/// written again before they are used up.
const AHEAD: u64 = 1000;
/// How long the end waits for the last write.
const DRAIN: Duration = Duration::from_secs(1);

/// The file.
#[derive(Serialize, Deserialize)]
struct Saved {
    v: u64,
    /// Milliseconds since 1970: how long ago it was, after a reboot too.
    written: u64,
    memory: Memory,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error(transparent)]
    Text(#[from] serde_json::Error),
    #[error("it is no state of plimsoll: `v` is missing")]
    Foreign,
    #[error("its format is version {0}, this program reads version {VERSION}")]
    Version(u64),
}

/// Keeps the file up to date.
pub struct Keeper {
    path: PathBuf,
    queue: SyncSender<Memory>,
    done: Receiver<()>,
    kept: Monotonic,
    /// The last number that the file speaks for.
    reserved: u64,
}

impl Keeper {
    /// Reads the file and starts the thread. A file that can't be read is a warning: protection goes on without it.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start(path: &Path, now: Monotonic) -> io::Result<(Self, State)> {
        let state = recall(path, now);
        // Beside one that the disk is slow to take, the last one has room.
        let (queue, memories) = sync_channel(2);
        let (ended, done) = sync_channel(1);
        let file = path.to_owned();
        thread::Builder::new().name("memory".into()).spawn(move || {
            let mut failing = false;
            memories.iter().for_each(|memory| failing = write(&file, memory, failing));
            // The other end may have given up waiting.
            let _ = ended.send(());
        })?;
        let mut keeper = Self { path: path.to_owned(), queue, done, kept: now, reserved: 0 };
        keeper.keep(&state, now);
        Ok((keeper, state))
    }

    /// Hands the state over when it is time. Copies, and never waits.
    pub fn pass(&mut self, state: &State, now: Monotonic) {
        if now.since(self.kept) >= EVERY || state.action > self.reserved.saturating_sub(AHEAD / 2) {
            self.keep(state, now);
        }
    }

    fn keep(&mut self, state: &State, now: Monotonic) {
        let mut memory = state.remember(now);
        memory.action = memory.action.saturating_add(AHEAD);
        let ahead = memory.action;
        // Where the disk is so slow that the last one still waits, the next pass tries again.
        if self.queue.try_send(memory).is_ok() {
            (self.kept, self.reserved) = (now, ahead);
        }
    }

    /// Writes for the last time: here no number is left out.
    pub fn end(self, state: &State, now: Monotonic) {
        let Self { path, queue, done, .. } = self;
        let sent = queue.try_send(state.remember(now)).is_ok();
        drop(queue);
        if !sent || done.recv_timeout(DRAIN).is_err() {
            tracing::warn!(path = %path.display(), "what was learned was not written to its end");
        }
    }
}

/// What the file says; the state of a first start where it says nothing.
fn recall(path: &Path, now: Monotonic) -> State {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return State::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "can't read what was learned");
            return State::default();
        }
    };
    match parse(&text) {
        Ok(Saved { written, memory, .. }) => {
            let away = Span::millis(wall_ms().saturating_sub(written).min(u64::MAX / 1_000_000));
            tracing::info!(workloads = memory.workloads.len(), action = memory.action, %away, "remembers");
            State::recall(&memory, away, now)
        }
        Err(damage) => {
            set_aside(path, &damage);
            State::default()
        }
    }
}

fn parse(text: &[u8]) -> Result<Saved, Damage> {
    #[derive(Deserialize)]
    struct Version {
        v: Option<u64>,
    }
    match serde_json::from_slice::<Version>(text)?.v {
        Some(VERSION) => Ok(serde_json::from_slice(text)?),
        Some(other) => Err(Damage::Version(other)),
        None => Err(Damage::Foreign),
    }
}

fn set_aside(path: &Path, damage: &Damage) {
    let aside = beside(path, ".damaged");
    let kept = fs::rename(path, &aside);
    let kept = kept.map_or_else(|error| error.to_string(), |()| aside.display().to_string());
    tracing::warn!(path = %path.display(), why = %damage, kept, "what was learned can't be understood, beginning anew");
}

/// Writes, and speaks up once when that begins to fail and once when it works again.
fn write(path: &Path, memory: Memory, failing: bool) -> bool {
    let path_shown = path.display();
    match replace(path, memory) {
        Ok(()) if failing => tracing::info!(path = %path_shown, "what was learned is written again"),
        Err(error) if !failing => {
            tracing::warn!(path = %path_shown, %error, "can't write what was learned; protection goes on without it");
        }
        Ok(()) => return false,
        Err(_) => return true,
    }
    !failing
}

fn replace(path: &Path, memory: Memory) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let new = beside(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(&Saved { v: VERSION, written: wall_ms(), memory })?)?;
    // Without this a power cut could leave the new name on an empty file.
    file.sync_data()?;
    fs::rename(new, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Monotonic = Monotonic(5_000_000_000);

    fn at(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("deep/state.json")
    }

    fn run(path: &Path, actions: u64, ends: bool) -> u64 {
        let (mut keeper, mut state) = Keeper::start(path, NOW).unwrap();
        let began = state.action;
        state.action += actions;
        keeper.pass(&state, NOW);
        if ends {
            keeper.end(&state, NOW);
        } else {
            // What a crash leaves is what had been written by then.
            drop(keeper.queue);
            keeper.done.recv().unwrap();
        }
        began
    }

    #[test]
    fn numbers_of_actions_go_on_and_are_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(run(&at(&dir), 7, true), 0);
        assert_eq!(run(&at(&dir), 3, false), 7);
        assert!(run(&at(&dir), 2000, false) >= 10, "those of a crashed run are left out");
        assert!(run(&at(&dir), 0, true) >= 2010, "and it is written anew before they run out");
    }

    #[test]
    fn a_damaged_file_is_kept_aside() {
        for text in ["{\"v\":1,\n\"written\":", "[]", "{\"v\":7}", "{\"a\":1}", "", "\u{0}\u{0}"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.json");
            fs::write(&path, text).unwrap();
            assert_eq!(recall(&path, NOW), State::default());
            assert_eq!(fs::read_to_string(beside(&path, ".damaged")).unwrap(), text);
            assert!(!path.exists());
        }
        let why = |text: &str| parse(text.as_bytes()).err().unwrap().to_string();
        assert!(why("{\"v\":1,\n\"written\":").ends_with("at line 2 column 10"), "it says where");
        assert_eq!(why("{\"v\":7}"), "its format is version 7, this program reads version 1");
    }
}
