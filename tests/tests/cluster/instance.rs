//! What a daemon has of Kubernetes, without the daemon: the watch of the pods and the teller, shown passes that a test makes up.
use std::path::Path;
use std::sync::Arc;

use plimsoll::kubernetes::tell::{self, Counts, Evicted, Teller};
use plimsoll::kubernetes::{self, Bell, Parts, PodRef, pods::Pods};
use plimsoll::sense::clock;
use plimsoll::sense::discover::{Found, Workload as FoundWorkload};
use plimsoll_policy::config::Config;
use plimsoll_policy::plan::{Assessment, Outcome, Plan, Tier, Wanted};
use plimsoll_policy::sample::{Rung, Sample, Workload, WorkloadId};
use plimsoll_policy::units::Bytes;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;

/// One node's.
pub(crate) struct Instance {
    pub(crate) parts: Parts,
    pub(crate) teller: Teller,
    pub(crate) counts: Arc<Counts>,
    ends: Receiver<Evicted>,
    _bell: Bell,
    _dir: Option<TempDir>,
    action: u64,
}

impl Instance {
    /// Of a node, speaking as that kubeconfig says, with a run directory of its own.
    pub(crate) fn start(kubeconfig: &Path, node: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let instance = Self::start_in(dir.path(), kubeconfig, node);
        Self { _dir: Some(dir), ..instance }
    }

    /// The same, with a run directory that an earlier one may have left.
    pub(crate) fn start_in(run_dir: &Path, kubeconfig: &Path, node: &str) -> Self {
        let config = config(run_dir, kubeconfig, node);
        let (parts, bell) = kubernetes::start(&config, "", &Handle::current()).unwrap();
        let counts = Arc::new(Counts::default());
        let (teller, ends) =
            tell::start(&config, parts.client.clone(), node, parts.pods.clone(), Arc::clone(&counts));
        Self { parts, teller, counts, ends, _bell: bell, _dir: None, action: 0 }
    }

    /// The pods as they are known now.
    pub(crate) fn pods(&self) -> Arc<Pods> {
        Arc::clone(&self.parts.pods.borrow())
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.pods().pods.values().map(|pod| pod.name.clone()).collect();
        names.sort();
        names
    }

    /// A pass at that tier, in which every container is wanted on that rung.
    pub(crate) fn pass(&mut self, tier: Tier, rung: Rung) {
        self.action += 1;
        let wanted = Wanted {
            rung,
            high: (rung == Rung::Throttle).then_some(Bytes(1 << 30)),
            frozen: rung == Rung::Freeze,
            action: self.action,
            ..Wanted::default()
        };
        self.show(tier, &wanted);
    }

    /// A pass in which every pod shall be handed to another node.
    pub(crate) fn want_evictions(&mut self) {
        self.action += 1;
        let wanted = Wanted { evict: true, action: self.action, ..Wanted::default() };
        self.show(Tier::Critical, &wanted);
    }

    fn show(&mut self, tier: Tier, wanted: &Wanted) {
        let found = self.found();
        let ids: Vec<_> = (1..).zip(found.keys()).map(|(inode, path)| id(path, inode)).collect();
        self.teller.take_workloads(&found);
        let workload = Workload { current: Some(Bytes(2 << 30)), ..Workload::default() };
        let mut sample = Sample { at: clock::now(), ..Sample::default() };
        sample.workloads = ids.iter().map(|id| (id.clone(), workload.clone())).collect();
        let workloads = ids.iter().map(|id| (id.clone(), wanted.clone())).collect();
        let assessment = Assessment { tier, headroom: Some(Bytes(1 << 30)), ..Assessment::default() };
        self.teller.pass(&sample, &assessment, &Plan { workloads, ..Plan::default() });
    }

    /// As if every managed container ran.
    fn found(&self) -> Found {
        let found = |of: &PodRef| {
            let path = format!("kubepods/pod{}/{}", of.uid, of.container);
            (path, FoundWorkload { pod: Some(of.clone()), ..FoundWorkload::default() })
        };
        let pods = self.pods();
        pods.pods.values().flat_map(|pod| &pod.containers).map(|container| found(&container.of)).collect()
    }

    /// The end of the next eviction.
    pub(crate) async fn evicted(&mut self) -> Vec<Outcome> {
        let evicted = self.ends.recv().await.unwrap();
        self.teller.take_evicted(evicted)
    }
}

fn id(path: &str, inode: u64) -> WorkloadId {
    WorkloadId { path: path.into(), inode }
}

fn config(run_dir: &Path, kubeconfig: &Path, node: &str) -> Config {
    let mut config = Config::default();
    config.daemon.run_dir = run_dir.to_string_lossy().into_owned();
    config.kubernetes.enabled = true;
    config.kubernetes.node = Some(node.to_owned());
    config.kubernetes.kubeconfig = Some(kubeconfig.to_string_lossy().into_owned());
    config
}
