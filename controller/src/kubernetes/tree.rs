//! The cgroups of pods on this machine: which pods there are, and which containers (and sandboxes) each of them has now.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;

use super::layout::{Place, Pod, place};

/// Levels above `kubepods`: a cgroup root of kubelet's, and what a node in a container adds.
const DEEPEST: usize = 3;
/// kubelet's own limit is 110 pods, the largest known 500. What is beyond is left alone, and counted.
const PODS: usize = 2048;
/// Containers of one pod, its sandbox included.
const SCOPES: usize = 128;

/// One container's cgroup, or a sandbox's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Below the root of cgroups.
    pub path: String,
    /// Grows from one cgroup to the next, so it also says which is older.
    pub inode: u64,
    /// The runtime's ID of it.
    pub id: String,
}

/// All of them at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// By pod, the oldest cgroup first.
    pub pods: BTreeMap<Pod, Vec<Scope>>,
    /// Directories that there was no room for.
    pub left_out: usize,
}

/// Looks at the directories where pods are, and at no others but those above them. What vanishes meanwhile is not there.
#[must_use]
pub fn walk(root: &Path) -> Tree {
    let mut tree = Tree::default();
    tree.search(root, "", 0);
    tree.pods.values_mut().for_each(|scopes| scopes.sort_by_key(|scope| scope.inode));
    tree
}

impl Tree {
    /// Above `kubepods`. Services and scopes, which are most of a machine, hold no slices.
    fn search(&mut self, root: &Path, above: &str, depth: usize) {
        for (path, _) in children(root, above) {
            if place(&path).is_some() {
                self.descend(root, &path);
            } else if depth < DEEPEST && !path.ends_with(".service") && !path.ends_with(".scope") {
                self.search(root, &path, depth + 1);
            }
        }
    }

    /// From `kubepods` on; `path` is no container's.
    fn descend(&mut self, root: &Path, path: &str) {
        for (path, inode) in children(root, path) {
            match place(&path) {
                Some(Place::Pods) => self.descend(root, &path),
                Some(Place::Pod(pod)) => {
                    if self.pods.len() < PODS {
                        self.pods.entry(pod).or_default();
                        self.descend(root, &path);
                    } else {
                        self.left_out += 1;
                    }
                }
                Some(Place::Container(pod, id)) => {
                    let scopes = self.pods.entry(pod).or_default();
                    if scopes.len() < SCOPES {
                        let id = id.to_owned();
                        scopes.push(Scope { path, inode, id });
                    } else {
                        self.left_out += 1;
                    }
                }
                Some(Place::Within(..)) | None => {}
            }
        }
    }
}

/// The directories in one, with their inodes.
fn children(root: &Path, path: &str) -> impl Iterator<Item = (String, u64)> {
    let entries = fs::read_dir(root.join(path)).into_iter().flatten().flatten();
    let above = path.to_owned();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).filter_map(move |entry| {
        let name = entry.file_name();
        let name = name.to_str()?;
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
        Some((path, entry.ino()))
    })
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::sample::Qos;

    use super::*;

    fn made(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        dir
    }

    #[test]
    fn pods_with_their_scopes_wherever_kubepods_is() {
        let dir = made(&[
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice/cri-containerd-11.scope/own",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-poda_b.slice/cri-containerd-22.scope",
            "kubepods.slice/kubepods-podc.slice",
            "kubelet/kubepods/besteffort/podd/33",
            "system.slice/x.service/kubepods/pode/44",
            "user.slice",
        ]);
        let tree = walk(dir.path());
        let ids = |scopes: &Vec<Scope>| scopes.iter().map(|scope| scope.id.clone()).collect::<Vec<_>>();
        let mut seen: Vec<_> = tree.pods.iter().map(|(pod, s)| (pod.uid.as_str(), pod.qos, ids(s))).collect();
        seen.iter_mut().for_each(|(_, _, ids)| ids.sort());
        seen.sort_by_key(|(uid, ..)| *uid);
        let expected = [
            ("a-b", Qos::Burstable, vec!["11".to_owned(), "22".into()]),
            ("c", Qos::Guaranteed, vec![]),
            ("d", Qos::BestEffort, vec!["33".into()]),
        ];
        assert_eq!(seen, expected);
        assert!(
            tree.pods
                .values()
                .flatten()
                .all(|scope| scope.inode > 0 && dir.path().join(&scope.path).is_dir())
        );
    }

    #[test]
    fn no_tree_is_no_pods() {
        assert_eq!(walk(Path::new("/nowhere/at/all")), Tree::default());
    }
}
