//! What the tests that need a real kernel share.
pub mod guest;
