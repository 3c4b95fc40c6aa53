//! GPUs as a pass sees them: the last look of a thread that may be made to wait by drivers, never the driver itself.

mod dmem;
mod drm;
mod fdinfo;
mod kfd;
mod look;
mod nvml;
mod owners;
mod reading;
mod thread;
mod xid;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Thread};
use std::time::Duration;

use plimsoll_policy::config::Config;
use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::sample::{Gap, Sample, WorkloadId};
use plimsoll_policy::units::{Bytes, Monotonic, Span};

use self::drm::Place;
pub use self::xid::Xids;
use crate::act::mail::Mail;

/// Bytes by GPU; `None` where it is in use by an amount that nobody knows.
pub type Held = BTreeMap<GpuId, Option<Bytes>>;

/// A look that is older says nothing of now: the slowest pace is a second, and a driver that answers takes milliseconds.
const STALE: Span = Span::millis(2500);
/// How long the start waits for the first look. A driver that has to wake its GPUs first takes longer, and then the first passes
/// run without.
const FIRST: Duration = Duration::from_secs(2);

/// Where the kernel's files are, and which library speaks with the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// Where cgroup v2 is mounted.
    pub cgroup: PathBuf,
    /// Name or path of NVIDIA's management library, for the loader; `None` = not asked.
    pub nvml: Option<String>,
}

impl Places {
    /// Those of this machine.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            proc: "/proc".into(),
            sys: "/sys".into(),
            cgroup: config.daemon.cgroup_root.clone().into(),
            nvml: config.daemon.nvml.clone(),
        }
    }
}

/// What one look gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// When the look began.
    pub at: Monotonic,
    /// Every GPU that is known.
    pub gpus: BTreeMap<GpuId, Gpu>,
    /// What the processes of a cgroup hold, those of the cgroups below it included; by the cgroup's inode.
    pub held: BTreeMap<u64, Held>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
    /// Processes that use GPUs and can't be found.
    pub hidden: usize,
}

/// Looks once, on a thread that is left behind where a driver does not answer in time: then there is no look.
#[must_use]
pub fn look_once(places: Places, patience: Duration) -> Option<Snapshot> {
    let (looked, first) = channel();
    let look = move || drop(looked.send(look::Look::new(places, FIRST, Arc::default()).look_once()));
    Builder::new().name("gpu-check".into()).spawn(look).ok()?;
    first.recv_timeout(patience).ok()
}

/// The thread that looks at GPUs, and its last look.
#[derive(Debug)]
pub struct Feed {
    shared: Arc<Shared>,
    thread: Thread,
}

/// What the thread and the pass share. The lock is held for a pointer's copy, never over a driver's call.
#[derive(Debug, Default)]
struct Shared {
    latest: Mutex<Arc<Snapshot>>,
    /// Cgroups of the workloads: where the kernel tells by process, only these are asked.
    workloads: Mutex<Arc<[Place]>>,
    xids: Arc<Xids>,
    stop: AtomicBool,
}

impl Shared {
    fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn workloads(&self) -> Arc<[Place]> {
        Arc::clone(&self.workloads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, snapshot: Arc<Snapshot>) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }
}

impl Feed {
    /// Starts the thread and waits a moment for its first look, so that the first pass knows the GPUs.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start(places: Places, pace: Duration, mail: Mail) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (looked, first) = channel();
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name("gpu".into())
            .spawn(move || thread::run(&theirs, places, pace, &mail, &looked))?
            .thread()
            .clone();
        // Later is not too late: that look wakes a pass.
        let _ = first.recv_timeout(FIRST);
        Ok(Self { shared, thread })
    }

    /// The last look, however old.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        self.shared.latest()
    }

    /// Says whose processes matter from the next look on.
    pub(super) fn follow<'a>(&self, workloads: impl Iterator<Item = &'a WorkloadId>) {
        let places = workloads.map(|id| (id.path.to_string(), id.inode)).collect();
        *self.shared.workloads.lock().unwrap_or_else(PoisonError::into_inner) = places;
    }

    /// Errors that the driver reported, counted.
    #[must_use]
    pub fn xids(&self) -> Arc<Xids> {
        Arc::clone(&self.shared.xids)
    }

    /// Adds GPUs, and what of them the workloads hold, to a sample.
    pub(super) fn merge(&self, sample: &mut Sample) {
        let latest = self.latest();
        if latest.gpus.is_empty() {
            sample.gaps.extend(latest.gaps.iter().cloned());
        } else if sample.at.since(latest.at) > STALE {
            latest.merge_stale(sample);
        } else {
            latest.merge(sample);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Snapshot {
    fn merge(&self, sample: &mut Sample) {
        // Between two looks nothing grows, and what grew did not do so since the last pass.
        let read = |gpu: &Gpu| Gpu { at: self.at, ..gpu.clone() };
        sample.gpus = self.gpus.iter().map(|(id, gpu)| (id.clone(), read(gpu))).collect();
        sample.gaps.extend(self.gaps.iter().cloned());
        for (id, workload) in &mut sample.workloads {
            if let Some(held) = self.held.get(&id.inode) {
                workload.gpus.clone_from(held);
            }
        }
    }

    /// The driver does not answer: what was known of amounts is not known any more.
    fn merge_stale(&self, sample: &mut Sample) {
        let age = sample.at.since(self.at);
        sample.gaps.push(Gap { what: "gpu".into(), why: format!("no look at the GPUs for {age}") });
        let unknown = |gpu: &Gpu| Gpu { used: None, ..gpu.clone() };
        sample.gpus = self.gpus.iter().map(|(id, gpu)| (id.clone(), unknown(gpu))).collect();
        for (id, workload) in &mut sample.workloads {
            if let Some(held) = self.held.get(&id.inode) {
                workload.gpus = held.keys().map(|gpu| (gpu.clone(), None)).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests;
