//! GPUs: which drivers answer, and whether they tell who holds how much.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_policy::gpu::Gpu;

use super::Capability;
use crate::sense::gpu::{Places, Snapshot, look_once};

/// A driver that has to wake its GPUs first takes seconds; one that hangs shall not hold up the start.
const PATIENCE: Duration = Duration::from_secs(5);
const LOST: &str = "tiers of GPUs, and giving their memory back";

/// What there is to say of GPUs; nothing where there is neither a GPU nor a driver of one.
#[must_use]
pub fn gpus(places: &Places) -> Vec<Capability> {
    let Some(look) = look_once(places.clone(), PATIENCE) else {
        let found = Capability::there("gpu", "a driver does not answer");
        return vec![found.lost(LOST, "look at the kernel log: a GPU that hangs takes its driver along")];
    };
    if look.gpus.is_empty() {
        return broken(places, &look).into_iter().collect();
    }
    let mut all = vec![devices(&look)];
    all.extend(shared(&look));
    all.push(users(&look));
    let dmem = places.cgroup.join("dmem.capacity");
    if dmem.exists() {
        all.push(Capability::there("dmem", "device memory is counted by cgroup"));
    }
    if places.sys.join("class/kfd/kfd/topology").exists() {
        all.push(Capability::there("kfd", "AMD's compute driver tells what processes hold"));
    }
    all
}

/// The kernel has NVIDIA's driver, and its library does not get along with it. A machine without either lacks nothing.
fn broken(places: &Places, look: &Snapshot) -> Option<Capability> {
    let loaded = places.proc.join("driver/nvidia/version").exists();
    let why = look.gaps.first().map_or("no GPU answers", |gap| &gap.why);
    loaded.then(|| {
        let found = Capability::there("gpu", format!("NVIDIA's driver is loaded, but {why}"));
        found.lost(LOST, "give `daemon.nvml` the path of libnvidia-ml.so.1 that came with the driver")
    })
}

fn devices(look: &Snapshot) -> Capability {
    let said = |(id, gpu): (_, &Gpu)| {
        let memory = match (gpu.lost, gpu.total) {
            (true, _) => "lost".to_owned(),
            (false, Some(total)) => format!("{} MiB", total.0 >> 20),
            (false, None) if gpu.unified => "the host's memory".to_owned(),
            (false, None) => "memory unknown".to_owned(),
        };
        format!("{id} ({}, {memory})", gpu.name)
    };
    let found = Capability::there("gpu", look.gpus.iter().map(said).collect::<Vec<_>>().join(", "));
    let unread = |gpu: &&Gpu| gpu.lost || (gpu.total.is_none() && !gpu.unified);
    if look.gpus.values().any(|gpu| unread(&gpu)) {
        return found.lost(format!("{LOST}, for those that are lost or unknown"), why(look));
    }
    found
}

fn shared(look: &Snapshot) -> Option<Capability> {
    let ids: Vec<String> =
        look.gpus.iter().filter(|(_, gpu)| gpu.unified).map(|(id, _)| id.to_string()).collect();
    let words = || format!("{} share the host's memory: the host's tiers are theirs", ids.join(", "));
    (!ids.is_empty()).then(|| Capability::there("unified_memory", words()))
}

/// Whether the driver says who holds how much. Where nobody uses a GPU there is nothing to see.
fn users(look: &Snapshot) -> Capability {
    let unknown = look.held.values().flat_map(BTreeMap::values).any(Option::is_none);
    let hidden = look.hidden > 0;
    let found = Capability::there("gpu_processes", "drivers tell what each process holds");
    if !unknown && !hidden {
        return found;
    }
    let detail = if hidden {
        format!("{} processes that use GPUs can't be found in /proc", look.hidden)
    } else {
        "a driver tells of some processes that they use a GPU, and not how much".to_owned()
    };
    Capability { detail, ..found }.lost(
        "knowing whose GPU memory it is: who holds an unknown amount is asked last",
        "run it in the host's PID namespace (`hostPID: true`), as root",
    )
}

fn why(look: &Snapshot) -> String {
    look.gaps.first().map_or_else(|| "look at the kernel log".to_owned(), |gap| gap.why.clone())
}
