//! Anonymous memory that grows at a rate, is re-touched at random, and can be given back.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::memory::{MIB, PAGE, Region};
use crate::random::Random;
use crate::time::{nanos, now_ns, sleep_until_ns};

/// How often growth proceeds.
const TICK: Duration = Duration::from_millis(10);
/// Random words at the start of each page: half of it, so that a compressor saves what it saves on real tensors.
const CONTENT_WORDS: usize = PAGE / 16;

/// A reservation of which the first pages are in use.
pub(crate) struct Heap {
    region: Region,
    used: AtomicUsize,
}

impl Heap {
    /// Reserves `mib` and uses nothing of it.
    pub(crate) fn reserve(mib: usize) -> io::Result<Self> {
        Ok(Self { region: Region::anonymous((mib * MIB).max(PAGE))?, used: AtomicUsize::new(0) })
    }

    /// Mebibytes in use.
    pub(crate) fn used_mib(&self) -> usize {
        self.used.load(Ordering::Acquire) * PAGE / MIB
    }

    /// Uses and fills pages up to `mib`, at most `rate_mib` a second, or as fast as it goes. It does not catch up
    /// what a stall cost: the rate is an upper bound at every moment.
    pub(crate) fn grow(&self, mib: usize, rate_mib: Option<usize>) {
        let mut random = Random::new(1);
        let content = random.words(CONTENT_WORDS * 2);
        let end = (mib * MIB / PAGE).min(self.region.pages());
        let per_tick = rate_mib.map_or(usize::MAX, |rate| (rate * MIB / PAGE / 100).max(1));
        let mut due = now_ns();
        let mut page = self.used.load(Ordering::Acquire);
        while page < end {
            for next in page..end.min(page.saturating_add(per_tick)) {
                let from = random.below(CONTENT_WORDS);
                self.region.fill(next, &content[from..from + CONTENT_WORDS]);
                self.used.store(next + 1, Ordering::Release);
            }
            page = self.used.load(Ordering::Acquire);
            due = now_ns().max(due + nanos(TICK));
            if rate_mib.is_some() {
                sleep_until_ns(due);
            }
        }
    }

    /// Makes `pages` random pages in use dirty.
    pub(crate) fn touch(&self, random: &mut Random, pages: usize) {
        let used = self.used.load(Ordering::Acquire);
        if used > 0 {
            for _ in 0..pages {
                self.region.dirty(random.below(used));
            }
        }
    }

    /// Gives back what is beyond `mib`.
    pub(crate) fn shrink(&self, mib: usize) -> io::Result<()> {
        let first = (mib * MIB / PAGE).min(self.region.pages());
        self.used.fetch_min(first, Ordering::AcqRel);
        self.region.release_from(first)
    }

    /// Has the kernel allocate everything that is reserved, in one call.
    pub(crate) fn populate(&self) -> io::Result<()> {
        self.region.populate(0, self.region.pages())?;
        self.used.store(self.region.pages(), Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Heap;
    use crate::random::Random;

    #[test]
    fn grows_touches_and_shrinks() {
        let heap = Heap::reserve(4).unwrap();
        heap.grow(3, None);
        assert_eq!(heap.used_mib(), 3);
        heap.touch(&mut Random::new(2), 100);
        heap.shrink(1).unwrap();
        assert_eq!(heap.used_mib(), 1);
        heap.populate().unwrap();
        assert_eq!(heap.used_mib(), 4);
        heap.grow(9, Some(1000));
        assert_eq!(heap.used_mib(), 4, "the reservation is the limit");
    }
}
