//! The three lists of processes. A process that died holds nothing.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{self, nvmlDevice_t, nvmlProcessInfo_t, nvmlReturn_t};

use crate::handle::{Device, INVALID, answer, device, give};
use crate::state::{Process, Tells, is_alive};

const INSUFFICIENT_SIZE: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
/// What a field says that does not apply.
const NO_INSTANCE: u32 = u32::MAX;

/// Those that still live.
pub(crate) fn alive(processes: &[Process]) -> impl Iterator<Item = &Process> {
    processes.iter().filter(|process| is_alive(process.pid))
}

fn info(process: &Process, instance: u32) -> nvmlProcessInfo_t {
    nvmlProcessInfo_t {
        pid: process.pid,
        usedGpuMemory: match process.tells {
            Tells::Bytes => process.bytes,
            Tells::NotAvailable => u64::MAX,
            Tells::Nothing => 0,
        },
        gpuInstanceId: instance,
        computeInstanceId: if instance == NO_INSTANCE { NO_INSTANCE } else { 0 },
    }
}

/// Fills the caller's list, or says how long it has to be.
///
/// # Safety
/// `count` points to a number, and `to` to as many structures as that says, or to nothing.
unsafe fn list(
    of: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
    listed: fn(&Process) -> bool,
) -> Result<(), nvmlReturn_t> {
    let (processes, instance) = match device(of)? {
        Device::Gpu(gpu) => (gpu.processes, NO_INSTANCE),
        Device::Instance(_, instance) => (instance.processes, instance.gpu_instance),
    };
    let all: Vec<_> =
        alive(&processes).filter(|process| listed(process)).map(|one| info(one, instance)).collect();
    if count.is_null() {
        return Err(INVALID);
    }
    // SAFETY: by the caller's promise.
    let room = unsafe { count.read() } as usize;
    // SAFETY: as above.
    unsafe { give(count, all.len() as c_uint) }?;
    if all.len() > room || (to.is_null() && !all.is_empty()) {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, one) in all.into_iter().enumerate() {
        // SAFETY: there is room for all of them.
        unsafe { to.add(at).write(one) };
    }
    Ok(())
}

/// Processes that compute.
///
/// # Safety
/// `count` points to the length of the list at `to`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    of: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: by the caller's promise.
    answer(unsafe { list(of, count, to, |process| !process.mps) })
}

/// Processes that draw.
///
/// # Safety
/// `count` points to the length of the list at `to`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    of: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: by the caller's promise.
    answer(unsafe { list(of, count, to, |process| process.graphics) })
}

/// Clients of MPS.
///
/// # Safety
/// `count` points to the length of the list at `to`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    of: nvmlDevice_t,
    count: *mut c_uint,
    to: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    // SAFETY: by the caller's promise.
    answer(unsafe { list(of, count, to, |process| process.mps) })
}
