//! kvcached: its KV cache grows and shrinks on the GPU up to a limit, which lies in shared memory for everybody to lower.
//!
//! A segment is a file in /dev/shm of three 64-bit numbers: limit, used and preallocated bytes. Writers take an exclusive `flock`.
//! That is all of the protocol that its own `kvctl` speaks, so no program has to be started to speak it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant as Clock};

use plimsoll_policy::concession::Level;
use plimsoll_policy::config::engine::EngineAt;
use tokio::time::Instant;

use super::{Capabilities, Engine, Probed, Release, Request, Requests, State};
use crate::ask::way::WayError;

/// Where segments are.
const DIRECTORY: &str = "/dev/shm";

/// How often the lock is tried.
const LOOK: Duration = Duration::from_millis(5);

/// Segments of one engine, and their limit when nothing is short. That one is configured and not remembered: after a crash of the
/// controller nobody else would know it.
#[derive(Debug)]
pub(super) struct Kvcached {
    segments: Vec<PathBuf>,
    limit: i64,
}

/// What a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    limit: i64,
    used: i64,
}

impl Kvcached {
    pub(super) fn new(at: &EngineAt) -> Result<Self, WayError> {
        Self::below(Path::new(DIRECTORY), at)
    }

    fn below(directory: &Path, at: &EngineAt) -> Result<Self, WayError> {
        let wrong = |what: &str| WayError::Misconfigured(format!("kind kvcached needs {what}"));
        let limit = at.kv_limit.ok_or_else(|| wrong("`kv_limit`"))?;
        let plain = |name: &String| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
        if at.models.is_empty() || !at.models.iter().all(plain) {
            return Err(wrong("`models`, the names of its segments in /dev/shm"));
        }
        let segments = at.models.iter().map(|name| directory.join(name)).collect();
        Ok(Self { segments, limit: i64::try_from(limit.0).unwrap_or(i64::MAX) })
    }

    /// Reads every segment and writes the limit that `to` makes of it, if any.
    async fn each(&self, by: Instant, to: fn(Segment, i64) -> Option<i64>) -> Result<Vec<Segment>, WayError> {
        let (segments, limit) = (self.segments.clone(), self.limit);
        let left = by.saturating_duration_since(Instant::now());
        let work = move || {
            let until = Clock::now() + left;
            segments.iter().map(|path| visit(path, until, |segment| to(segment, limit))).collect()
        };
        let gone = |error: tokio::task::JoinError| WayError::Unreachable(error.to_string());
        tokio::task::spawn_blocking(work).await.map_err(gone)?
    }
}

impl Engine for Kvcached {
    fn kind(&self) -> &'static str {
        "kvcached"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let segments = self.each(by, |_, _| None).await?;
        let lowered = segments.iter().any(|segment| segment.limit < self.limit);
        let state = if lowered { State::Released(Some(Level::Aggressive)) } else { State::Active };
        let can = Capabilities {
            requests: Requests::Finished,
            ..Capabilities::one(Level::Aggressive, Release::CACHES)
        };
        Ok(Probed { can, state, ..Probed::default() })
    }

    /// Down to what is in use: it serves on, and does not grow.
    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        self.each(by, |segment, limit| Some(segment.used.clamp(0, limit))).await.map(drop)
    }

    async fn restore(&self, _: Option<Release>, by: Instant) -> Result<(), WayError> {
        self.each(by, |_, limit| Some(limit)).await.map(drop)
    }

    /// It never stopped serving.
    async fn smoke(&self, _: Instant) -> Result<(), WayError> {
        Ok(())
    }
}

/// Under the lock that its owner takes too. The file is never created: a segment of a wrong name would be nobody's.
fn visit(path: &Path, until: Clock, to: impl Fn(Segment) -> Option<i64>) -> Result<Segment, WayError> {
    let said = |error: io::Error| WayError::Unreachable(format!("{}: {error}", path.display()));
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(said)?;
    lock(&file, until).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => WayError::Busy(format!("{}, which is locked", path.display())),
        _ => said(error),
    })?;
    let mut bytes = [0; 24];
    let short = |_| WayError::Garbled(format!("{} is shorter than a segment", path.display()));
    file.read_exact_at(&mut bytes, 0).map_err(short)?;
    let segment =
        parse(&bytes).ok_or_else(|| WayError::Garbled(format!("{} is no segment", path.display())))?;
    match to(segment) {
        Some(limit) if limit != segment.limit => file.write_all_at(&limit.to_ne_bytes(), 0).map_err(said)?,
        _ => {}
    }
    Ok(segment)
}

/// An exclusive lock; it goes with the file.
fn lock(file: &File, until: Clock) -> io::Result<()> {
    use rustix::fs::{FlockOperation, flock};
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Clock::now() < until => std::thread::sleep(LOOK),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// `None` where the numbers can't be sizes.
fn parse(bytes: &[u8; 24]) -> Option<Segment> {
    let (numbers, _) = bytes.as_chunks::<8>();
    let [limit, used, preallocated] =
        [0, 1, 2].map(|at: usize| numbers.get(at).map_or(-1, |n| i64::from_ne_bytes(*n)));
    (limit >= 0 && used >= 0 && preallocated >= 0).then_some(Segment { limit, used })
}

#[cfg(test)]
mod tests;
