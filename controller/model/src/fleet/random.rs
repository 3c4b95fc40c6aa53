//! Chance with a seed. Integers only; every tenant has a stream of its own, so that what becomes of one does not change
//! what the others want.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng as _;

/// A stream of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Random(Pcg32);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(Pcg32::new(seed, stream))
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        let width = most.saturating_sub(least).saturating_add(1);
        let scaled = (u128::from(self.0.next_u64()) * u128::from(width)) >> 64;
        least + u64::try_from(scaled).unwrap_or(0)
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.between(1, times) == 1
    }

    /// So many per mille of `whole`.
    pub(crate) fn part(&mut self, whole: u64, least: u64, most: u64) -> u64 {
        whole * self.between(least, most) / 1000
    }
}
