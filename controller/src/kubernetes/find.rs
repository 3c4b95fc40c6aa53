//! Joins the cgroup tree and what is known of the pods: which cgroup is which container. Runs on discovery's thread.
//!
//! A cgroup is a container's where the pod's status names its ID. Until the status comes (a second, or never while the API server
//! is away) it is found by elimination: of a pod of whose containers all but one are accounted for, the one cgroup that is left
//! over is that container's, provided that it is no sandbox and that the runtime has started something in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_policy::config::Config;
use tokio::sync::watch::Receiver;

use super::pods::{Container, Pod, Pods};
use super::processes::{Inside, inside};
use super::strangers::Strangers;
use super::tree::{Scope, Tree, walk};
use crate::sense::discover::Workload;

/// How long the API server may keep us waiting at the start before pods that nobody knows are judged by their cgroups alone.
const ALONE_AFTER: Duration = Duration::from_secs(10);

/// Containers by the path of their cgroup.
pub(super) type Containers = BTreeMap<String, Workload>;

/// Finds.
pub struct Finder {
    root: PathBuf,
    proc: PathBuf,
    pods: Receiver<Arc<Pods>>,
    strangers: Strangers,
    began: Instant,
    left_out: usize,
}

impl Finder {
    /// Finds containers of the pods that are known at each moment.
    #[must_use]
    pub fn new(config: &Config, pods: Receiver<Arc<Pods>>) -> Self {
        Self::at(config, Path::new("/proc"), pods)
    }

    fn at(config: &Config, proc: &Path, pods: Receiver<Arc<Pods>>) -> Self {
        let (root, proc) = (PathBuf::from(&config.daemon.cgroup_root), proc.to_owned());
        let strangers = Strangers::new(root.clone(), proc.clone(), &config.ladder.rungs);
        Self { root, proc, pods, strangers, began: Instant::now(), left_out: 0 }
    }

    /// All containers that are workloads now, by the path of their cgroup.
    pub fn find(&mut self) -> BTreeMap<String, Workload> {
        let tree = walk(&self.root);
        if tree.left_out != self.left_out {
            tracing::warn!(
                cgroups = tree.left_out,
                "there are more pods than a node can have: the rest is left alone"
            );
            self.left_out = tree.left_out;
        }
        let pods = Arc::clone(&self.pods.borrow());
        let alone = !pods.confirmed && self.began.elapsed() >= ALONE_AFTER;
        self.join(&tree, &pods, alone)
    }

    fn join(&mut self, tree: &Tree, pods: &Pods, alone: bool) -> Containers {
        let mut found = Containers::new();
        let mut unknown = Vec::new();
        for (at, scopes) in &tree.pods {
            match pods.pods.get(&at.uid) {
                Some(pod) if pod.unmanaged.is_none() => found.extend(self.of_a_pod(pod, scopes)),
                Some(_) => {}
                None => unknown.push((at, scopes)),
            }
        }
        if alone {
            found.extend(self.strangers.judge(&unknown));
        } else {
            self.strangers.forget();
        }
        found
    }

    /// The containers of one pod that are workloads.
    fn of_a_pod(&self, pod: &Pod, scopes: &[Scope]) -> Containers {
        let mut left: BTreeMap<&str, &Scope> =
            scopes.iter().map(|scope| (scope.id.as_str(), scope)).collect();
        let mut take = |id: &Option<String>| left.remove(id.as_deref()?);
        let (mut found, mut missing) = (Containers::new(), Vec::new());
        for container in &pod.containers {
            match take(&container.id) {
                Some(scope) => drop(found.insert(scope.path.clone(), workload(container))),
                None => missing.push(container),
            }
        }
        let others_are_there = pod.others.iter().filter(|id| take(id).is_none()).count() == 0;
        // What could be any of several is left alone until the status says which.
        if let ([container], true) = (missing.as_slice(), others_are_there)
            && let Some(scope) = self.the_only_one(left.into_values())
        {
            found.insert(scope.path.clone(), workload(container));
        }
        found
    }

    /// The one cgroup in which programs run, where there are not several.
    fn the_only_one<'a>(&self, scopes: impl Iterator<Item = &'a Scope>) -> Option<&'a Scope> {
        let mut running =
            scopes.filter(|scope| inside(&self.root.join(&scope.path), &self.proc) == Inside::Programs);
        let only = running.next()?;
        running.next().is_none().then_some(only)
    }
}

fn workload(container: &Container) -> Workload {
    let Container { of, id: _, spec, means, needs: _ } = container;
    Workload { spec: spec.clone(), means: means.clone(), pod: Some(of.clone()), ..Workload::default() }
}

#[cfg(test)]
mod tests;
