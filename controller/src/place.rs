//! Where processes are in the cgroup tree, as the host sees it.
//!
//! A container has a cgroup namespace of its own: to its processes they are all in `/`, and everybody else is in `/../..`. With
//! nsdelegate (systemd mounts the tree so) the kernel also refuses to move a process out of it. So the daemon joins the namespace of
//! process 1, which with `hostPID` is the host's; where that is refused, the paths are put right by where our own process is found.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::ledger::release::subtree;

/// The cgroup that our namespace takes for its root, below the mounted tree; empty on a host, and once its namespace is joined.
static BASE: OnceLock<String> = OnceLock::new();

/// Where a process was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// At the path that `/proc` shows, below the mounted tree.
    AsShown(String),
    /// Elsewhere in the tree: `/proc` shows paths below another root.
    Elsewhere {
        /// Where.
        path: String,
        /// The cgroup that takes the place of the root.
        base: String,
    },
    /// Nowhere in the tree that is mounted.
    Nowhere,
}

/// Sees the tree as the host does. Call it before any thread exists, since a namespace is a thread's.
pub fn settle(root: &Path) {
    let joined = join(Path::new("/proc"));
    match own(Path::new("/proc"), root) {
        Some(Seen::Elsewhere { path, base }) => {
            let error = joined.err().map(|error| error.to_string());
            tracing::warn!(
                path,
                base,
                error,
                "can't join the host's cgroup namespace: paths are put right, processes can't be moved"
            );
            // A second call finds the same.
            let _ = BASE.set(base);
        }
        Some(Seen::Nowhere) => {
            tracing::warn!(root = %root.display(), "this process is in no cgroup of the tree that is mounted here");
        }
        Some(Seen::AsShown(_)) | None => {}
    }
}

/// Joins the cgroup namespace of process 1.
fn join(proc: &Path) -> io::Result<()> {
    let of = |process: &str| proc.join(process).join("ns/cgroup");
    if fs::read_link(of("1"))? == fs::read_link(of("self"))? {
        return Ok(());
    }
    let namespace = File::open(of("1"))?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?)
}

/// Where this process is; `None` where `/proc` does not say.
pub(crate) fn own(proc: &Path, root: &Path) -> Option<Seen> {
    let shown = shown(proc, "self")?;
    let pid = std::process::id().to_string();
    if holds(&root.join(&shown), &pid) {
        return Some(Seen::AsShown(shown));
    }
    let dir = subtree(root).into_iter().find(|dir| holds(dir, &pid));
    let path = dir.and_then(|dir| Some(dir.strip_prefix(root).ok()?.to_str()?.to_owned()));
    Some(path.map_or(Seen::Nowhere, |path| {
        let base = path.strip_suffix(&shown).unwrap_or(&path).trim_end_matches('/').to_owned();
        Seen::Elsewhere { path, base }
    }))
}

/// The cgroup v2 path of a process below the mounted tree, without the leading slash.
pub(crate) fn cgroup_in(proc: &Path, pid: u32) -> Option<String> {
    resolve(BASE.get().map_or("", String::as_str), &shown(proc, &pid.to_string())?)
}

fn shown(proc: &Path, process: &str) -> Option<String> {
    let text = fs::read_to_string(proc.join(process).join("cgroup")).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned())
}

/// `shown` as seen from `base`; `None` where it is above everything that is mounted.
fn resolve(base: &str, shown: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in shown.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

fn holds(dir: &Path, pid: &str) -> bool {
    fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| procs.lines().any(|line| line == pid))
}

/// Whether all processes in a cgroup are ended when one of them ends: by the runtime of a pod, whatever kubelet's driver calls the
/// parts, or by systemd, which owns services and scopes.
pub(crate) fn ends_as_a_whole(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.clone().any(|part| part.contains("kubepods"))
        || parts.any(|part| part.ends_with(".service") || part.ends_with(".scope"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_namespace_shows_is_put_right() {
        let base = "kubepods/burstable/pod1/own";
        let at = |shown| resolve(base, shown);
        assert_eq!(at("").as_deref(), Some(base));
        assert_eq!(at("inner").as_deref(), Some("kubepods/burstable/pod1/own/inner"));
        assert_eq!(at("../../pod2/chat").as_deref(), Some("kubepods/burstable/pod2/chat"));
        assert_eq!(at("../../../../../x"), None);
        assert_eq!(resolve("", "a/b").as_deref(), Some("a/b"));
    }

    /// A tree in which this process is in `path`, and a `/proc` that shows `shown`.
    fn look(path: &str, shown: &str) -> Option<Seen> {
        let dir = tempfile::tempdir().unwrap();
        let (root, proc) = (dir.path().join("cgroup"), dir.path().join("proc"));
        fs::create_dir_all(root.join(path)).unwrap();
        fs::create_dir_all(proc.join("self")).unwrap();
        fs::write(root.join(path).join("cgroup.procs"), format!("7\n{}\n", std::process::id())).unwrap();
        fs::write(proc.join("self/cgroup"), format!("0::/{shown}\n")).unwrap();
        own(&proc, &root)
    }

    #[test]
    fn we_are_found_wherever_we_are() {
        assert_eq!(look("a/b", "a/b"), Some(Seen::AsShown("a/b".into())));
        let elsewhere = |base: &str| Seen::Elsewhere { path: "pod/own".into(), base: base.into() };
        assert_eq!(look("pod/own", ""), Some(elsewhere("pod/own")));
        assert_eq!(look("pod/own", "own"), Some(elsewhere("pod")));
        let nobody = tempfile::tempdir().unwrap();
        assert_eq!(own(nobody.path(), nobody.path()), None);
    }

    #[test]
    fn pods_services_and_scopes_end_as_a_whole() {
        let kind = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podx.slice/cri-containerd-1.scope";
        for path in [
            "kubepods/besteffort/pod1/2",
            kind,
            "plimsoll.service",
            "user.slice/user-0.slice/session-1.scope",
        ] {
            assert!(ends_as_a_whole(path), "{path}");
        }
        assert!(!ends_as_a_whole("") && !ends_as_a_whole("models/controller"));
    }
}
