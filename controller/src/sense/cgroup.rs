//! One cgroup through descriptors that are held open: what they name can't change under us, and reading them
//! in an emergency needs no path lookup. Reads are single `pread`s into a buffer of the caller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use plimsoll_policy::sample::{Events, MemoryStat, Psi, WorkloadId};
use plimsoll_policy::units::{Bytes, Limit};
use rustix::fs::{Mode, OFlags, fstat, open, openat};
use rustix::io::{Errno, pread, pwrite};

use super::parse::{self, Unexpected};

/// Why a cgroup file could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The cgroup was removed (ENODEV), or nothing has its path (ENOENT): an answer, not a failure.
    #[error("the cgroup is gone")]
    Gone,
    /// This kernel or this controller does not have the file.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The kernel refused.
    #[error("{file}: {source}")]
    Errno {
        /// The file.
        file: &'static str,
        /// Why.
        source: Errno,
    },
    /// The kernel's answer could not be understood.
    #[error("{file}: {source}")]
    Text {
        /// The file.
        file: &'static str,
        /// What it was.
        source: Unexpected,
    },
}

impl FileError {
    fn errno(file: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::NODEV | Errno::NOENT => Self::Gone,
            source => Self::Errno { file, source },
        }
    }
}

/// A file of a cgroup, open; `None` where the kernel or the controller does not have it.
#[derive(Debug)]
struct File {
    name: &'static str,
    fd: Option<OwnedFd>,
}

/// Large enough for `memory.stat` of any kernel so far (1.6 KiB on 7.x) and then some.
const BUFFER: usize = 8192;

impl File {
    /// EACCES and EPERM leave the file closed as well: reading it then says that it is missing.
    fn open(dir: &OwnedFd, name: &'static str, flags: OFlags) -> Self {
        Self { name, fd: openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty()).ok() }
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, FileError> {
        self.fd.as_ref().map(AsFd::as_fd).ok_or(FileError::Missing(self.name))
    }

    fn read<T>(&self, parse: impl FnOnce(&[u8]) -> Result<T, Unexpected>) -> Result<T, FileError> {
        let mut buffer = [0_u8; BUFFER];
        let len = pread(self.fd()?, &mut buffer, 0).map_err(|errno| FileError::errno(self.name, errno))?;
        parse(&buffer[..len]).map_err(|source| FileError::Text { file: self.name, source })
    }

    fn write(&self, text: &[u8]) -> Result<(), FileError> {
        pwrite(self.fd()?, text, 0).map(|_| ()).map_err(|errno| FileError::errno(self.name, errno))
    }
}

/// A cgroup held open.
#[derive(Debug)]
pub struct Cgroup {
    /// Path and inode.
    pub id: WorkloadId,
    dir: OwnedFd,
    current: File,
    swap: File,
    swap_max: File,
    stat: File,
    memory_events: File,
    memory_events_local: File,
    high: File,
    low: File,
    max: File,
    pressure: File,
    events: File,
    freeze: File,
    kill: File,
    reclaim: File,
    procs: File,
}

impl Cgroup {
    /// Opens the cgroup at `path` below `root`.
    ///
    /// # Errors
    /// [`FileError::Gone`] where there is none.
    pub fn open(root: &Path, path: &str) -> Result<Self, FileError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir =
            open(root.join(path), flags, Mode::empty()).map_err(|errno| FileError::errno("cgroup", errno))?;
        let inode = fstat(&dir).map_err(|errno| FileError::errno("cgroup", errno))?.st_ino;
        let read = |name| File::open(&dir, name, OFlags::RDONLY);
        let write = |name| File::open(&dir, name, OFlags::RDWR);
        // O_NONBLOCK makes writes of limits skip reclaim in the writer (6.16 and later; ignored before).
        let limit = |name| File::open(&dir, name, OFlags::RDWR | OFlags::NONBLOCK);
        Ok(Self {
            id: WorkloadId { path: path.into(), inode },
            current: read("memory.current"),
            swap: read("memory.swap.current"),
            swap_max: read("memory.swap.max"),
            stat: read("memory.stat"),
            memory_events: read("memory.events"),
            memory_events_local: read("memory.events.local"),
            high: limit("memory.high"),
            low: limit("memory.low"),
            max: read("memory.max"),
            pressure: read("memory.pressure"),
            events: read("cgroup.events"),
            freeze: write("cgroup.freeze"),
            kill: File::open(&dir, "cgroup.kill", OFlags::WRONLY),
            reclaim: File::open(&dir, "memory.reclaim", OFlags::WRONLY),
            procs: read("cgroup.procs"),
            dir,
        })
    }

    /// `memory.current`.
    ///
    /// # Errors
    /// As all readings: [`FileError`].
    pub fn current(&self) -> Result<Bytes, FileError> {
        self.current.read(parse::number).map(Bytes)
    }

    /// `memory.swap.current`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn swap(&self) -> Result<Bytes, FileError> {
        self.swap.read(parse::number).map(Bytes)
    }

    /// `memory.swap.max`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn swap_max(&self) -> Result<Limit, FileError> {
        self.swap_max.read(parse::limit)
    }

    /// `memory.stat`: some ten times as dear as `memory.current`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn stat(&self) -> Result<MemoryStat, FileError> {
        self.stat.read(parse::memory_stat)
    }

    /// `memory.events`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn memory_events(&self) -> Result<Events, FileError> {
        self.memory_events.read(parse::events)
    }

    /// `memory.high`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn high(&self) -> Result<Limit, FileError> {
        self.high.read(parse::limit)
    }

    /// `memory.low`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn low(&self) -> Result<Limit, FileError> {
        self.low.read(parse::limit)
    }

    /// `memory.max`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn max(&self) -> Result<Limit, FileError> {
        self.max.read(parse::limit)
    }

    /// `memory.pressure`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn pressure(&self) -> Result<Psi, FileError> {
        self.pressure.read(parse::psi)
    }

    /// `frozen` and `populated` of `cgroup.events`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn state(&self) -> Result<(bool, bool), FileError> {
        self.events.read(parse::cgroup_events)
    }

    /// Writes `memory.high`. Lowering it below `memory.current` reclaims in the writer on kernels before 6.16.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn set_high(&self, limit: Limit) -> Result<(), FileError> {
        set_limit(&self.high, limit)
    }

    /// Writes `memory.low`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn set_low(&self, limit: Limit) -> Result<(), FileError> {
        set_limit(&self.low, limit)
    }

    /// Asks for `bytes` to be reclaimed, in the caller's time. `Ok(false)` = not all of it could be (EAGAIN).
    /// Never on a cgroup that is going away: rmdir would wait for us with `cgroup_mutex` held.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn reclaim(&self, bytes: Bytes) -> Result<bool, FileError> {
        match self.reclaim.write(number_text(bytes.0, &mut [0; 20])) {
            Ok(()) => Ok(true),
            Err(FileError::Errno { source: Errno::AGAIN, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What `cgroup.freeze` asks for; whether it has taken effect is seen by [`Self::state`].
    ///
    /// # Errors
    /// [`FileError`].
    pub fn is_to_freeze(&self) -> Result<bool, FileError> {
        self.freeze.read(parse::number).map(|freeze| freeze != 0)
    }

    /// `memory.min`, opened for this one reading.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn min(&self) -> Result<Limit, FileError> {
        File::open(&self.dir, "memory.min", OFlags::RDONLY).read(parse::limit)
    }

    /// `memory.oom.group`, opened for this one reading.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn oom_group(&self) -> Result<bool, FileError> {
        File::open(&self.dir, "memory.oom.group", OFlags::RDONLY).read(parse::number).map(|group| group != 0)
    }

    /// Writes `cgroup.freeze`; whether it took effect is seen by [`Self::state`].
    ///
    /// # Errors
    /// [`FileError`].
    pub fn freeze(&self) -> Result<(), FileError> {
        self.freeze.write(b"1")
    }

    /// Writes 0 to `cgroup.freeze`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn thaw(&self) -> Result<(), FileError> {
        self.freeze.write(b"0")
    }

    /// Kills everything in it (5.14 and later).
    ///
    /// # Errors
    /// [`FileError`].
    pub fn kill(&self) -> Result<(), FileError> {
        self.kill.write(b"1")
    }

    /// Calls `each` with the pids of the processes directly in this cgroup, without allocation.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn each_pid(&self, mut each: impl FnMut(rustix::process::Pid)) -> Result<(), FileError> {
        let mut buffer = [0_u8; BUFFER];
        let (mut offset, mut kept) = (0, 0);
        loop {
            let len = pread(self.procs.fd()?, &mut buffer[kept..], offset)
                .map_err(|errno| FileError::errno(self.procs.name, errno))?;
            offset += len as u64;
            let text = &buffer[..kept + len];
            // The last line may have been cut by the end of the buffer: it is kept for the next read.
            let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            text[..end].split(|&byte| byte == b'\n').filter_map(pid).for_each(&mut each);
            kept = text.len() - end;
            if len == 0 {
                return Ok(());
            }
            buffer.copy_within(end..end + kept, 0);
        }
    }

    /// For epoll: becomes EPOLLPRI when `frozen` or `populated` changes.
    #[must_use]
    pub fn state_fd(&self) -> Option<BorrowedFd<'_>> {
        self.events.fd().ok()
    }

    /// For epoll: becomes EPOLLPRI when `memory.events.local` changes, at most every 10 ms.
    #[must_use]
    pub fn memory_events_fd(&self) -> Option<BorrowedFd<'_>> {
        self.memory_events_local.fd().ok()
    }

    /// Opens a descriptor of its own on `memory.pressure` and arms a PSI trigger on it.
    ///
    /// # Errors
    /// [`FileError`]; EINVAL where the window is too short for this kernel or these privileges.
    pub fn psi_trigger(&self, trigger: &super::psi::Trigger) -> Result<OwnedFd, FileError> {
        super::psi::arm_at(&self.dir, "memory.pressure", trigger)
    }

    /// Kernel files that a controller needs and this cgroup does not have.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        [&self.current, &self.stat, &self.high, &self.pressure, &self.freeze, &self.kill, &self.reclaim]
            .into_iter()
            .filter(|file| file.fd.is_none())
            .map(|file| file.name)
            .collect()
    }
}

fn pid(line: &[u8]) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(std::str::from_utf8(line).ok()?.parse().ok()?)
}

fn set_limit(file: &File, limit: Limit) -> Result<(), FileError> {
    match limit {
        Limit::Max => file.write(b"max"),
        Limit::Bytes(bytes) => file.write(number_text(bytes.0, &mut [0; 20])),
    }
}

/// Decimal text of `n` without allocation.
fn number_text(mut n: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(n % 10).expect("a digit");
        n /= 10;
        if n == 0 {
            return &buffer[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn numbers_become_text() {
        for n in [0, 9, 10, 4096, u64::MAX] {
            assert_eq!(number_text(n, &mut [0; 20]), n.to_string().as_bytes());
        }
    }

    #[test]
    fn files_that_are_missing_are_named_and_pids_are_read_across_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let pids: String = (1..=4000).map(|pid| format!("{pid}\n")).collect();
        fs::write(dir.path().join("a/cgroup.procs"), pids).unwrap();
        fs::write(dir.path().join("a/memory.current"), "42\n").unwrap();
        let cgroup = Cgroup::open(dir.path(), "a").unwrap();
        assert_eq!(cgroup.current(), Ok(Bytes(42)));
        assert_eq!(cgroup.stat(), Err(FileError::Missing("memory.stat")));
        assert!(cgroup.missing().contains(&"cgroup.kill"));
        let mut seen = 0;
        cgroup
            .each_pid(|pid| {
                seen += 1;
                assert_eq!(pid.as_raw_nonzero().get(), seen);
            })
            .unwrap();
        assert_eq!(seen, 4000);
        assert_eq!(Cgroup::open(dir.path(), "b").unwrap_err(), FileError::Gone);
    }
}
