//! What stands behind the pointers that callers hold, and the entry of every call.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use nvml_wrapper_sys::bindings::{self, nvmlDevice_t, nvmlReturn_t};

use crate::state::{self, Gpu, Instance, State, code};

pub(crate) const SUCCESS: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_SUCCESS;
pub(crate) const INVALID: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub(crate) const UNKNOWN: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_ERROR_UNKNOWN;
pub(crate) const UNINITIALIZED: nvmlReturn_t = bindings::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED;

/// How often the library was initialised and not shut down.
pub(crate) static USERS: AtomicUsize = AtomicUsize::new(0);

/// How often a call that hangs looks whether it still has to.
const NAP: Duration = Duration::from_millis(5);

/// Where the state is.
static STATE: LazyLock<Option<PathBuf>> = LazyLock::new(|| Some(state::state_of(&own_path()?)));

/// The file that this library was loaded from.
fn own_path() -> Option<PathBuf> {
    // SAFETY: all fields are pointers and may be null.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let inside: *const nvmlReturn_t = &raw const SUCCESS_HERE;
    // SAFETY: the address is one of this library, and the result has room.
    if unsafe { libc::dladdr(inside.cast(), &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own text, which lives as long as the library.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(Path::new(OsStr::from_bytes(path.to_bytes())).to_owned())
}

/// Something with an address.
static SUCCESS_HERE: nvmlReturn_t = SUCCESS;

/// The state, once the driver answers; what it says instead of an answer otherwise.
pub(crate) fn driver() -> Result<State, nvmlReturn_t> {
    let path = STATE.as_ref().ok_or(UNKNOWN)?;
    loop {
        let state = state::read(path).map_err(|_| UNKNOWN)?;
        match &state.error {
            Some(error) => return Err(code(error)),
            None if state.hangs => sleep(NAP),
            None => return Ok(state),
        }
    }
}

/// The same, for callers that have to have begun.
pub(crate) fn begun() -> Result<State, nvmlReturn_t> {
    if USERS.load(Ordering::Relaxed) == 0 { Err(UNINITIALIZED) } else { driver() }
}

/// A GPU or a MIG instance.
pub(crate) enum Device {
    Gpu(Gpu),
    Instance(Gpu, Instance),
}

/// Numbers of MIG instances begin here.
const INSTANCES: usize = 1 << 16;

/// The handle of a GPU, or of one of its instances. Never dereferenced by anybody.
pub(crate) fn handle(gpu: usize, instance: Option<usize>) -> nvmlDevice_t {
    let number = instance.map_or(0, |instance| (instance + 1) * INSTANCES) + gpu + 1;
    ptr::without_provenance_mut(number)
}

/// Which GPU a handle is of.
pub(crate) fn index(handle: nvmlDevice_t) -> Result<usize, nvmlReturn_t> {
    (handle.addr() % INSTANCES).checked_sub(1).ok_or(INVALID)
}

/// The device of a handle, once it answers.
pub(crate) fn device(handle: nvmlDevice_t) -> Result<Device, nvmlReturn_t> {
    let state = begun()?;
    let gpu = state.gpus.get(index(handle)?).ok_or(INVALID)?.clone();
    if let Some(error) = &gpu.error {
        return Err(code(error));
    }
    let Some(number) = (handle.addr() / INSTANCES).checked_sub(1) else { return Ok(Device::Gpu(gpu)) };
    let instance = gpu.instances.as_ref().and_then(|all| all.get(number)).ok_or(INVALID)?.clone();
    Ok(Device::Instance(gpu, instance))
}

/// The code of a call.
pub(crate) fn answer(result: Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    result.err().unwrap_or(SUCCESS)
}

/// Writes what was asked for.
///
/// # Safety
/// `to` is null or points to a place for a `T`.
pub(crate) unsafe fn give<T>(to: *mut T, value: T) -> Result<(), nvmlReturn_t> {
    if to.is_null() {
        return Err(INVALID);
    }
    // SAFETY: by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text with its end.
///
/// # Safety
/// `to` is null or points to `room` bytes.
pub(crate) unsafe fn tell(to: *mut std::ffi::c_char, room: u32, text: &str) -> Result<(), nvmlReturn_t> {
    if to.is_null() || text.len() >= room as usize {
        return Err(bindings::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    }
    // SAFETY: there is room for the text and its end.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), to, text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}
