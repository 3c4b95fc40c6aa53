//! NVIDIA's management library, through the loader: opened when it is there, dropped when its driver is gone, opened again later.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::error::NvmlError;
use plimsoll_policy::gpu::{Gpu, GpuId};

use self::driver::Driver;
use super::Xids;
use super::reading::Reading;

mod device;
mod driver;

/// A driver that is gone, and a GPU that is lost, are tried again after this many looks: opening the library asks all GPUs.
const RETRY: u32 = 40;

/// NVIDIA's GPUs, whether or not they can be seen now.
#[derive(Debug)]
pub(super) struct Nvidia {
    library: Option<String>,
    proc: PathBuf,
    retry: Duration,
    xids: Arc<Xids>,
    driver: Option<Driver>,
    known: BTreeMap<GpuId, Known>,
    /// Not opened before.
    next: Instant,
    /// Said once.
    said: Option<String>,
}

/// A GPU that was seen.
#[derive(Clone, Debug)]
struct Known {
    gpu: Gpu,
    /// The physical GPU: itself, or that of a MIG instance.
    parent: GpuId,
}

/// What the driver lists.
#[derive(Debug, Default)]
struct Listed {
    gpus: BTreeMap<GpuId, Known>,
    /// Physical GPUs that answer.
    answering: BTreeSet<GpuId>,
}

impl Nvidia {
    pub(super) fn new(library: Option<String>, proc: PathBuf, pace: Duration, xids: Arc<Xids>) -> Self {
        let (driver, known, said) = (None, BTreeMap::new(), None);
        Self { library, proc, retry: pace * RETRY, xids, driver, known, next: Instant::now(), said }
    }

    /// Adds what there is to know to a look.
    pub(super) fn read(&mut self, reading: &mut Reading) {
        let Some(library) = self.library.clone() else { return };
        self.open(&library);
        match self.driver.as_mut().map(|driver| driver.read(&self.proc, &self.xids, reading)) {
            Some(Ok(listed)) => self.take(listed),
            Some(Err(error)) => {
                self.say(&error);
                // The library may be of another version than the driver that comes next.
                self.driver = None;
                self.next = Instant::now() + self.retry;
                self.lose_all();
            }
            None => self.lose_all(),
        }
        if let (None, Some(why), false) = (&self.driver, &self.said, self.known.is_empty()) {
            reading.gap("nvml", why);
        }
        reading.gpus.extend(self.known.iter().map(|(id, known)| (id.clone(), known.gpu.clone())));
    }

    /// Opens the library where it is not open, or a GPU is lost that only a new beginning can find again.
    fn open(&mut self, library: &str) {
        let lost = self.known.values().any(|known| known.gpu.lost);
        if (self.driver.is_some() && !lost) || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + self.retry;
        self.driver = None;
        match Driver::open(library, &self.xids) {
            Ok(driver) => {
                if self.said.take().is_some() {
                    tracing::info!("NVIDIA's driver is back");
                }
                self.driver = Some(driver);
            }
            Err(error) => self.say(&error),
        }
    }

    /// Takes over what the driver lists. A GPU that it does not list any more is lost, unless it was a MIG instance, or is one
    /// that is cut into some now.
    fn take(&mut self, listed: Listed) {
        let Listed { gpus, answering } = listed;
        let before = std::mem::replace(&mut self.known, gpus);
        for (id, mut known) in before {
            if let Some(now) = self.known.get_mut(&id).filter(|now| now.gpu.name.is_empty()) {
                now.gpu.name = known.gpu.name;
                continue;
            }
            if !self.known.contains_key(&id) && !answering.contains(&known.parent) {
                lose(&id, &mut known.gpu);
                self.known.insert(id, known);
            }
        }
    }

    /// Why the library does not answer.
    pub(super) fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    fn lose_all(&mut self) {
        self.known.iter_mut().for_each(|(id, known)| lose(id, &mut known.gpu));
    }

    fn say(&mut self, error: &NvmlError) {
        let why = error.to_string();
        if self.said.as_ref() != Some(&why) {
            if self.known.is_empty() {
                tracing::debug!(error = why, "no NVIDIA GPUs to be seen");
            } else {
                tracing::warn!(error = why, "NVIDIA's driver does not answer");
            }
            self.said = Some(why);
        }
    }
}

fn lose(id: &GpuId, gpu: &mut Gpu) {
    if !gpu.lost {
        tracing::error!(gpu = %id, name = gpu.name, "a GPU is lost");
    }
    *gpu = Gpu { lost: true, used: None, ..std::mem::take(gpu) };
}

/// Errors of the driver as a whole: the library has to be opened anew.
const fn is_of_the_driver(error: &NvmlError) -> bool {
    matches!(error, NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch)
}
