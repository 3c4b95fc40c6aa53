//! The ways that announce themselves: clients on the control socket, and those that listen to `MEMORY_PRESSURE_WATCH`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_policy::sample::WorkloadId;
use tokio::sync::Notify;

use super::Known;
use super::way::Way;

/// Keys below this are for the ways that the configuration names.
const FIRST: u64 = 1 << 32;

/// Where they are known. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Ways(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held for a look at the map only, by whoever comes and goes and by the pass.
    registry: Mutex<Registry>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Registry {
    newest: u64,
    ways: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    cgroup: WorkloadId,
    version: u64,
    way: Arc<dyn Way>,
}

/// A way that is known for as long as this lives.
#[derive(Debug)]
pub struct Registered {
    ways: Ways,
    key: u64,
}

impl Ways {
    /// Makes a way known by which a process in this cgroup can be asked. It counts for the workload that the cgroup is, or is
    /// within, also where that is found only later. Several ways of one name are asked together.
    #[must_use]
    pub fn register(&self, cgroup: &WorkloadId, way: Arc<dyn Way>) -> Registered {
        let mut registry = self.lock();
        registry.newest += 1;
        let key = FIRST + registry.newest;
        registry.ways.insert(key, Entry { cgroup: cgroup.clone(), version: 0, way });
        drop(registry);
        self.0.changed.notify_one();
        Registered { ways: self.clone(), key }
    }

    /// Until a way came or went, or offers something else.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    pub(super) fn all(&self) -> Vec<(WorkloadId, Known)> {
        let registry = self.lock();
        let each = registry.ways.iter();
        each.map(|(key, entry)| (entry.cgroup.clone(), (*key, entry.version, Arc::clone(&entry.way))))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// Says that its offer is another one now: it is looked up at once.
    pub fn changed(&self) {
        if let Some(entry) = self.ways.lock().ways.get_mut(&self.key) {
            entry.version += 1;
        }
        self.ways.0.changed.notify_one();
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.ways.lock().ways.remove(&self.key);
        self.ways.0.changed.notify_one();
    }
}
