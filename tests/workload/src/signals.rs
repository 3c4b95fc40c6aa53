//! Waiting for signals by a descriptor. A thread in `sigwait` looks as if it had them not blocked: nobody who cares would send it any.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;

/// The `n`th real-time signal.
pub(crate) fn real_time(n: i32) -> i32 {
    libc::SIGRTMIN() + n
}

/// Signals that are blocked, and waited for.
pub(crate) struct Awaited(File);

impl Awaited {
    /// Blocks them in this thread and those that it starts.
    pub(crate) fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initializes the set that it is given.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in signals {
            // SAFETY: the set is initialized and ours.
            unsafe { libc::sigaddset(&raw mut set, *signal) };
        }
        // SAFETY: the set is initialized, and the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        // SAFETY: the set is initialized; -1 asks for a new descriptor.
        match unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the descriptor is new, and nobody else knows it.
            fd => Ok(Self(unsafe { File::from_raw_fd(fd) })),
        }
    }

    /// Waits for the next of them.
    pub(crate) fn next(&self) -> io::Result<i32> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        (&self.0).read_exact(&mut info)?;
        let [a, b, c, d, ..] = info;
        Ok(u32::from_ne_bytes([a, b, c, d]).cast_signed())
    }
}
