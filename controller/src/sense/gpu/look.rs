//! One look at all GPUs: asks every source, keeps those that a driver lost, and says when to look again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::sample::Gap;
use plimsoll_policy::units::Share;

use super::drm::Place;
use super::nvml::Nvidia;
use super::reading::Reading;
use super::{Held, Places, Snapshot, Xids, drm, owners};
use crate::sense::clock::now;

/// Where no GPU was ever seen, a driver may still be installed or a GPU be plugged in.
const PROBE: Duration = Duration::from_secs(30);
/// Calm looks are this much rarer.
const CALM: u32 = 4;
/// The slowest pace of looks.
const SLOWEST: Duration = Duration::from_secs(1);
/// A GPU that is fuller is watched closely: the first tier begins at a few per cent more.
const FULL: Share = Share::percent(70);

/// Everything that is asked, kept open between looks.
#[derive(Debug)]
pub(super) struct Look {
    places: Places,
    pace: Duration,
    nvidia: Nvidia,
    /// Processes that could not be found at the last look.
    hidden: usize,
}

impl Look {
    pub(super) fn new(places: Places, pace: Duration, xids: Arc<Xids>) -> Self {
        let nvidia = Nvidia::new(places.nvml.clone(), places.proc.clone(), pace, xids);
        Self { places, pace, nvidia, hidden: 0 }
    }

    /// Looks. May be made to wait by a driver.
    pub(super) fn look(&mut self, before: &Snapshot, workloads: &[Place]) -> Snapshot {
        let at = now();
        let mut reading = Reading::default();
        self.nvidia.read(&mut reading);
        let own = drm::read(&self.places, workloads, &mut reading);
        let (mut held, hidden) = owners::by_cgroup(&self.places, &reading.processes);
        // One that can't be found now and then has just ended.
        if hidden > 0 && self.hidden > 0 {
            reading.gap(
                "gpu",
                &format!(
                    "{hidden} processes that use GPUs are not in /proc: this is not the host's PID namespace"
                ),
            );
        }
        self.hidden = hidden;
        let lost = reading.gpus.iter().filter(|(_, gpu)| gpu.lost).map(|(id, _)| id.clone());
        let blind: BTreeSet<GpuId> = reading.blind.iter().cloned().chain(lost).collect();
        unknow(&mut held, &before.held, &blind);
        drm::charge(&self.places, workloads, &own, &mut held);
        Snapshot { at, gpus: reading.gpus, held, gaps: reading.gaps, hidden }
    }

    /// Looks, and says also why there is nothing to be seen.
    pub(super) fn look_once(&mut self) -> Snapshot {
        let mut look = self.look(&Snapshot::default(), &[]);
        if let (true, Some(why)) = (look.gpus.is_empty(), self.nvidia.said()) {
            look.gaps.push(Gap { what: "nvml".into(), why: why.to_owned() });
        }
        look
    }

    /// How long to wait for the next look.
    pub(super) fn pause(&self, snapshot: &Snapshot, moved: bool) -> Duration {
        if snapshot.gpus.is_empty() {
            return PROBE;
        }
        let full =
            |gpu: &Gpu| gpu.used.zip(gpu.total).is_some_and(|(used, total)| used.0 >= total.share(FULL).0);
        if moved || snapshot.gpus.values().any(full) {
            return self.pace;
        }
        (self.pace * CALM).min(SLOWEST).max(self.pace)
    }
}

/// Who held something on a GPU that can't be read holds an unknown amount there.
fn unknow(held: &mut BTreeMap<u64, Held>, before: &BTreeMap<u64, Held>, blind: &BTreeSet<GpuId>) {
    for (inode, gpus) in before {
        for gpu in gpus.keys().filter(|gpu| blind.contains(*gpu)) {
            held.entry(*inode).or_default().insert(gpu.clone(), None);
        }
    }
}
