//! The policy driven against a modelled machine: properties that hold in every world, and scenarios read as behaviour.
#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

mod admission;
mod arbitrary;
mod asking;
mod asking_gpu;
mod behaviour;
mod calm;
mod corpus;
mod dry;
mod evict;
mod gpu;
mod gpu_admission;
mod gpu_evict;
mod gpu_kill;
mod gpu_lives;
mod invariants;
mod lives;
mod pause;
mod planner;
mod properties;
mod restart;
mod scenarios;
mod stories;
mod tiers;
mod transcript;
mod traps;
mod wording;
mod worlds;
