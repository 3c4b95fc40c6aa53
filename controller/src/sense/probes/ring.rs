//! The events, for the thread that reacts to them.

use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use aya::maps::{MapData, RingBuf};
use plimsoll_ebpf::Event;

/// The ring buffer. Readable (epoll) when there are events; iterating takes them out until none is left, without
/// allocating.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self(ring)
    }
}

impl Iterator for Ring {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let item = self.0.next()?;
            // The programs send nothing else; a longer one could only come of another version.
            if item.len() == size_of::<Event>() {
                // SAFETY: the length was compared, and any bytes are an `Event`.
                return Some(unsafe { ptr::read_unaligned(item.as_ptr().cast::<Event>()) });
            }
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
