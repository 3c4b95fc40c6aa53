//! The library while it is open: which GPUs it lists, MIG instances in place of the GPU that is cut into them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use plimsoll_policy::gpu::{Gpu, GpuId};

use super::super::Xids;
use super::super::reading::Reading;
use super::super::xid::Watch;
use super::{Known, Listed, device, is_of_the_driver};

/// An open library.
#[derive(Debug)]
pub(super) struct Driver {
    /// Before the library: it has to end first.
    _watch: Watch,
    nvml: Arc<Nvml>,
    /// The ids of physical GPUs by index: one that is lost may not even say its name.
    ids: BTreeMap<u32, GpuId>,
}

impl Driver {
    /// Loads the library and begins.
    pub(super) fn open(library: &str, xids: &Arc<Xids>) -> Result<Self, NvmlError> {
        let nvml = Arc::new(Nvml::builder().lib_path(library.as_ref()).init()?);
        let mut ids = BTreeMap::new();
        for index in 0..nvml.device_count()? {
            if let Ok(id) = nvml.device_by_index(index).and_then(|device| device.uuid()) {
                ids.insert(index, GpuId::from(id));
            }
        }
        let watch = Watch::start(Arc::clone(&nvml), ids.clone(), Arc::clone(xids));
        Ok(Self { _watch: watch, nvml, ids })
    }

    /// Reads all GPUs. What one of them refuses is a gap of that one.
    pub(super) fn read(
        &mut self,
        proc: &Path,
        xids: &Xids,
        reading: &mut Reading,
    ) -> Result<Listed, NvmlError> {
        let mut listed = Listed::default();
        for index in 0..self.nvml.device_count()? {
            match self.physical(index, proc, xids, reading, &mut listed) {
                Err(error) if is_of_the_driver(&error) => return Err(error),
                Err(error) if device::is_lost(&error) => {
                    // Not listed: whoever knows it takes it for lost.
                    let id =
                        self.ids.get(&index).map_or_else(|| format!("number {index}"), ToString::to_string);
                    reading.gap(format!("gpu:{id}"), &error);
                }
                Err(error) => self.keep(index, &error, reading, &mut listed),
                Ok(()) => {}
            }
        }
        Ok(listed)
    }

    fn physical(
        &mut self,
        index: u32,
        proc: &Path,
        xids: &Xids,
        reading: &mut Reading,
        listed: &mut Listed,
    ) -> Result<(), NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let id = GpuId::from(device.uuid()?);
        self.ids.insert(index, id.clone());
        if xids.is_off_the_bus(&id) {
            return Err(NvmlError::GpuLost);
        }
        let address = device.pci_info().ok().map(|pci| device::address(&pci.bus_id));
        reading.addresses.extend(address.clone());
        if device.mig_mode().is_ok_and(|mode| mode.current == 1) {
            instances(&device, &id, reading, listed)?;
        } else {
            let unified = address.is_some_and(|address| device::is_host_memory(proc, &address));
            let gpu = device::read(&device, &id, &id, unified, reading)?;
            listed.gpus.insert(id.clone(), Known { gpu, parent: id.clone() });
        }
        listed.answering.insert(id);
        Ok(())
    }

    /// It is there, but said nothing useful this time.
    fn keep(&self, index: u32, error: &NvmlError, reading: &mut Reading, listed: &mut Listed) {
        let Some(id) = self.ids.get(&index) else {
            reading.gap("gpu", &format!("GPU {index}: {error}"));
            return;
        };
        reading.blind(id, error);
        listed.answering.insert(id.clone());
        listed.gpus.insert(id.clone(), Known { gpu: Gpu::default(), parent: id.clone() });
    }
}

/// The MIG instances of a GPU. Several compute instances within one GPU instance share its memory: the first stands for them.
fn instances(
    parent: &Device<'_>,
    id: &GpuId,
    reading: &mut Reading,
    listed: &mut Listed,
) -> Result<(), NvmlError> {
    let mut pools = BTreeMap::<u32, GpuId>::new();
    for index in 0..parent.mig_device_count()? {
        let instance = match parent.mig_device_by_index(index) {
            Ok(instance) => instance,
            // Empty places are ordinary.
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            Err(error) => return Err(error),
        };
        let own = GpuId::from(instance.uuid()?);
        let number = device::gpu_instance(&instance).unwrap_or(u32::MAX - index);
        let pool = pools.entry(number).or_insert_with(|| own.clone()).clone();
        let gpu = device::read(&instance, &own, &pool, false, reading)?;
        if pool == own {
            listed.gpus.insert(own, Known { gpu, parent: id.clone() });
        }
    }
    Ok(())
}
