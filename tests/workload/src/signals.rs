//! Waiting for signals.

use std::io;
use std::mem::MaybeUninit;

/// The `n`th real-time signal.
pub(crate) fn real_time(n: i32) -> i32 {
    libc::SIGRTMIN() + n
}

/// Signals that are blocked, and waited for.
pub(crate) struct Awaited(libc::sigset_t);

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
            0 => Ok(Self(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits for the next of them.
    pub(crate) fn next(&self) -> io::Result<i32> {
        let mut signal = 0;
        // SAFETY: the set is initialized, and `signal` outlives the call.
        match unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } {
            0 => Ok(signal),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
