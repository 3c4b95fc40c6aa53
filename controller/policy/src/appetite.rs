//! Whether somebody wants more memory than he has: his use grows, or an allocation failed.
//!
//! A fall is the opposite of an appetite, and standing still is none, however much one holds.
//! One of the protected that is refused again and again is short of memory, however much of it is free.

use serde::{Deserialize, Serialize};

use crate::plan::{Evidence, Tier};
use crate::sample::WorkloadId;
use crate::units::{Bytes, Monotonic, Span, is_default};

/// What is remembered of somebody's use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Appetite {
    /// The least that was in use since a while, and since when: what growth is measured from.
    #[serde(skip_serializing_if = "is_default")]
    pub least: Option<(Monotonic, Bytes)>,
    /// When it had last grown.
    #[serde(skip_serializing_if = "is_default")]
    pub grew: Option<Monotonic>,
    /// When an allocation last failed.
    #[serde(skip_serializing_if = "is_default")]
    pub failed: Option<Monotonic>,
}

/// In which way somebody wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// Its use grows.
    Grows,
    /// An allocation failed.
    Failed,
    /// A reservation waits.
    Waits,
}

/// What counts as growth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Now.
    pub(crate) at: Monotonic,
    /// By so much.
    pub(crate) by: Bytes,
    /// Within this time; what takes longer is drift.
    pub(crate) within: Span,
}

impl Appetite {
    /// What he had before anybody looked, unless that is known better.
    pub(crate) fn start(&mut self, used: Bytes, at: Monotonic) {
        self.least.get_or_insert((at, used));
    }

    /// Takes a reading.
    pub(crate) fn take(&mut self, used: Bytes, step: Step) {
        let here = (step.at, used);
        let Some((since, least)) = self.least else {
            self.least = Some(here);
            return;
        };
        if used > least && used.saturating_sub(least) >= step.by {
            (self.grew, self.least) = (Some(step.at), Some(here));
        } else if used < least || step.at.since(since) >= step.within {
            self.least = Some(here);
        }
    }

    /// An allocation failed.
    pub(crate) fn fail(&mut self, at: Monotonic) {
        self.failed = Some(at);
    }

    /// Whether it grew so lately.
    pub(crate) fn grows(&self, at: Monotonic, within: Span) -> bool {
        self.grew.is_some_and(|grew| at.since(grew) < within)
    }

    /// Whether an allocation failed so lately.
    pub(crate) fn fails(&self, at: Monotonic, within: Span) -> bool {
        self.failed.is_some_and(|failed| at.since(failed) < within)
    }

    /// Which of both holds, where one does.
    pub(crate) fn claim(&self, at: Monotonic, within: Span) -> Option<Claim> {
        let failed = self.fails(at, within).then_some(Claim::Failed);
        failed.or_else(|| self.grows(at, within).then_some(Claim::Grows))
    }

    /// Whether either holds.
    pub(crate) fn lasts(&self, at: Monotonic, within: Span) -> bool {
        self.grows(at, within) || self.fails(at, within)
    }
}

/// Allocations that failed one after the other. The first may be one that a program makes up for itself, by its own caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// Whose the last one was.
    pub by: WorkloadId,
    /// When the first one failed.
    pub since: Monotonic,
    /// When the last one did.
    pub last: Monotonic,
    /// How many.
    pub times: u32,
    /// What was free when the last one failed: more was wanted.
    pub free: Bytes,
}

/// So long after the last one nobody is taken to try any more.
const TRIES: Span = Span::secs(10);
/// Refused for so long, it is not made up for by what others were asked for a moment ago.
const INSISTS: Span = Span::secs(2);

impl Refusals {
    /// One more, or the first one of a new series.
    pub(crate) fn and(before: Option<Self>, by: &WorkloadId, free: Bytes, at: Monotonic) -> Self {
        let before = before.filter(|it| at.since(it.last) < TRIES);
        let (since, times) = before.map_or((at, 0), |it| (it.since, it.times));
        Self { by: by.clone(), since, last: at, times: times.saturating_add(1), free }
    }

    /// Whether it still lacks what it was refused, as far as that can be seen.
    pub(crate) fn stands(&self, free: Bytes, step: Step, of: Option<&Appetite>) -> bool {
        let got = of.and_then(|it| it.grew).is_some_and(|grew| grew > self.last);
        step.at.since(self.last) < TRIES && !got && free < self.free + step.by
    }

    /// In words.
    pub(crate) fn evidence(&self) -> Evidence {
        Evidence::Insists { by: self.by.clone(), times: self.times, within: self.last.since(self.since) }
    }

    /// How short the resource is for it: not at all after the first one.
    pub(crate) fn tier(&self) -> Tier {
        match self.times {
            0 | 1 => Tier::Normal,
            _ if self.last.since(self.since) < INSISTS => Tier::Critical,
            _ => Tier::Emergency,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings a second apart, in MiB; in which seconds it counts as growing within the last three.
    fn check(readings: &[u64], expected: &[usize]) {
        let (mut appetite, within) = (Appetite::default(), Span::secs(3));
        let mut grows = Vec::new();
        for (second, mib) in readings.iter().enumerate() {
            let at = Monotonic(0) + Span::secs(second as u64 + 100);
            appetite.take(Bytes::mib(*mib), Step { at, by: Bytes::mib(10), within });
            grows.extend(appetite.lasts(at, within).then_some(second));
        }
        assert_eq!(grows, expected, "{readings:?}");
    }

    #[test]
    fn growth_is_an_appetite_and_nothing_else_is() {
        check(&[990, 990, 990, 990], &[]);
        check(&[500, 515, 515, 515, 515], &[1, 2, 3]);
        check(&[500, 400, 300, 200], &[]);
        check(&[500, 400, 405, 411, 411], &[3, 4]);
        check(&[500, 502, 504, 506, 508, 510, 512, 514], &[]);
        check(&[500, 504, 508, 512], &[3]);
    }

    #[test]
    fn whoever_was_not_there_began_with_nothing() {
        let (mut appetite, at) = (Appetite::default(), Monotonic(5));
        appetite.start(Bytes::ZERO, at);
        appetite.take(Bytes::mib(10), Step { at, by: Bytes::mib(10), within: Span::secs(3) });
        assert!(appetite.grows(at, Span::secs(3)));
        assert!(!appetite.fails(at, Span::secs(3)));
        appetite.fail(at);
        assert!(appetite.fails(at, Span::secs(3)));
    }
}
