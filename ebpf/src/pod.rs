//! Tells aya that the shared types are plain data.

use crate::{Counters, Gate, Histogram, HostCounters, Offsets, Settings};

macro_rules! pod {
    ($($type:ty),+) => {$(
        // SAFETY: repr(C) of integers without padding (its size is asserted beside it): any bytes are a value.
        unsafe impl aya::Pod for $type {}
    )+};
}

pod!(Counters, Gate, Histogram, HostCounters, Offsets, Settings);
