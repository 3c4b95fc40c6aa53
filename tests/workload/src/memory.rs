//! Mapped memory that is touched page by page, locked memory, real-time priority: the only unsafe code here.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, MlockAllFlags, ProtFlags};

/// The unit in which memory is touched.
pub(crate) const PAGE: usize = 4096;
/// Bytes in a mebibyte.
pub(crate) const MIB: usize = 1 << 20;

/// A mapping, unmapped when dropped. Pages may be touched from several threads.
pub(crate) struct Region {
    start: *mut c_void,
    pages: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the `Region` alone, lives as long as it, and is accessed by atomics only.
unsafe impl Send for Region {}
// SAFETY: as above; `touch` and `fill` use atomic loads and stores, so that concurrent calls do not race.
unsafe impl Sync for Region {}

impl Region {
    /// Reserves `bytes` of private anonymous memory. Nothing is used until it is touched.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: with a null hint the kernel chooses a free range, so that no other mapping is replaced.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        Ok(Self { start, pages: bytes / PAGE, writable: true })
    }

    /// Maps a file read-only and shared, so that its pages are page cache and can be evicted.
    pub(crate) fn file(file: &File) -> io::Result<Self> {
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: with a null hint the kernel chooses a free range, so that no other mapping is replaced.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, 0)
        }?;
        Ok(Self { start, pages: bytes / PAGE, writable: false })
    }

    /// Whole pages in the mapping.
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// The 64-bit words of a page.
    fn words(&self, page: usize) -> &[AtomicU64] {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: the page lies within the mapping (asserted), which is page-aligned and lives as long as `self`.
        // An atomic load of read-only memory is an ordinary load; stores are refused below where it is read-only.
        unsafe {
            let first = self.start.byte_add(page * PAGE).cast::<AtomicU64>();
            std::slice::from_raw_parts(first, PAGE / size_of::<AtomicU64>())
        }
    }

    /// Reads one word of a page.
    pub(crate) fn read(&self, page: usize) -> u64 {
        self.words(page)[0].load(Ordering::Relaxed)
    }

    /// Makes a page dirty.
    pub(crate) fn dirty(&self, page: usize) {
        assert!(self.writable, "the mapping is read-only");
        self.words(page)[0].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes `content` to the start of a page.
    pub(crate) fn fill(&self, page: usize, content: &[u64]) {
        assert!(self.writable, "the mapping is read-only");
        for (word, value) in self.words(page).iter().zip(content) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// Gives the pages from `first` on back to the kernel; they read as zeros if touched again.
    pub(crate) fn release_from(&self, first: usize) -> io::Result<()> {
        self.advise(first, self.pages, Advice::LinuxDontNeed)
    }

    /// Has the kernel allocate the pages `first..end` in one call, as pinning and `MAP_POPULATE` do.
    pub(crate) fn populate(&self, first: usize, end: usize) -> io::Result<()> {
        self.advise(first, end, Advice::LinuxPopulateWrite)
    }

    fn advise(&self, first: usize, end: usize, advice: Advice) -> io::Result<()> {
        assert!(self.writable && first <= end && end <= self.pages, "pages {first}..{end} of {}", self.pages);
        // SAFETY: the range lies within the mapping (asserted), and nobody keeps references to its contents
        // beyond a single atomic access, for which vanishing contents are as good as another thread's store.
        unsafe { rustix::mm::madvise(self.start.byte_add(first * PAGE), (end - first) * PAGE, advice) }
            .map_err(io::Error::from)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping made in the constructor, and `self` is its only owner.
        // A failure would leave it mapped, which harms nobody.
        let _ = unsafe { rustix::mm::munmap(self.start, self.pages * PAGE) };
    }
}

/// Locks all present and future memory, so that a measuring program is not itself paged out.
pub(crate) fn lock_all() -> io::Result<()> {
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE).map_err(io::Error::from)
}

/// Gives the calling thread real-time priority, so that a measuring program runs when it is due.
pub(crate) fn real_time(priority: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is a valid sched_param that outlives the call; 0 means the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
