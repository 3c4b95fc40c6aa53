//! Who is at the other end: the kernel says which process, and /proc which cgroup it is in.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use plimsoll_policy::admission::Caller;
use plimsoll_policy::sample::WorkloadId;
use rustix::event::{PollFd, PollFlags, poll};
use zlink::connection::Credentials;

use crate::sense::discover::cgroup_of;

/// A client.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its cgroup when it connected; `None` where it can't be known: the process is gone, or in a pid namespace beside ours.
    pub(super) cgroup: Option<WorkloadId>,
    /// Whether it may speak for others.
    pub(super) root: bool,
    /// Whether it may say what the daemon is to do: root, or the user that the daemon runs as.
    pub(super) operator: bool,
    /// Its user.
    pub(super) user: u32,
    process: Option<Arc<Credentials>>,
}

impl Peer {
    /// One whose process has no number here: it is in a pid namespace that we can't see into.
    pub(super) const UNSEEN: Self =
        Self { cgroup: None, root: false, operator: false, user: u32::MAX, process: None };

    /// As of the moment at which it connected.
    pub(super) fn of(credentials: &Arc<Credentials>, cgroup_root: &Path) -> Self {
        let pid = pid(credentials);
        let cgroup = cgroup_now(credentials, cgroup_root);
        let user = credentials.unix_user_id().as_raw();
        // Root of a container is nobody here.
        let ours = cgroup.is_some() && is_in_our_namespaces(pid);
        let operator = ours && (user == 0 || user == rustix::process::geteuid().as_raw());
        Self { cgroup, root: ours && user == 0, operator, user, process: Some(Arc::clone(credentials)) }
    }

    /// The cgroup that it is in now: a process may be moved after it connected.
    pub(super) fn cgroup_now(&self, cgroup_root: &Path) -> Option<WorkloadId> {
        cgroup_now(self.process.as_ref()?, cgroup_root)
    }

    /// Its number, for the log.
    pub(super) fn pid(&self) -> Option<i32> {
        self.process.as_deref().map(pid)
    }

    /// How the policy knows it; `None` for whom it can't know.
    pub(super) fn caller(&self) -> Option<Caller> {
        if self.root { Some(Caller::Root) } else { self.cgroup.clone().map(Caller::Cgroup) }
    }
}

fn pid(credentials: &Credentials) -> i32 {
    credentials.process_id().as_raw_nonzero().get()
}

fn cgroup_now(credentials: &Credentials, cgroup_root: &Path) -> Option<WorkloadId> {
    let found = cgroup_of(pid(credentials)).and_then(|path| cgroup_at(cgroup_root, &path).ok());
    // The number may have been given to another process meanwhile; the descriptor (6.5 and later) can't be.
    found.filter(|_| credentials.process_fd().is_none_or(|fd| !has_ended(fd)))
}

/// The identity of the cgroup at a path below the root.
pub(super) fn cgroup_at(root: &Path, path: &str) -> io::Result<WorkloadId> {
    let inode = fs::metadata(root.join(path))?.ino();
    Ok(WorkloadId { path: path.into(), inode })
}

fn has_ended(process: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// A container runs as root with a user namespace of its own, or without one but with its own pids.
fn is_in_our_namespaces(pid: i32) -> bool {
    ["user", "pid"].iter().all(|kind| {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
        of("self").is_some_and(|ours| of(&pid.to_string()) == Some(ours))
    })
}
