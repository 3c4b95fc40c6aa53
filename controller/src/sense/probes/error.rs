//! What can go wrong with the eBPF programs.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;

use super::btf::BtfError;

/// Why there are no probes, or why one of their maps failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    /// The kernel does not describe its types.
    #[error("the kernel has no BTF at {path} (CONFIG_DEBUG_INFO_BTF): eBPF programs can't be attached")]
    NoBtf {
        /// Where it should be.
        path: &'static str,
        /// Why it could not be read.
        #[source]
        source: io::Error,
    },
    /// The description is damaged.
    #[error("cannot read the kernel's BTF")]
    BadBtf(#[from] BtfError),
    /// We may not load programs.
    #[error("not permitted to load eBPF programs: CAP_BPF and CAP_PERFMON are needed (or CAP_SYS_ADMIN)")]
    NotPermitted,
    /// The kernel refuses the object.
    #[error("cannot load the eBPF programs")]
    Load(#[source] Box<EbpfError>),
    /// It loaded, and no hook could be attached.
    #[error("no eBPF hook can be attached here; the first said: {0}")]
    NoHook(String),
    /// The embedded object is of another version.
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
    /// The number of CPUs is not to be had.
    #[error("cannot read {path}")]
    Cpus {
        /// Which file.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A map could not be used.
    #[error("eBPF map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A map could not be read or written.
    #[error("eBPF map {map}")]
    Read {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The gate can't be attached.
    #[error("the gate can't be attached: {0}")]
    Gate(String),
}

impl ProbesError {
    pub(super) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { map, source: Box::new(source) }
    }

    pub(super) fn values(map: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Read { map, source }
    }
}
