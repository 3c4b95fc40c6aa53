//! What a journal tells afterwards: the same decisions once more, what another policy would have done, and why.

pub mod actions;
pub mod compare;
pub mod course;
mod differ;
pub mod events;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod plot;
pub mod read;
pub mod replay;
pub mod say;
pub mod wall;
