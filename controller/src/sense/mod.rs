//! Reads the machine: one [`Sample`] per pass. What can't be read is a gap, and never stops the pass.

pub mod cgroup;
pub mod clock;
pub mod discover;
pub mod gpu;
pub mod node;
pub mod parse;
pub mod probes;
pub mod psi;
mod tracked;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use plimsoll_policy::admission::Request;
use plimsoll_policy::config::Config;
use plimsoll_policy::config::ways::Means;
use plimsoll_policy::plan::Outcome;
use plimsoll_policy::sample::{Gap, Host, HostProbes, Probes as Counters, Sample, Trigger, WorkloadId};
use plimsoll_policy::units::Share;

use self::cgroup::{Cgroup, FileError};
use self::discover::Found;
use self::gpu::Feed;
use self::node::Node;
pub use self::tracked::Tracked;

/// Everything that is read, held open.
pub struct Senses {
    node: Node,
    tracked: BTreeMap<WorkloadId, Tracked>,
    config: Config,
    gpus: Option<Feed>,
}

/// How the set of workloads changed.
#[derive(Debug, Default)]
pub struct Change {
    /// Workloads that are new, and by what means they can be asked.
    pub came: Vec<(Arc<Cgroup>, Means)>,
    /// Workloads that are gone.
    pub went: Vec<WorkloadId>,
    /// Workloads that could not be opened, in words.
    pub refused: Vec<String>,
}

/// What came in since the last sample and is part of the next.
#[derive(Debug, Default)]
pub struct News {
    /// Actions that ended.
    pub outcomes: Vec<Outcome>,
    /// Calls of clients.
    pub requests: Vec<Request>,
}

/// The counters of the eBPF programs at one moment; empty where there are none.
#[derive(Debug, Default)]
pub struct Counted {
    /// By cgroup id.
    pub cgroups: Option<BTreeMap<u64, Counters>>,
    /// For the host.
    pub host: Option<HostProbes>,
}

impl Senses {
    /// Opens what is read of the host.
    ///
    /// # Errors
    /// When `/proc/meminfo` or `/proc/vmstat` can't be opened.
    pub fn open(config: &Config) -> io::Result<Self> {
        Ok(Self {
            node: Node::open(Path::new("/proc"), Path::new("/sys"))?,
            tracked: BTreeMap::new(),
            config: config.clone(),
            gpus: None,
        })
    }

    /// The host's files.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Has GPUs in every sample from now on.
    pub fn watch_gpus(&mut self, feed: Feed) {
        self.gpus = Some(feed);
    }

    /// The workloads that are watched.
    #[must_use]
    pub fn tracked(&self) -> &BTreeMap<WorkloadId, Tracked> {
        &self.tracked
    }

    /// Takes over what discovery found: opens what is new, drops what is gone or is another cgroup of the same path.
    pub fn update(&mut self, found: &Found) -> Change {
        self.node.refresh();
        let mut change = Change::default();
        let root = Path::new(&self.config.daemon.cgroup_root).to_owned();
        let known: BTreeSet<WorkloadId> = self.tracked.keys().cloned().collect();
        let mut now = BTreeMap::new();
        for (path, workload) in found {
            let Some(&inode) = workload.ids.first() else { continue };
            let id = WorkloadId { path: path.as_str().into(), inode };
            let tracked = match self.tracked.remove(&id).map_or_else(|| open(&root, &id), Ok) {
                Ok(tracked) => tracked,
                // It vanished between discovery and now: the next look won't name it.
                Err(FileError::Gone) => continue,
                Err(error) => {
                    change.refused.push(format!("{path}: {error}"));
                    continue;
                }
            };
            if !known.contains(&id) {
                change.came.push((Arc::clone(&tracked.cgroup), workload.means.clone()));
            }
            now.insert(id, tracked.with(workload));
        }
        change.went = self.tracked.keys().cloned().collect();
        self.tracked = now;
        if let Some(gpus) = &self.gpus {
            gpus.follow(self.tracked.keys());
        }
        change
    }

    /// Reads everything that a pass needs.
    pub fn sample(&mut self, trigger: Trigger, news: News, counted: &Counted) -> Sample {
        let News { outcomes, requests } = news;
        let at = clock::now();
        let mut gaps = Vec::new();
        let host = Host {
            meminfo: self.node.meminfo(&mut gaps),
            vmstat: self.node.vmstat(&mut gaps),
            psi: self.node.psi(&mut gaps),
            probes: counted.host,
        };
        let swapped_in_ram = host.meminfo.map_or(Share::ZERO, |meminfo| self.node.swapped_in_ram(&meminfo));
        let mut workloads = BTreeMap::new();
        for (id, tracked) in &mut self.tracked {
            match tracked.read(at, &self.config.pace, counted.cgroups.as_ref(), &mut gaps) {
                Some(mut workload) => {
                    workload.swap_ram = workload.swap.map(|swap| swap.share(swapped_in_ram));
                    workloads.insert(id.clone(), workload);
                }
                None => gaps.push(Gap { what: id.to_string(), why: FileError::Gone.to_string() }),
            }
        }
        let mut sample =
            Sample { at, trigger, host, workloads, outcomes, requests, gaps, ..Sample::default() };
        if let Some(gpus) = &self.gpus {
            gpus.merge(&mut sample);
        }
        sample
    }
}

/// Opens a cgroup, provided that the path still names the one that was found.
fn open(root: &Path, id: &WorkloadId) -> Result<Tracked, FileError> {
    let cgroup = Cgroup::open(root, &id.path)?;
    if cgroup.id != *id {
        return Err(FileError::Gone);
    }
    Ok(Tracked::new(Arc::new(cgroup)))
}
