//! The table of workloads that the reaction thread listens to, and their epoll registrations.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::operation::Operation;
use crate::ledger::SlotId;
use crate::sense::cgroup::Cgroup;

/// What an epoll event is about; with a row of the table it makes the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Source {
    Orders,
    Ring,
    HostPsi,
    Psi,
    State,
    MemoryEvents,
}

impl Source {
    const ALL: [Self; 6] =
        [Self::Orders, Self::Ring, Self::HostPsi, Self::Psi, Self::State, Self::MemoryEvents];

    pub(super) fn token(self, row: usize) -> EventData {
        EventData::new_u64((row as u64) << 8 | self as u64)
    }

    pub(super) fn of(data: EventData) -> Option<(Self, usize)> {
        let source = *Self::ALL.get((data.u64() & 0xff) as usize)?;
        Some((source, usize::try_from(data.u64() >> 8).ok()?))
    }
}

/// One workload.
pub(super) struct Watched {
    pub(super) cgroup: Arc<Cgroup>,
    pub(super) slot: SlotId,
    pub(super) psi: Option<OwnedFd>,
    pub(super) operation: Option<Operation>,
}

/// The table. Rows are reused; it grows only when orders ask for it, never on an event.
pub(super) struct Table {
    rows: Vec<Option<Watched>>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { rows: Vec::with_capacity(256) }
    }

    pub(super) fn row(&mut self, row: usize) -> Option<&mut Watched> {
        self.rows.get_mut(row)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn find(&self, inode: u64) -> Option<usize> {
        self.rows.iter().position(|row| row.as_ref().is_some_and(|w| w.cgroup.id.inode == inode))
    }

    pub(super) fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.rows.iter().filter_map(|row| row.as_ref()?.operation.as_ref())
    }

    /// Takes a workload in. A descriptor that epoll refuses (a kernel without the file) is not listened to.
    pub(super) fn add(&mut self, epoll: &OwnedFd, watched: Watched) {
        let row = self.rows.iter().position(Option::is_none).unwrap_or_else(|| {
            self.rows.push(None);
            self.rows.len() - 1
        });
        if let Some(psi) = &watched.psi {
            listen(epoll, psi, Source::Psi, row);
        }
        if let Some(fd) = watched.cgroup.state_fd() {
            listen(epoll, fd, Source::State, row);
        }
        if let Some(fd) = watched.cgroup.memory_events_fd() {
            listen(epoll, fd, Source::MemoryEvents, row);
        }
        self.rows[row] = Some(watched);
    }

    pub(super) fn remove(&mut self, epoll: &OwnedFd, inode: u64) {
        let Some(row) = self.find(inode) else { return };
        let Some(watched) = self.rows[row].take() else { return };
        // The main thread holds the cgroup's descriptors too, so closing ours would not end the registration.
        for fd in [watched.cgroup.state_fd(), watched.cgroup.memory_events_fd()].into_iter().flatten() {
            let _ = epoll::delete(epoll, fd);
        }
    }

    /// Stops listening to a PSI trigger whose cgroup is gone: it would report an error for ever.
    pub(super) fn drop_psi(&mut self, row: usize) {
        if let Some(watched) = self.row(row) {
            watched.psi = None;
        }
    }

    /// Stops listening to the files of a cgroup that is gone.
    pub(super) fn silence(&mut self, epoll: &OwnedFd, row: usize, source: Source) {
        let Some(watched) = self.row(row) else { return };
        let fd = match source {
            Source::State => watched.cgroup.state_fd(),
            Source::MemoryEvents => watched.cgroup.memory_events_fd(),
            _ => None,
        };
        if let Some(fd) = fd {
            let _ = epoll::delete(epoll, fd);
        }
    }
}

fn listen(epoll: &OwnedFd, fd: impl AsFd, source: Source, row: usize) {
    // kernfs files are always readable: only EPOLLPRI tells of a change, and it stays until somebody reads through
    // the same descriptor, so it is taken as an edge.
    let _ = epoll::add(epoll, fd, source.token(row), EventFlags::PRI | EventFlags::ET);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_source_and_row() {
        for source in Source::ALL {
            assert_eq!(Source::of(source.token(70_000)), Some((source, 70_000)));
        }
        assert_eq!(Source::of(EventData::new_u64(0xff)), None);
    }
}
