//! One thing that a host may offer.

use serde::{Deserialize, Serialize};

/// One thing that a host may offer, and whether this one does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Its name, which is also the label of its metric.
    pub name: String,
    /// What was found.
    pub detail: String,
    /// What its lack means; `None` where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// What the lack of a capability means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Whether nothing works without it.
    pub required: bool,
    /// What it disables.
    pub lost: String,
    /// What to do about it; empty where nothing can be done on this kernel.
    pub mend: String,
}

impl Capability {
    /// It is there.
    pub fn there(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), detail: detail.into(), missing: None }
    }

    /// It is not, and less works.
    #[must_use]
    pub fn lost(self, lost: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { missing: Some(Missing { required: false, lost: lost.into(), mend: mend.into() }), ..self }
    }

    /// It is not, and nothing works.
    #[must_use]
    pub fn required(self, lost: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { missing: Some(Missing { required: true, lost: lost.into(), mend: mend.into() }), ..self }
    }

    /// Whether it is there.
    #[must_use]
    pub const fn available(&self) -> bool {
        self.missing.is_none()
    }
}
