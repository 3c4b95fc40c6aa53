//! What is known of the daemon before the first pass, and does not change after it.

use std::sync::Arc;

use crate::check::Capability;
use crate::control::Counts;
use crate::kubernetes::{Contact, tell};
use crate::sense::gpu::Xids;

/// Facts about this daemon on this host.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// What the host offers, hooks of the eBPF programs included.
    pub capabilities: Vec<Capability>,
    /// Process that releases everything if this one dies.
    pub guardian: Option<u32>,
    /// Errors that NVIDIA's driver reports, counted as they come.
    pub xids: Option<Arc<Xids>>,
    /// What is counted at the control socket.
    pub control: Arc<Counts>,
    /// How it stands with the API server, on a node of a cluster.
    pub kubernetes: Option<Contact>,
    /// What is counted of telling the API server; none where there is none to be told.
    pub telling: Option<Arc<tell::Counts>>,
}
