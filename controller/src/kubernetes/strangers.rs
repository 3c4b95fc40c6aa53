//! Containers of pods that nobody has told us about, while the API server has never answered: judged by what their cgroups and
//! processes say. They yield before everybody else who is as important, and are never killed: somebody may need them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plimsoll_policy::sample::{Qos, Rung, Spec};
use plimsoll_policy::units::Span;

use super::find::Containers;
use super::layout::Pod;
use super::processes::{Inside, inside, is_critical};
use super::tree::Scope;
use crate::sense::discover::Workload;

/// The API server's default liveness probe fails after two periods of 10 s and a second; theirs are not known.
const FROZEN_AT_MOST: Span = Span::secs(10);

/// Judges each cgroup once: what we set on its processes later must not change what it is taken for.
#[derive(Debug)]
pub(super) struct Strangers {
    root: PathBuf,
    proc: PathBuf,
    rungs: Vec<Rung>,
    /// By inode: whether it is a workload.
    judged: BTreeMap<u64, bool>,
}

impl Strangers {
    /// `rungs` are those of the ladder.
    pub(super) fn new(root: PathBuf, proc: PathBuf, rungs: &[Rung]) -> Self {
        let gentle = |rung: &Rung| matches!(rung, Rung::Trim | Rung::Throttle | Rung::Freeze);
        let rungs = rungs.iter().copied().filter(gentle).collect();
        Self { root, proc, rungs, judged: BTreeMap::new() }
    }

    /// Those of them that are workloads.
    pub(super) fn judge(&mut self, pods: &[(&Pod, &Vec<Scope>)]) -> Containers {
        let scopes = || pods.iter().flat_map(|(pod, scopes)| scopes.iter().map(move |scope| (*pod, scope)));
        let mut found = Containers::new();
        let mut judged = BTreeMap::new();
        for (pod, scope) in scopes() {
            let verdict = self.judged.get(&scope.inode).copied().or_else(|| self.look(pod, scope));
            judged.extend(verdict.map(|verdict| (scope.inode, verdict)));
            if verdict == Some(true) {
                found.insert(scope.path.clone(), self.workload(pod, scope));
            }
        }
        self.judged = judged;
        found
    }

    /// Nothing is known any more; what is known comes from the API server now.
    pub(super) fn forget(&mut self) {
        self.judged.clear();
    }

    /// `None` as long as nothing runs in it.
    fn look(&self, pod: &Pod, scope: &Scope) -> Option<bool> {
        let dir = self.root.join(&scope.path);
        match inside(&dir, &self.proc) {
            Inside::Nothing => None,
            Inside::Sandbox => Some(false),
            Inside::Programs => {
                let guaranteed = pod.qos == Qos::Guaranteed;
                Some(!guaranteed && !pod.is_static() && !is_critical(&dir, &self.proc))
            }
        }
    }

    fn workload(&self, pod: &Pod, scope: &Scope) -> Workload {
        let id = scope.id.get(..12).unwrap_or(&scope.id);
        let spec = Spec {
            name: format!("unknown/{}/{id}", pod.uid),
            rungs: self.rungs.clone(),
            qos: pod.qos,
            freeze_max: Some(FROZEN_AT_MOST),
            ..Spec::default()
        };
        Workload { spec, ..Workload::default() }
    }
}
