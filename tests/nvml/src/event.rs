//! Sets of events: whoever waits is told the errors that were raised since it asked for them.

use std::collections::BTreeSet;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{self, nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use crate::handle::{INVALID, SUCCESS, answer, begun, device, give, handle, index};
use crate::state::code;

/// `nvmlEventTypeXidCriticalError`.
const XID: c_ulonglong = 8;
const TIMEOUT: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_ERROR_TIMEOUT;
const NAP: Duration = Duration::from_millis(5);

/// What a set's pointer points to.
#[derive(Default)]
struct Set(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    gpus: BTreeSet<usize>,
    /// Errors that are old news.
    told: usize,
}

/// The set behind a pointer.
///
/// # Safety
/// `set` is null or came from `nvmlEventSetCreate` and was not freed.
unsafe fn set<'a>(set: nvmlEventSet_t) -> Result<&'a Set, nvmlReturn_t> {
    // SAFETY: by the caller's promise.
    unsafe { set.cast::<Set>().as_ref() }.ok_or(INVALID)
}

/// Makes an empty set.
///
/// # Safety
/// `to` points to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(to: *mut nvmlEventSet_t) -> nvmlReturn_t {
    let made = begun().map(|state| {
        let waiting = Waiting { gpus: BTreeSet::new(), told: state.xids.len() };
        Box::into_raw(Box::new(Set(Mutex::new(waiting))))
    });
    // SAFETY: by the caller's promise.
    answer(made.and_then(|made| unsafe { give(to, made.cast()) }))
}

/// Which events there are.
///
/// # Safety
/// `types` points to a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(
    of: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> nvmlReturn_t {
    // SAFETY: by the caller's promise.
    answer(device(of).and_then(|_| unsafe { give(types, XID) }))
}

/// Adds a GPU's errors to a set.
///
/// # Safety
/// `to` is a set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    of: nvmlDevice_t,
    types: c_ulonglong,
    to: nvmlEventSet_t,
) -> nvmlReturn_t {
    let add = || {
        device(of)?;
        if types & !XID != 0 {
            return Err(bindings::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
        }
        // SAFETY: by the caller's promise.
        let set = unsafe { set(to) }?;
        set.0.lock().map_err(|_| crate::handle::UNKNOWN)?.gpus.insert(index(of)?);
        Ok(())
    };
    answer(add())
}

/// Waits for an error. A GPU of the set that is lost ends the wait.
///
/// # Safety
/// `of` is a set, and `to` points to such a structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    of: nvmlEventSet_t,
    to: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    let end = Instant::now() + Duration::from_millis(timeout_ms.into());
    // SAFETY: by the caller's promise.
    let set = match unsafe { set(of) } {
        Ok(set) => set,
        Err(code) => return code,
    };
    loop {
        match next(set) {
            // SAFETY: by the caller's promise.
            Ok(Some(event)) => return answer(unsafe { give(to, event) }),
            Ok(None) if Instant::now() < end => sleep(NAP),
            Ok(None) => return TIMEOUT,
            Err(code) => return code,
        }
    }
}

fn next(set: &Set) -> Result<Option<nvmlEventData_t>, nvmlReturn_t> {
    let state = begun()?;
    let mut waiting = set.0.lock().map_err(|_| crate::handle::UNKNOWN)?;
    while let Some(xid) = state.xids.get(waiting.told) {
        waiting.told += 1;
        let gpu = state.gpus.iter().position(|gpu| gpu.uuid == xid.gpu);
        if let Some(gpu) = gpu.filter(|gpu| waiting.gpus.contains(gpu)) {
            return Ok(Some(nvmlEventData_t {
                device: handle(gpu, None),
                eventType: XID,
                eventData: xid.number,
                gpuInstanceId: u32::MAX,
                computeInstanceId: u32::MAX,
            }));
        }
    }
    let failed = waiting.gpus.iter().find_map(|gpu| state.gpus.get(*gpu)?.error.as_deref());
    failed.map_or(Ok(None), |error| Err(code(error)))
}

/// Frees a set.
///
/// # Safety
/// `of` is null or a set that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(of: nvmlEventSet_t) -> nvmlReturn_t {
    if of.is_null() {
        return INVALID;
    }
    // SAFETY: by the caller's promise it came from a box that nobody else frees.
    drop(unsafe { Box::from_raw(of.cast::<Set>()) });
    SUCCESS
}
