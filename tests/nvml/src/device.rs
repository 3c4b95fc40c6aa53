//! Calls for one device: names, memory, MIG.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::{self, nvmlDevice_t, nvmlMemory_v2_t, nvmlPciInfo_t, nvmlReturn_t};

use crate::handle::{Device, INVALID, answer, device, give, handle, index, tell};
use crate::processes::alive;

const NOT_SUPPORTED: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const NOT_FOUND: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;

/// The id.
///
/// # Safety
/// `uuid` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    of: nvmlDevice_t,
    uuid: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    let text = device(of).map(|device| match device {
        Device::Gpu(gpu) => gpu.uuid,
        Device::Instance(_, instance) => instance.uuid,
    });
    // SAFETY: by the caller's promise.
    answer(text.and_then(|text| unsafe { tell(uuid, length, &text) }))
}

/// The model.
///
/// # Safety
/// `name` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(
    of: nvmlDevice_t,
    name: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    let text = device(of).map(|device| match device {
        Device::Gpu(gpu) => gpu.name,
        Device::Instance(gpu, _) => format!("{} MIG", gpu.name),
    });
    // SAFETY: by the caller's promise.
    answer(text.and_then(|text| unsafe { tell(name, length, &text) }))
}

/// Where it is plugged in: only the address is filled in.
///
/// # Safety
/// `pci` points to such a structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(of: nvmlDevice_t, pci: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    let info = device(of).map(|device| {
        let (Device::Gpu(gpu) | Device::Instance(gpu, _)) = device;
        let mut bus_id = [0; 32];
        let bytes = gpu.bus_id.bytes().take(bus_id.len() - 1);
        bus_id.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte.cast_signed());
        nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: 0,
            device: 0,
            pciDeviceId: 0,
            pciSubSystemId: 0,
            busId: bus_id,
        }
    });
    // SAFETY: by the caller's promise.
    answer(info.and_then(|info| unsafe { give(pci, info) }))
}

/// How much memory there is, and how much of it is used.
///
/// # Safety
/// `memory` points to such a structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    of: nvmlDevice_t,
    memory: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    let info = device(of).and_then(|device| {
        let (total, reserved, processes) = match device {
            Device::Gpu(gpu) if gpu.integrated => return Err(NOT_SUPPORTED),
            Device::Gpu(gpu) => (gpu.total, gpu.reserved, gpu.processes),
            Device::Instance(_, instance) => (instance.total, 0, instance.processes),
        };
        let held: u64 = alive(&processes).map(|process| process.bytes).sum();
        let used = held.min(total - reserved);
        Ok(nvmlMemory_v2_t { version: 2, total, reserved, used, free: total - reserved - used })
    });
    // SAFETY: by the caller's promise.
    answer(info.and_then(|info| unsafe { give(memory, info) }))
}

/// Whether it is cut into instances.
///
/// # Safety
/// Both point to numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    of: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    let mode = device(of).and_then(|device| match device {
        Device::Gpu(gpu) => Ok(c_uint::from(gpu.instances.is_some())),
        Device::Instance(..) => Err(INVALID),
    });
    // SAFETY: by the caller's promise.
    answer(mode.and_then(|mode| unsafe { give(current, mode).and_then(|()| give(pending, mode)) }))
}

/// How many instances it can be cut into.
///
/// # Safety
/// `count` points to a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    of: nvmlDevice_t,
    count: *mut c_uint,
) -> nvmlReturn_t {
    // SAFETY: by the caller's promise.
    answer(device(of).and_then(|_| unsafe { give(count, 7) }))
}

/// An instance by its number.
///
/// # Safety
/// `instance` points to a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    of: nvmlDevice_t,
    number: c_uint,
    instance: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let found = device(of).and_then(|device| match device {
        Device::Gpu(gpu) => {
            let there = gpu.instances.as_ref().is_some_and(|all| (number as usize) < all.len());
            if there { Ok(handle(index(of)?, Some(number as usize))) } else { Err(NOT_FOUND) }
        }
        Device::Instance(..) => Err(INVALID),
    });
    // SAFETY: by the caller's promise.
    answer(found.and_then(|found| unsafe { give(instance, found) }))
}

/// The GPU instance that it is of.
///
/// # Safety
/// `number` points to a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(of: nvmlDevice_t, number: *mut c_uint) -> nvmlReturn_t {
    let found = device(of).and_then(|device| match device {
        Device::Gpu(_) => Err(NOT_SUPPORTED),
        Device::Instance(_, instance) => Ok(instance.gpu_instance),
    });
    // SAFETY: by the caller's promise.
    answer(found.and_then(|found| unsafe { give(number, found) }))
}
