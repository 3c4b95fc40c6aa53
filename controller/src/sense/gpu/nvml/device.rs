//! One GPU or MIG instance of the library: its memory, and which processes hold how much of it.

use std::fs;
use std::path::Path;

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::units::Bytes;

use super::super::reading::Reading;
use super::is_of_the_driver;

/// Reads one device. What its processes hold is accounted to `pool`.
///
/// # Errors
/// Where the device is lost or the driver is gone; what else it refuses is a gap.
pub(super) fn read(
    device: &Device<'_>,
    id: &GpuId,
    pool: &GpuId,
    unified: bool,
    reading: &mut Reading,
) -> Result<Gpu, NvmlError> {
    let name = device.name().unwrap_or_default();
    let mut gpu = Gpu { name, unified, ..Gpu::default() };
    match device.memory_info() {
        Ok(memory) if memory.total > 0 => {
            gpu.total = Some(Bytes(memory.total));
            // Version 2 of the call tells `used` without what the driver keeps; that is not to be had either.
            gpu.used = Some(Bytes(memory.total.saturating_sub(memory.free)));
        }
        // Without memory of its own (GB10, Jetson) there is nothing to tell.
        Ok(_) | Err(NvmlError::NotSupported) => gpu.unified = true,
        Err(error) => reading.gap(format!("gpu:{id}"), &fails(error)?),
    }
    let lists = [
        Device::running_compute_processes,
        Device::running_graphics_processes,
        Device::mps_running_compute_processes,
    ];
    for list in lists {
        match twice(|| list(device)) {
            Ok(processes) => processes.iter().for_each(|process| hold(process, pool, reading)),
            // Graphics is not to be had on MIG, MPS not before Volta, and old drivers lack some calls.
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {}
            Err(error) => reading.blind(pool, &fails(error)?),
        }
    }
    Ok(gpu)
}

/// Processes may come between the question how many there are and the question which: the second try knows more.
fn twice<T>(ask: impl Fn() -> Result<T, NvmlError>) -> Result<T, NvmlError> {
    match ask() {
        Err(NvmlError::InsufficientSize(_)) => ask(),
        other => other,
    }
}

/// A context alone takes more than a hundred megabytes, so nothing means that the driver does not know: some answer so in
/// containers, others with all bits set.
fn hold(process: &ProcessInfo, pool: &GpuId, reading: &mut Reading) {
    let bytes = match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) if bytes > 0 => Some(Bytes(bytes)),
        UsedGpuMemory::Used(_) | UsedGpuMemory::Unavailable => None,
    };
    reading.hold(process.pid, pool, bytes);
}

/// Passes on what ends the look at the device.
fn fails(error: NvmlError) -> Result<NvmlError, NvmlError> {
    if is_lost(&error) || is_of_the_driver(&error) { Err(error) } else { Ok(error) }
}

/// Whether the device is out of reach until something is reset.
pub(super) const fn is_lost(error: &NvmlError) -> bool {
    matches!(error, NvmlError::GpuLost | NvmlError::ResetRequired)
}

/// The number of the GPU instance that a MIG device is of. The wrapper has no name for this call.
pub(super) fn gpu_instance(device: &Device<'_>) -> Option<u32> {
    let call = device.nvml().lib().nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
    let mut number = 0;
    // SAFETY: the handle is valid as long as the library is open, which `device` borrows, and the call writes one number.
    let code = unsafe { call(device.handle(), &raw mut number) };
    (code == 0).then_some(number)
}

/// A PCI address as the kernel writes it; the library has eight digits of domain and capitals.
pub(super) fn address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 => format!("{}:{rest}", &domain[4..]),
        _ => lower,
    }
}

/// Grace machines can give the GPU's memory to the kernel as a NUMA node: then `MemTotal` has it, and so has whoever allocates
/// there (the driver's `numa_status`, where there is one).
pub(super) fn is_host_memory(proc: &Path, address: &str) -> bool {
    let path = proc.join("driver/nvidia/gpus").join(address).join("numa_status");
    fs::read_to_string(path).is_ok_and(|text| {
        let status = text
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("status:").map(str::to_owned));
        status.is_some_and(|status| status.trim().starts_with("online"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_kernel() {
        assert_eq!(address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(address("0000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(address(""), "");
    }

    #[test]
    fn memory_given_to_the_kernel_is_the_hosts() {
        let proc = tempfile::tempdir().unwrap();
        let dir = proc.path().join("driver/nvidia/gpus/0009:01:00.0");
        fs::create_dir_all(&dir).unwrap();
        let status = |text: &str| {
            fs::write(dir.join("numa_status"), text).unwrap();
            is_host_memory(proc.path(), "0009:01:00.0")
        };
        assert!(status("Node: 1\nStatus: online\n"));
        assert!(!status("Node: -1\nStatus: unplugged\n"));
        assert!(!is_host_memory(proc.path(), "0000:01:00.0"));
    }
}
