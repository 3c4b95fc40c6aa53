//! The pure core: `Sample` in, `Plan` out. No I/O, no clock, no logging; time is an argument.
//!
//! One pass is [`pass::step`]: assess, decide, lint. Equal state, configuration and sample give an equal
//! result, bit for bit, which is what makes a journal replayable.
#![forbid(unsafe_code)]

pub mod admission;
pub mod appetite;
pub mod assess;
pub mod concession;
pub mod config;
mod decide;
mod dry;
pub mod eviction;
pub mod gpu;
mod history;
mod holding;
mod join;
pub mod journal;
pub mod learned;
mod lint;
pub mod memory;
pub mod oom;
pub mod pass;
pub mod pause;
mod pending;
pub mod plan;
mod relief;
pub mod replay;
mod roles;
pub mod sample;
pub mod state;
pub mod units;
pub mod voluntary;
pub mod words;
