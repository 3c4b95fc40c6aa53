//! What the guest programs share.
