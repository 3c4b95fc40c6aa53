//! Errors that the NVIDIA driver reports of its GPUs: waited for on a thread, counted, and a lost GPU told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread, sleep};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{EventSet, Nvml};
use plimsoll_policy::gpu::GpuId;

/// What the errors mean that say something about memory or about the GPU's life (NVIDIA's "XID Errors" page). Others are counted
/// together. A failed CUDA allocation is none of them: it raises no Xid.
const MEANING: &[(u64, &str)] = &[
    (31, "MMU fault of an application"),
    (43, "an application's channel was reset, as after a kill"),
    (45, "an application was torn down, as after a kill"),
    (48, "double-bit ECC error"),
    (63, "row remapping or page retirement recorded"),
    (64, "row remapping or page retirement failed"),
    (74, "NVLink error"),
    (OFF_THE_BUS, "the GPU has fallen off the bus"),
    (94, "contained ECC error"),
    (95, "uncontained ECC error"),
    (119, "GSP does not answer"),
    (120, "GSP error"),
    (154, "the GPU needs a reset or a reboot"),
];
const OFF_THE_BUS: u64 = 79;
/// Ends of applications, which our own kills bring about too.
const OF_APPLICATIONS: [u64; 3] = [31, 43, 45];

/// How long one wait for an event lasts, and so how long the end of the driver has to wait for the thread.
const WAIT_MS: u32 = 250;
/// Pause where the driver answers a wait with an error at once.
const ERROR_PAUSE: Duration = Duration::from_millis(500);
/// How long a thread that hangs in the driver is waited for before it is left behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// Counts of errors since the daemon began, by GPU and number; 0 stands for all numbers without a meaning here.
#[derive(Debug, Default)]
pub struct Xids {
    seen: Mutex<Seen>,
    waker: Mutex<Option<Thread>>,
}

#[derive(Debug, Default)]
struct Seen {
    counts: BTreeMap<(GpuId, u64), u64>,
    off_the_bus: BTreeSet<GpuId>,
}

impl Xids {
    /// Counts by GPU and number.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(GpuId, u64), u64> {
        self.seen().counts.clone()
    }

    /// Whom to wake when a GPU is lost.
    pub(super) fn wakes(&self, thread: Thread) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// Whether an error said that this GPU is off the bus since the driver was opened.
    pub(super) fn is_off_the_bus(&self, gpu: &GpuId) -> bool {
        self.seen().off_the_bus.contains(gpu)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, gpu: &GpuId, xid: u64) {
        let meaning = MEANING.iter().find(|(number, _)| *number == xid).map(|(_, meaning)| *meaning);
        let mut seen = self.seen();
        *seen.counts.entry((gpu.clone(), meaning.map_or(0, |_| xid))).or_default() += 1;
        if xid == OFF_THE_BUS {
            seen.off_the_bus.insert(gpu.clone());
        }
        drop(seen);
        let meaning = meaning.unwrap_or("see NVIDIA's list of Xid errors");
        if OF_APPLICATIONS.contains(&xid) {
            tracing::info!(gpu = %gpu, xid, meaning, "a GPU reported the end of an application");
        } else {
            tracing::warn!(gpu = %gpu, xid, meaning, "a GPU reported an error");
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }
}

/// The thread that waits, for as long as the driver is open.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts waiting for the errors of these GPUs, by their index. Without a thread nothing is counted, and that is all.
    pub(super) fn start(nvml: Arc<Nvml>, gpus: BTreeMap<u32, GpuId>, xids: Arc<Xids>) -> Self {
        xids.seen().off_the_bus.clear();
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("xid".into()).spawn(move || wait(&nvml, &gpus, &xids, &theirs));
        Self { stop, thread: thread.ok() }
    }
}

impl Drop for Watch {
    /// Waits for the thread: as long as it holds the library, that can't be loaded in another version.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        let end = Instant::now() + PATIENCE;
        while !thread.is_finished() && Instant::now() < end {
            sleep(Duration::from_millis(10));
        }
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            tracing::warn!("the driver does not come back from waiting for errors; a thread is left behind");
        }
    }
}

fn wait(nvml: &Nvml, gpus: &BTreeMap<u32, GpuId>, xids: &Xids, stop: &AtomicBool) {
    let (Some(set), handles) = registered(nvml, gpus) else { return };
    while !stop.load(Ordering::Relaxed) {
        match set.wait(WAIT_MS) {
            Ok(event) => {
                // SAFETY: the handle is only compared, as a number.
                let handle = unsafe { event.device.handle() } as usize;
                if let (Some(gpu), Some(XidError::Value(xid))) = (handles.get(&handle), event.event_data) {
                    xids.count(gpu, xid);
                }
            }
            Err(NvmlError::Timeout) => {}
            Err(error) => {
                tracing::debug!(error = %error, "can't wait for the driver's errors");
                xids.wake();
                sleep(ERROR_PAUSE);
            }
        }
    }
}

/// A set in which all GPUs are that can be, and these by handle. A GPU that refuses takes the whole set with it, so the others are
/// tried again without it.
fn registered<'a>(
    nvml: &'a Nvml,
    gpus: &BTreeMap<u32, GpuId>,
) -> (Option<EventSet<'a>>, BTreeMap<usize, GpuId>) {
    let mut refused = BTreeSet::new();
    'again: loop {
        let Ok(mut set) = nvml.create_event_set() else { return (None, BTreeMap::new()) };
        let mut handles = BTreeMap::new();
        for (index, gpu) in gpus.iter().filter(|(index, _)| !refused.contains(*index)) {
            let Ok(device) = nvml.device_by_index(*index) else { continue };
            let kind = EventTypes::CRITICAL_XID_ERROR;
            if !device.supported_event_types().is_ok_and(|types| types.contains(kind)) {
                continue;
            }
            let Ok(with) = device.register_events(kind, set) else {
                refused.insert(*index);
                continue 'again;
            };
            set = with;
            // SAFETY: the handle is only compared, as a number.
            handles.insert(unsafe { device.handle() } as usize, gpu.clone());
        }
        return ((!handles.is_empty()).then_some(set), handles);
    }
}
