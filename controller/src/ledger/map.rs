//! The ledger's memory: layout, mapping, and the only unsafe code that touches it.

use std::fs::File;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use plimsoll_policy::sample::WorkloadId;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::LedgerError;

/// How many workloads can have something set at a time. The file is sparse: unused slots cost nothing.
pub const SLOTS: usize = 2048;
/// The longest cgroup path, in bytes; kubelet's are around 250.
pub const MAX_PATH: usize = 952;
pub(super) const MAX_ROOT: usize = 104;
const MAGIC: u64 = u64::from_le_bytes(*b"plimsoll");
const VERSION: u32 = 2;

bitflags::bitflags! {
    /// What is set on a workload.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// `cgroup.freeze` is 1.
        const FROZEN = 1;
        /// Threads may have been stopped by the gate (it is, or was, armed for them).
        const STOPPED = 2;
        /// `memory.high` is ours.
        const HIGH = 4;
        /// `memory.low` is ours.
        const LOW = 8;
        /// `oom_score_adj` of its processes is ours.
        const OOM_SCORE = 16;
        /// `memory.oom.group` is ours.
        const OOM_GROUP = 32;
        /// It was asked to offload or unload, and has not come back yet. No release can undo that: the next controller asks it back.
        const AWAY = 64;
    }
}

#[repr(C)]
pub(super) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    pub(super) controller: AtomicU32,
    root_len: AtomicU32,
    _reserved: u32,
    root: [AtomicU8; MAX_ROOT],
}

#[repr(C)]
pub(super) struct Slot {
    /// 0 = free.
    pub(super) inode: AtomicU64,
    pub(super) high: HeldCells,
    pub(super) low: HeldCells,
    pub(super) flags: AtomicU32,
    path_len: AtomicU32,
    /// `oom_score_adj` as found, as set, and as set before that, 16 bits each.
    pub(super) scores: AtomicU64,
    path: [AtomicU8; MAX_PATH],
}

/// A limit: as found, as set, and as set before that; `u64::MAX` = max.
#[repr(C)]
pub(super) struct HeldCells {
    pub(super) found: AtomicU64,
    pub(super) set: AtomicU64,
    pub(super) before: AtomicU64,
}

#[repr(C)]
struct Shared {
    header: Header,
    slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<Header>() == 128 && size_of::<Slot>() == 1024);

impl Slot {
    /// The path; `None` where the bytes are no path (a damaged slot is as good as a free one).
    pub(super) fn path(&self) -> Option<String> {
        text(&self.path, self.path_len.load(Acquire))
    }

    /// Writes path and inode, the inode last: a slot counts once it has one.
    pub(super) fn write_id(&self, id: &WorkloadId) {
        self.inode.store(0, Release);
        self.flags.store(0, Release);
        put(&self.path, &self.path_len, &id.path);
        self.inode.store(id.inode, Release);
    }
}

fn text(bytes: &[AtomicU8], len: u32) -> Option<String> {
    let bytes = bytes.get(..len as usize)?;
    String::from_utf8(bytes.iter().map(|byte| byte.load(Relaxed)).collect()).ok()
}

fn put(bytes: &[AtomicU8], len: &AtomicU32, text: &str) {
    let mut written = 0;
    for (cell, byte) in bytes.iter().zip(text.bytes()) {
        cell.store(byte, Relaxed);
        written += 1;
    }
    len.store(written, Release);
}

/// The mapping of a ledger file.
pub(super) struct Map(NonNull<Shared>);

// SAFETY: `Shared` consists of atomics only, and the mapping lives as long as `Map`.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the pointer and the length are those that mmap gave in `of`.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
    }
}

impl Map {
    /// Maps a file, making a new one or finding the one that is there.
    pub(super) fn create(path: &Path) -> Result<Self, LedgerError> {
        let io = |what| move |source| LedgerError::Io { what, path: path.to_owned(), source };
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(io("can't open the ledger"))?;
        let new = file.metadata().map_err(io("can't look at the ledger"))?.len() == 0;
        if new {
            file.set_len(size_of::<Shared>() as u64).map_err(io("can't size the ledger"))?;
        }
        let map = Self::of(&file, path)?;
        if new {
            map.header().version.store(VERSION, Relaxed);
            map.header().magic.store(MAGIC, Release);
        }
        map.check(path)
    }

    /// Maps a file that must be there.
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io { what: "can't open the ledger", path: path.to_owned(), source };
        let file = match File::options().read(true).write(true).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(io(error)),
            other => other.map_err(io)?,
        };
        Self::of(&file, path)?.check(path)
    }

    fn of(file: &File, path: &Path) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io { what: "can't map the ledger", path: path.to_owned(), source };
        let len = file.metadata().map_err(io)?.len();
        if len != size_of::<Shared>() as u64 {
            let why = format!("{len} bytes long, not {}", size_of::<Shared>());
            return Err(LedgerError::Damaged { path: path.to_owned(), why });
        }
        // SAFETY: a fresh shared mapping of the whole file, which is as long as `Shared`; nothing else refers to it.
        let pointer = unsafe {
            mmap(
                std::ptr::null_mut(),
                size_of::<Shared>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        }
        .map_err(|errno| io(errno.into()))?;
        Ok(Self(NonNull::new(pointer.cast()).expect("mmap never gives null without MAP_FIXED")))
    }

    fn check(self, path: &Path) -> Result<Self, LedgerError> {
        let header = self.header();
        let why = match (header.magic.load(Acquire), header.version.load(Relaxed)) {
            (MAGIC, VERSION) => return Ok(self),
            (MAGIC, version) => format!("version {version}, not {VERSION}"),
            _ => "no magic number".to_owned(),
        };
        Err(LedgerError::Damaged { path: path.to_owned(), why })
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping is as long as `Shared`, page aligned, valid until drop, and all atomics: any bytes
        // are a valid value.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn header(&self) -> &Header {
        &self.shared().header
    }

    pub(super) fn slots(&self) -> &[Slot; SLOTS] {
        &self.shared().slots
    }

    pub(super) fn root(&self) -> String {
        text(&self.header().root, self.header().root_len.load(Acquire)).unwrap_or_default()
    }

    pub(super) fn set_root(&self, root: &str) {
        put(&self.header().root, &self.header().root_len, root);
    }
}
