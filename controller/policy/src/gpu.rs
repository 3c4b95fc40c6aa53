//! GPUs: their ids and readings.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Monotonic, is_default};

/// A GPU: the UUID that the driver gives it (`GPU-...`, of a MIG instance `MIG-...`), or its PCI address where it gives none. As a
/// resource it is written `gpu:<id>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct GpuId(pub Arc<str>);

impl GpuId {
    /// In a reservation: the device with the most room, whichever it is. No device has this id.
    pub const ANY: &'static str = "any";

    /// Whether it stands for the device with the most room.
    #[must_use]
    pub fn is_any(&self) -> bool {
        &*self.0 == Self::ANY
    }
}

impl fmt::Display for GpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<GpuId> for String {
    fn from(id: GpuId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl From<String> for GpuId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<&str> for GpuId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl Gpu {
    /// Whether its memory is a resource of its own that something can be freed of.
    #[must_use]
    pub const fn is_resource(&self) -> bool {
        !self.unified && !self.lost
    }
}

/// One GPU's readings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// For people: the model's name.
    pub name: String,
    /// When it was read; zero = with the sample. A driver is not asked in every pass, and between two readings nothing grows.
    #[serde(skip_serializing_if = "is_default")]
    pub at: Monotonic,
    /// Its memory; `None` where it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
    /// What of it is in use, by whomever, with what the driver keeps for itself; `None` where it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<Bytes>,
    /// Its memory is the host's: it is no resource of its own, or bytes would be counted twice.
    #[serde(skip_serializing_if = "is_default")]
    pub unified: bool,
    /// It fell off the bus or its driver is gone: nothing can be freed there, and nothing is known of it.
    #[serde(skip_serializing_if = "is_default")]
    pub lost: bool,
}
