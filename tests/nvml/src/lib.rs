//! A stand-in for NVIDIA's management library: loaded by the loader as the real one is, and steered by a file beside it, which has
//! the same name and `.json`.
#![expect(unreachable_pub, reason = "the callers of most functions are found by the loader")]

mod device;
mod event;
mod handle;
mod library;
mod processes;
mod state;

pub use state::{Gpu, Instance, Process, State, SteerError, Tells, Xid, read, state_of, steer};

/// The name by which the loader is asked for it.
pub const NAME: &str = "libnvidia-ml.so.1";
