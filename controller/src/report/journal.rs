//! The journal: one JSON line per pass, written by a thread of its own. A slow or full disk costs lines, never a pass.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use plimsoll_policy::plan::{Assessment, Finding, Plan};
use plimsoll_policy::sample::Sample;
use plimsoll_policy::units::{Bytes, Monotonic};
use serde::Serialize;

use super::{Record, ReportError};

/// Version of the format, in every line.
const VERSION: u8 = 1;

/// Passes that may wait for the disk: some seconds of the busiest pace, and at most a few MiB.
const WAITING: usize = 64;

/// The thread and the way to it.
pub(super) struct Journal {
    queue: SyncSender<Arc<Record>>,
    done: Receiver<()>,
    counts: Arc<Counts>,
}

/// How the journal fares.
#[derive(Debug, Default)]
pub(super) struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
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
}

impl Journal {
    /// Starts the thread, which opens the file.
    pub(super) fn start(path: &Path, largest: Bytes) -> Result<Self, ReportError> {
        let (queue, records) = sync_channel(WAITING);
        let (ended, done) = sync_channel(1);
        let counts = Arc::new(Counts::default());
        let mut pen = Pen { file: LogFile::new(path, largest), counts: Arc::clone(&counts), failing: None };
        thread::Builder::new()
            .name("plimsoll-journal".into())
            .spawn(move || {
                records.iter().for_each(|record: Arc<Record>| pen.write(&record));
                // The other end may have given up waiting.
                let _ = ended.send(());
            })
            .map_err(|error| ReportError::Thread { name: "journal", error })?;
        Ok(Self { queue, done, counts })
    }

    /// Hands over a record; where the thread is behind, the record is dropped and counted.
    pub(super) fn write(&self, record: Arc<Record>) {
        if self.queue.try_send(record).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Waits until everything is written, or not longer than this.
    pub(super) fn drain(self, longest: Duration) {
        let Self { queue, done, counts } = self;
        drop(queue);
        if done.recv_timeout(longest).is_err() {
            tracing::warn!(dropped = counts.dropped(), "the journal was not written to its end");
        }
    }
}

/// Writes lines, and speaks up once when that begins to fail and once when it works again.
struct Pen {
    file: LogFile,
    counts: Arc<Counts>,
    /// Lines lost since it began to fail.
    failing: Option<u64>,
}

impl Pen {
    fn write(&mut self, record: &Record) {
        match line(record).and_then(|line| self.file.append(&line)) {
            Ok(()) => self.worked(),
            Err(error) => self.failed(&error),
        }
    }

    fn worked(&mut self) {
        self.counts.written.fetch_add(1, Ordering::Relaxed);
        if let Some(lost) = self.failing.take() {
            tracing::info!(path = %self.file.path.display(), lost, "the journal is written again");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        if self.failing.is_none() {
            let path = self.file.path.display();
            tracing::warn!(%path, %error, "the journal can't be written; protection goes on without it");
        }
        *self.failing.get_or_insert(0) += 1;
    }
}

/// One pass as it stands in the journal, and in a test scenario.
#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    at: Monotonic,
    sample: &'a Sample,
    assessment: &'a Assessment,
    plan: &'a Plan,
    findings: &'a [Finding],
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let Record { sample, assessment, plan, findings, took: _ } = record;
    let line = Line { v: VERSION, at: sample.at, sample, assessment, plan, findings };
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    Ok(text)
}

/// A file that only ever holds whole lines, and makes room for itself.
struct LogFile {
    path: PathBuf,
    largest: u64,
    /// The file and the length of what is whole in it; `None` until it could be opened.
    open: Option<(File, u64)>,
}

impl LogFile {
    fn new(path: &Path, largest: Bytes) -> Self {
        Self { path: path.to_owned(), largest: largest.0, open: None }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, length)| length + line.len() as u64 > self.largest) {
            self.rotate()?;
        }
        let (file, length) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(open(&self.path)?),
        };
        let written = file.write_all(line);
        match written {
            Ok(()) => *length += line.len() as u64,
            // Half a line would spoil the next one. Where even that fails, the file is opened anew.
            Err(_) if file.set_len(*length).is_ok() => {}
            Err(_) => self.open = None,
        }
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        match fs::rename(&self.path, old) {
            // Somebody has cleaned up: there is room already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// Opens for appending. A predecessor may have died within a line: that one is closed, for the next to be whole.
fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().append(true).read(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last == [b'\n'] {
        return Ok((file, length));
    }
    file.write_all(b"\n")?;
    Ok((file, length + 1))
}

#[cfg(test)]
mod tests;
