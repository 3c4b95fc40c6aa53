//! PSI triggers: the kernel wakes us when tasks have waited for memory longer than a threshold within a window.

use std::os::fd::{AsFd, OwnedFd};

use plimsoll_policy::units::Span;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, write};

use super::cgroup::FileError;

/// What a trigger waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Stall of `some` tasks within the window.
    pub stall: Span,
    /// The window: 500 ms to 10 s on 6.1, 1 us to 10 s on 6.12; multiples of 2 s without `CAP_SYS_RESOURCE`.
    pub window: Span,
}

impl Trigger {
    /// From the quickest to the one that every kernel takes. The latency is about the threshold rounded up to a
    /// tenth of the window, plus 10 ms; windows below 50 ms gain nothing, since the kernel counts jiffies.
    pub const LADDER: [Self; 3] = [
        Self { stall: Span::millis(5), window: Span::millis(50) },
        Self { stall: Span::millis(40), window: Span::millis(500) },
        Self { stall: Span::millis(70), window: Span::millis(2000) },
    ];

    /// The text for the kernel, with the NUL that it would otherwise cut off the last digit for.
    fn text(&self) -> String {
        format!("some {} {}\0", self.stall.0 / 1000, self.window.0 / 1000)
    }
}

/// Arms a trigger on a pressure file below `dir`. It lives as long as the descriptor.
///
/// # Errors
/// EINVAL where the window is not allowed, EOPNOTSUPP where PSI is off.
pub fn arm_at(dir: impl AsFd, name: &'static str, trigger: &Trigger) -> Result<OwnedFd, FileError> {
    let fail = |source| match source {
        Errno::NODEV | Errno::NOENT => FileError::Gone,
        source => FileError::Errno { file: name, source },
    };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty()).map_err(fail)?;
    write(&fd, trigger.text().as_bytes()).map_err(fail)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_ends_in_nul() {
        assert_eq!(Trigger::LADDER[0].text(), "some 5000 50000\0");
    }
}
