//! The journal: one JSON line per pass, written by a thread of its own. A slow or full disk costs lines, never a pass.

mod file;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use plimsoll_policy::config::{Config, Daemon};
use plimsoll_policy::journal::{Clock, Head, Line, VERSION};
use plimsoll_policy::units::{Monotonic, Span};
use serde::Serialize;

use self::file::LogFile;
use super::{Record, ReportError};
use crate::sense::clock::{now, wall_ms};

/// Passes that may wait for the disk: some seconds of the busiest pace, and at most a few MiB.
const WAITING: usize = 64;

/// Time between two keyframes: what is lost of a damaged journal, at most. With many workloads a state is as large as some
/// ten samples; once in a minute it is a twelfth of the journal at the calm pace and next to nothing at the busy one.
const KEYFRAMES: Span = Span::secs(60);

/// The thread and the way to it.
pub(super) struct Journal {
    queue: SyncSender<(u64, Arc<Record>)>,
    done: Receiver<()>,
    counts: Arc<Counts>,
    /// Number of the last pass.
    passes: u64,
    /// When a state was last written.
    keyframe: Option<Monotonic>,
}

/// How the journal fares.
#[derive(Debug, Default)]
pub(super) struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    /// The thread asks for a keyframe: lines were lost, or a new file is about to begin.
    wanted: AtomicBool,
}

impl Counts {
    /// Lines that are in the file.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines that are not: the disk was slow, full or gone.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lost(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Journal {
    /// Starts the thread, which opens the file; `None` where there shall be no journal.
    pub(super) fn start(config: &Config) -> Result<Option<Self>, ReportError> {
        let Some(file) = log_file(&config.daemon) else { return Ok(None) };
        let (queue, records) = sync_channel(WAITING);
        let (ended, done) = sync_channel(1);
        let counts = Arc::new(Counts::default());
        let mut pen = Pen::new(file, head(config), Arc::clone(&counts));
        thread::Builder::new()
            .name("plimsoll-journal".into())
            .spawn(move || {
                records.iter().for_each(|(n, record): (u64, Arc<Record>)| pen.write(n, &record));
                // The other end may have given up waiting.
                let _ = ended.send(());
            })
            .map_err(|error| ReportError::Thread { name: "journal", error })?;
        Ok(Some(Self { queue, done, counts, passes: 0, keyframe: None }))
    }

    /// Whether the pass that begins now shall bring the state before it along.
    pub(super) fn wants_state(&self, at: Monotonic) -> bool {
        self.keyframe.is_none_or(|last| at.since(last) >= KEYFRAMES)
            || self.counts.wanted.load(Ordering::Relaxed)
    }

    /// Hands over a record; where the thread is behind, the record is dropped and counted.
    pub(super) fn write(&mut self, record: Arc<Record>) {
        self.passes += 1;
        if record.before.is_some() {
            self.keyframe = Some(record.sample.at);
            self.counts.wanted.store(false, Ordering::Relaxed);
        }
        if self.queue.try_send((self.passes, record)).is_err() {
            self.counts.lost();
        }
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Waits until everything is written, or not longer than this.
    pub(super) fn drain(self, longest: Duration) {
        let Self { queue, done, counts, .. } = self;
        drop(queue);
        if done.recv_timeout(longest).is_err() {
            tracing::warn!(dropped = counts.dropped(), "the journal was not written to its end");
        }
    }
}

fn log_file(daemon: &Daemon) -> Option<LogFile> {
    let path = daemon.journal.as_ref()?;
    Some(LogFile::new(path.as_ref(), daemon.journal_size, daemon.journal_files))
}

/// The journal's files that are there, oldest first.
#[must_use]
pub fn journal_files(daemon: &Daemon) -> Vec<PathBuf> {
    let Some(newest) = daemon.journal.as_ref().map(Path::new) else { return Vec::new() };
    let older = (1..daemon.journal_files).rev().map(|age| file::rotated(newest, age));
    older.chain([newest.to_owned()]).filter(|path| path.exists()).collect()
}

fn head(config: &Config) -> Head {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    Head {
        v: VERSION,
        program: Some(env!("CARGO_PKG_VERSION").into()),
        boot: boot.map(|id| id.trim().to_owned()),
        clock: None,
        config: config.clone(),
    }
}

/// Writes lines, and speaks up once when that begins to fail and once when it works again.
struct Pen {
    file: LogFile,
    /// Begins every file, with the clocks of that moment.
    head: Head,
    counts: Arc<Counts>,
    /// Lines lost since it began to fail.
    failing: Option<u64>,
    /// The last pass of which the state can be had from the file.
    replayable: Option<u64>,
}

impl Pen {
    fn new(file: LogFile, head: Head, counts: Arc<Counts>) -> Self {
        Self { file, head, counts, failing: None, replayable: None }
    }

    fn write(&mut self, n: u64, record: &Record) {
        match self.append(n, record) {
            Ok(()) => self.worked(n, record.before.is_some()),
            Err(error) => self.failed(&error),
        }
    }

    fn append(&mut self, n: u64, record: &Record) -> io::Result<()> {
        let line = text(&line(n, record))?;
        if !self.file.make_room(line.len(), record.before.is_some())? {
            return self.file.append(&line);
        }
        let clock = Some(Clock { at: now(), unix_ms: wall_ms() });
        let mut begin = text(&Head { clock, ..self.head.clone() })?;
        begin.extend(line);
        self.replayable = None;
        self.file.append(&begin)
    }

    /// A keyframe is asked for only once a line went through: while the disk is full nobody copies states for nothing.
    fn worked(&mut self, n: u64, keyframe: bool) {
        self.counts.written.fetch_add(1, Ordering::Relaxed);
        if let Some(lost) = self.failing.take() {
            tracing::info!(path = %self.file.path().display(), lost, "the journal is written again");
        }
        let follows = self.replayable.is_some_and(|last| last + 1 == n);
        self.replayable = (keyframe || follows).then_some(n);
        if self.replayable.is_none() || self.file.is_nearly_full() {
            self.counts.wanted.store(true, Ordering::Relaxed);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.counts.lost();
        if self.failing.is_none() {
            let path = self.file.path().display();
            tracing::warn!(%path, %error, "the journal can't be written; protection goes on without it");
        }
        *self.failing.get_or_insert(0) += 1;
    }
}

fn line(n: u64, record: &Record) -> Line<'_> {
    let Record { before, sample, assessment, plan, findings, others: _, took: _ } = record;
    Line {
        v: VERSION,
        n: Some(n),
        sample: Cow::Borrowed(sample),
        assessment: Some(Cow::Borrowed(assessment)),
        plan: Some(Cow::Borrowed(plan)),
        findings: Some(Cow::Borrowed(findings)),
        state: before.as_ref().map(Cow::Borrowed),
    }
}

fn text(line: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use by_hand::journal_by_hand;
