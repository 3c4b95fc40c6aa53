//! What asking for a level was worth: which share of what the workload held came, and when.

use serde::{Deserialize, Serialize};

use super::{Estimate, Experience, Learned, PROGRAM, Worth};
use crate::concession::Level;
use crate::units::{Bytes, Monotonic, Share, Span, is_default};

/// What a level gave, by kind of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Granted {
    /// Of host memory: the part of what only it holds.
    #[serde(skip_serializing_if = "is_default")]
    pub host: Experience,
    /// Of GPU memory: the part of what it holds there.
    #[serde(skip_serializing_if = "is_default")]
    pub gpu: Experience,
}

/// Kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    Host,
    Gpu,
}

impl Granted {
    fn of(&self, pool: Pool) -> &Experience {
        match pool {
            Pool::Host => &self.host,
            Pool::Gpu => &self.gpu,
        }
    }

    pub(super) fn each(&self) -> [Experience; 2] {
        [self.host, self.gpu]
    }

    pub(super) fn map(&self, change: impl Fn(Experience) -> Experience) -> Self {
        Self { host: change(self.host), gpu: change(self.gpu) }
    }
}

impl Learned {
    /// The part of what it holds that a level gives, and after what time.
    pub(crate) fn grant(
        &self,
        level: Level,
        pool: Pool,
        prior: (Share, Span),
        now: Monotonic,
    ) -> (Share, Span, u32) {
        let (ratio, lag) = prior;
        let prior = Estimate { worth: Worth { ratio, lag, per_second: Bytes::ZERO }, observations: 0 };
        let known = self.levels.get(&level).map(|it| it.of(pool));
        let Estimate { worth, observations } = known.map_or(prior, |it| it.estimate(prior, PROGRAM, now));
        (worth.ratio, worth.lag, observations)
    }

    /// Asking for a level gave so much of what was held.
    pub(crate) fn granted(
        &mut self,
        level: Level,
        pool: Pool,
        freed: Bytes,
        held: Bytes,
        took: Span,
        now: Monotonic,
    ) {
        let Some(ratio) = Share::of(freed.0.min(held.0), held.0) else { return };
        let outcome = Worth { ratio, lag: took, per_second: Bytes::ZERO };
        let known = self.levels.entry(level).or_default();
        let experience = match pool {
            Pool::Host => &mut known.host,
            Pool::Gpu => &mut known.gpu,
        };
        experience.take(outcome, PROGRAM, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_level_gave_is_half_believed() {
        let (now, prior) = (Monotonic(5), (Share::percent(10), Span::secs(2)));
        let mut learned = Learned::default();
        let grant = |learned: &Learned| learned.grant(Level::Aggressive, Pool::Host, prior, now);
        assert_eq!(grant(&learned), (Share::percent(10), Span::secs(2), 0));
        let (freed, held) = (Bytes::mib(50), Bytes::mib(100));
        learned.granted(Level::Aggressive, Pool::Host, freed, held, Span::secs(1), now);
        assert_eq!(grant(&learned), (Share::percent(30), Span::millis(1500), 1));
        assert_eq!(learned.grant(Level::Aggressive, Pool::Gpu, prior, now).2, 0);
        assert_eq!(learned.grant(Level::Gc, Pool::Host, prior, now).2, 0);
        assert_eq!(learned.newest(), now);
    }
}
