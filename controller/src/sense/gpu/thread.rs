//! The thread that looks: it may hang in a driver for as long as that pleases, and nobody waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::park_timeout;
use std::time::Duration;

use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::sample::Trigger;

use super::look::Look;
use super::{Places, Shared};
use crate::act::mail::{Mail, Message};

pub(super) fn run(shared: &Shared, places: Places, pace: Duration, mail: &Mail, looked: &Sender<()>) {
    shared.xids.wakes(std::thread::current());
    let mut look = Look::new(places, pace, Arc::clone(&shared.xids));
    let mut told = BTreeMap::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let snapshot = Arc::new(look.look(&shared.latest(), &shared.workloads()));
        shared.publish(Arc::clone(&snapshot));
        // Nobody listens after the first.
        let _ = looked.send(());
        let moved = moved(&told, &snapshot.gpus);
        if moved {
            told.clone_from(&snapshot.gpus);
            mail.post(Message::Woke(Trigger::Gpu));
        }
        park_timeout(look.pause(&snapshot, moved));
    }
}

/// Whether a pass should look at it: a GPU came, went or was lost, or its use is another by a hundredth of its memory.
fn moved(before: &BTreeMap<GpuId, Gpu>, after: &BTreeMap<GpuId, Gpu>) -> bool {
    before.len() != after.len()
        || after.iter().any(|(id, new)| before.get(id).is_none_or(|old| differs(old, new)))
}

fn differs(old: &Gpu, new: &Gpu) -> bool {
    let moved = match (old.used, new.used, new.total) {
        (Some(old), Some(new), Some(total)) => old.0.abs_diff(new.0) >= (total.0 / 100).max(1),
        (old, new, _) => old != new,
    };
    moved || old.lost != new.lost || old.total != new.total
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::units::Bytes;

    use super::*;

    fn gpu(used: u64) -> BTreeMap<GpuId, Gpu> {
        let gpu = Gpu { total: Some(Bytes::mib(10_000)), used: Some(Bytes::mib(used)), ..Gpu::default() };
        [("a".into(), gpu)].into()
    }

    #[test]
    fn a_hundredth_is_a_move() {
        assert!(!moved(&gpu(1000), &gpu(1099)));
        assert!(moved(&gpu(1000), &gpu(1100)));
        assert!(moved(&gpu(1100), &gpu(1000)));
    }

    #[test]
    fn coming_and_going_is_a_move() {
        assert!(moved(&BTreeMap::new(), &gpu(1)) && moved(&gpu(1), &BTreeMap::new()));
        let mut lost = gpu(1);
        lost.values_mut().for_each(|gpu| gpu.lost = true);
        assert!(moved(&gpu(1), &lost));
    }
}
