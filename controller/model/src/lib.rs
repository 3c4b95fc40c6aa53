//! A modelled machine for the real policy to run against: memory is conserved, reclaim takes time, brakes brake.
//!
//! Time is virtual and arithmetic is that of integers, so that a run tells the same on every machine.
#![forbid(unsafe_code)]

pub mod fleet;
pub mod judge;
pub mod machine;

pub use machine::{Habit, Machine, Process};
