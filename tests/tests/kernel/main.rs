//! Tests that need root and a real kernel. `cargo xtask vm` builds them and runs each in a process of its own.
mod act;
mod daemon;
mod guest;
mod identity;
mod probes;
mod survive;
mod world;
