//! Asks workloads to give memory back, and to take it again: before anything is frozen or killed.

pub mod way;
