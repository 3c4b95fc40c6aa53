//! The records that loads write and the demo reads.
#![forbid(unsafe_code)]

pub mod record;
