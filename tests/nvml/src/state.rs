//! What the driver is to know and to answer: a JSON file, replaced as a whole by whoever steers.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nvml_wrapper_sys::bindings::{self, nvmlReturn_t};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What every call answers, in NVIDIA's words without `NVML_ERROR_`, like `driver_not_loaded`; `None` = it works.
    pub error: Option<String>,
    /// Every call waits for as long as this is set, as in a driver that hangs.
    pub hangs: bool,
    /// The GPUs, in the order of their indices.
    pub gpus: Vec<Gpu>,
    /// Errors that were raised, oldest first. Whoever waits is told those that came after it began to.
    pub xids: Vec<Xid>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Its id.
    pub uuid: String,
    /// The model.
    pub name: String,
    /// Its PCI address.
    pub bus_id: String,
    /// Its memory in bytes.
    pub total: u64,
    /// What the driver keeps for itself.
    pub reserved: u64,
    /// What calls for this GPU answer, like `gpu_is_lost`.
    pub error: Option<String>,
    /// It has no memory of its own: that call answers NOT_SUPPORTED.
    pub integrated: bool,
    /// Who uses it.
    pub processes: Vec<Process>,
    /// MIG instances; `None` where MIG is off.
    pub instances: Option<Vec<Instance>>,
}

/// One MIG instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Its id.
    pub uuid: String,
    /// Its memory in bytes.
    pub total: u64,
    /// The GPU instance that it is of.
    pub gpu_instance: u32,
    /// Who uses it.
    pub processes: Vec<Process>,
}

/// A process that uses a GPU, for as long as it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// What it holds.
    pub bytes: u64,
    /// What is said of that.
    pub tells: Tells,
    /// It draws, too: it is in the list of graphics processes as well.
    pub graphics: bool,
    /// It is a client of MPS: it is only in the list of those.
    pub mps: bool,
}

/// What the driver says of a process's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tells {
    /// How much it is.
    #[default]
    Bytes,
    /// `NVML_VALUE_NOT_AVAILABLE`.
    NotAvailable,
    /// Zero, as some drivers in containers.
    Nothing,
}

/// One error that was raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xid {
    /// Id of the GPU.
    pub gpu: String,
    /// The number.
    pub number: u64,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("state file {path}")]
pub struct SteerError {
    /// The file.
    path: PathBuf,
    /// What went wrong.
    #[source]
    source: io::Error,
}

/// The state file of a library.
#[must_use]
pub fn state_of(library: &Path) -> PathBuf {
    let mut path = library.as_os_str().to_owned();
    path.push(".json");
    path.into()
}

/// Reads the state.
///
/// # Errors
/// Where there is none, or it is not one.
pub fn read(path: &Path) -> Result<State, SteerError> {
    let text = fs::read(path).map_err(|source| SteerError { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|error| SteerError { path: path.to_owned(), source: error.into() })
}

/// Changes the state: one at a time, and seen as a whole or not at all. A file that is not there is an empty state.
///
/// # Errors
/// Where the file can't be read or written.
pub fn steer<T>(path: &Path, change: impl FnOnce(&mut State) -> T) -> Result<T, SteerError> {
    let at = |source| SteerError { path: path.to_owned(), source };
    let lock = File::create(path.with_extension("lock")).map_err(at)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| at(errno.into()))?;
    let mut state = if path.exists() { read(path)? } else { State::default() };
    let result = change(&mut state);
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(&state).map_err(|error| at(error.into()))?).map_err(at)?;
    fs::rename(&new, path).map_err(at)?;
    Ok(result)
}

impl State {
    /// The GPU of this id.
    pub fn gpu(&mut self, uuid: &str) -> Option<&mut Gpu> {
        self.gpus.iter_mut().find(|gpu| gpu.uuid == uuid)
    }
}

impl Gpu {
    /// Has a process hold this much, and nothing else; with nothing to hold it is not listed.
    pub fn hold(&mut self, pid: u32, bytes: u64) {
        self.processes.retain(|process| process.pid != pid && is_alive(process.pid));
        if bytes > 0 {
            self.processes.push(Process { pid, bytes, ..Process::default() });
        }
    }

    /// What this process holds.
    #[must_use]
    pub fn held_by(&self, pid: u32) -> u64 {
        self.processes.iter().filter(|process| process.pid == pid).map(|process| process.bytes).sum()
    }
}

/// Whether a process can hold anything. One that waits to be reaped can't.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The number of an error's name.
pub(crate) fn code(name: &str) -> nvmlReturn_t {
    match name {
        "uninitialized" => bindings::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED,
        "not_supported" => bindings::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
        "no_permission" => bindings::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION,
        "driver_not_loaded" => bindings::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED,
        "gpu_is_lost" => bindings::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST,
        "reset_required" => bindings::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED,
        "lib_rm_version_mismatch" => bindings::nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        _ => bindings::nvmlReturn_enum_NVML_ERROR_UNKNOWN,
    }
}
