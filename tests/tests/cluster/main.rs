//! Tests with a real control plane, which `cargo xtask test --cluster` builds, or finds built.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what can't go on shall say where, and no more")]

mod bystander;
mod evicting;
mod harness;
mod instance;
mod manifests;
mod meter;
mod pods;
mod rights;
mod scale;
mod telling;
mod watching;
mod world;
