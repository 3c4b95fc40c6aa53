//! Tests that need root and a real kernel. `cargo xtask vm` builds them and runs each in a process of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what can't go on shall say where, and no more")]

mod act;
mod admission;
mod ask;
mod container;
mod control;
mod daemon;
mod dry;
mod early;
mod exec;
mod gpu;
mod guest;
mod identity;
mod lease;
mod model_server;
mod oom;
mod others;
mod planner;
mod probes;
mod replay;
mod survive;
mod world;
