//! A small random generator with a fixed seed, so that every run touches the same pages in the same order.

/// Marsaglia's xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    /// Different seeds give different sequences; the same seed always the same.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not zero. The bias of the multiplication is far below what a load notices.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// `words` random words.
    pub(crate) fn words(&mut self, words: usize) -> Vec<u64> {
        (0..words).map(|_| self.next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn stays_below_the_end_and_repeats() {
        let draw = || {
            let mut random = Random::new(7);
            (0..1000).map(|_| random.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        assert!((0..10).all(|n| draw().contains(&n)));
        assert!(draw().iter().all(|n| *n < 10));
    }
}
