//! The guest's side of the demo: one story in one boot, written down for the host to judge.

mod cast;
mod controller;
mod groups;
mod monitor;
mod parse;
mod story;

pub(crate) use story::{Args, run};
