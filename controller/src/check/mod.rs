//! What this host offers, what is missing, what that disables, and how to mend it.

mod capability;

pub use capability::{Capability, Missing};
