//! Kubernetes: pods of this node become workloads, and the API server is told what is done to them.
//!
//! Nothing here is waited for by a pass, and nothing here is needed for one: with the API server away, the last known pods and
//! the cgroup tree itself say who is there.

pub mod pods;
pub mod read;

pub use pods::PodRef;
