//! Calls for the library as a whole: beginning, end, counting.

use std::ffi::{c_char, c_uint};
use std::sync::atomic::Ordering;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::handle::{INVALID, SUCCESS, USERS, answer, begun, driver, give, handle, tell};
use crate::state::code;

/// Begins.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    let begun = driver();
    if begun.is_ok() {
        USERS.fetch_add(1, Ordering::Relaxed);
    }
    answer(begun.map(drop))
}

/// Begins; flags change nothing.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    nvmlInit_v2()
}

/// Ends.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    let less = |users: usize| users.checked_sub(1);
    match USERS.try_update(Ordering::Relaxed, Ordering::Relaxed, less) {
        Ok(_) => SUCCESS,
        Err(_) => crate::handle::UNINITIALIZED,
    }
}

/// Version of the driver.
///
/// # Safety
/// `version` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: by the caller's promise.
    answer(begun().and_then(|_| unsafe { tell(version, length, "580.65.06") }))
}

/// Number of GPUs.
///
/// # Safety
/// `count` points to a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: by the caller's promise.
    answer(begun().and_then(|state| unsafe { give(count, state.gpus.len() as c_uint) }))
}

/// A GPU by its number. One that is lost is not to be had.
///
/// # Safety
/// `device` points to a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    number: c_uint,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let found = begun().and_then(|state| {
        let gpu = state.gpus.get(number as usize).ok_or(INVALID)?;
        gpu.error.as_deref().map_or(Ok(()), |error| Err(code(error)))
    });
    // SAFETY: by the caller's promise.
    answer(found.and_then(|()| unsafe { give(device, handle(number as usize, None)) }))
}
