//! What actions on a workload were worth, by their outcomes: how much of what was promised came, how fast, after what delay.
//!
//! Each is a mean that stands beside a prior. The confidence says how much of an estimate is the mean: half after one
//! outcome, three quarters after two, and half as much again for every half-life without one. So one bad outcome is half believed, and
//! what is learned is never final.

mod levels;

pub use levels::Granted;
pub(crate) use levels::Pool;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assess::{per, time_for};
use crate::concession::Level;
use crate::sample::Rung;
use crate::units::{Bytes, Monotonic, Share, Span};

/// Half-life of what depends on the swap device and on what the workload just does: reclaim.
const CONDITIONS: Span = Span::secs(15 * 60);
/// Half-life of what depends on how the program is built: its threads, its drivers, what it shares.
const PROGRAM: Span = Span::secs(24 * 3600);
/// A kill may give back more than was promised of shared memory, which is promised by half. No outcome counts for more than this.
const MOST: Share = Share::percent(200);
/// From the decision to the first signal: another look and a busy machine. No outcome has this in it.
const DECISION: Span = Span::millis(100);
/// A reclaim that takes this long is broken off.
const GIVEN_UP: Span = Span::secs(2);
/// Rest after a fruitless reclaim; doubles with each further one.
const REST: Span = Span::millis(500);
/// It doubles at most this often.
const RESTS: u32 = 6;
/// Less freed than this part of what was asked is fruitless.
const FRUITLESS: Share = Share::percent(10);

/// What an action is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worth {
    /// What comes of what was promised.
    pub ratio: Share,
    /// Bytes per second, once it comes.
    pub per_second: Bytes,
    /// Until it begins to.
    pub lag: Span,
}

impl Worth {
    /// All of what looks reclaimable, at the pace of a plain SSD; the write itself reclaims, so nothing is waited for.
    const RECLAIM: Self = Self { ratio: Share::ONE, per_second: Bytes::mib(200), lag: Span::ZERO };
    /// 3 to 17 ms from the write to `frozen 1`, measured for 1 to 512 threads on an emulated machine.
    const FREEZE: Self = Self { lag: Span::millis(10), ..Self::RECLAIM };
    /// All that it holds alone, at the pace of exits: 0.25 to 0.32 s for 400 MiB on an emulated machine, plain ones are
    /// five times as fast. Before it a second look, signals, a loaded machine.
    const KILL: Self = Self { ratio: Share::ONE, per_second: Bytes::mib(1024), lag: Span::millis(400) };

    /// Between `self` and `other`, with this much of `other`.
    fn towards(self, other: Self, share: Share) -> Self {
        if share == Share::ZERO {
            return self;
        }
        let mix = |a: u64, b: u64| {
            let (with, without) = (u128::from(share.0), u128::from(Share::ONE.0 - share.0.min(Share::ONE.0)));
            u64::try_from((u128::from(a) * without + u128::from(b) * with) / u128::from(Share::ONE.0))
                .unwrap_or(u64::MAX)
        };
        Self {
            ratio: Share(u32::try_from(mix(self.ratio.0.into(), other.ratio.0.into())).unwrap_or(u32::MAX)),
            per_second: Bytes(mix(self.per_second.0, other.per_second.0)),
            lag: Span(mix(self.lag.0, other.lag.0)),
        }
    }
}

/// What is to be expected of an action, and on how many outcomes that rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Estimate {
    pub(crate) worth: Worth,
    pub(crate) observations: u32,
}

impl Estimate {
    /// What of these promised bytes comes within the time. What takes longer to begin yields nothing in time.
    pub(crate) fn within(&self, promised: Bytes, within: Span) -> Bytes {
        let left = Span(within.0.saturating_sub(self.worth.lag.0));
        self.in_the_end(promised).min(per(self.worth.per_second, left))
    }

    /// What of these promised bytes comes at all.
    pub(crate) fn in_the_end(&self, promised: Bytes) -> Bytes {
        promised.share(self.worth.ratio)
    }

    /// Until so many bytes are there; for ever where none come.
    pub(crate) fn takes(&self, bytes: Bytes) -> Span {
        let flow =
            if bytes == Bytes::ZERO { Some(Span::ZERO) } else { time_for(bytes, self.worth.per_second) };
        Span(self.worth.lag.0.saturating_add(flow.unwrap_or(Span(u64::MAX)).0))
    }
}

/// Outcomes of one action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Experience {
    /// Mean of the outcomes, the weight on the newest.
    pub mean: Worth,
    /// How much of an estimate was the mean when the last outcome came.
    pub confidence: Share,
    /// How many there were.
    pub seen: u32,
    /// When the last one came.
    pub at: Monotonic,
}

impl Experience {
    fn estimate(&self, prior: Estimate, half_life: Span, now: Monotonic) -> Estimate {
        let confidence = self.faded(half_life, now.since(self.at));
        if confidence == Share::ZERO {
            return prior;
        }
        Estimate { worth: prior.worth.towards(self.mean, confidence), observations: self.seen }
    }

    fn take(&mut self, outcome: Worth, half_life: Span, now: Monotonic) {
        let confidence = self.faded(half_life, now.since(self.at));
        let of_new = Share::of(Share::ONE.0.into(), u64::from(confidence.0) + u64::from(Share::ONE.0));
        *self = Self {
            mean: self.mean.towards(outcome, of_new.unwrap_or(Share::ONE)),
            confidence: Share(confidence.0.midpoint(Share::ONE.0)),
            seen: if confidence == Share::ZERO { 1 } else { self.seen.saturating_add(1) },
            at: now,
        };
    }

    /// The confidence after this long without an outcome.
    fn faded(&self, half_life: Span, age: Span) -> Share {
        if self.confidence == Share::ZERO {
            return Share::ZERO;
        }
        let (halvings, rest) = (age.0 / half_life.0, age.0 % half_life.0);
        let whole = u32::try_from(halvings).ok().and_then(|n| self.confidence.0.checked_shr(n)).unwrap_or(0);
        let part = u128::from(whole) * u128::from(rest) / u128::from(half_life.0) / 2;
        Share(whole.saturating_sub(u32::try_from(part).unwrap_or(u32::MAX)))
    }

    /// The same on a clock that shows `now`, after this long.
    fn aged(self, half_life: Span, age: Span, now: Monotonic) -> Self {
        let confidence = self.faded(half_life, age);
        if confidence == Share::ZERO { Self::default() } else { Self { confidence, at: now, ..self } }
    }
}

/// What actions on one workload were worth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// `memory.reclaim` while it runs.
    pub trim: Experience,
    /// A step of `memory.high`.
    pub throttle: Experience,
    /// Until `frozen 1`.
    pub freeze: Experience,
    /// `memory.reclaim` while it is frozen.
    pub hibernate: Experience,
    /// `cgroup.kill`, until it is empty.
    pub kill: Experience,
    /// Asking it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub levels: BTreeMap<Level, Granted>,
}

impl Learned {
    /// What a rung is worth. Where reclaim by one rung is not known, what trimming has shown of the swap device stands in.
    pub(crate) fn on(&self, rung: Rung, now: Monotonic) -> Estimate {
        let prior = |worth| Estimate { worth, observations: 0 };
        let trim = || self.trim.estimate(prior(Worth::RECLAIM), CONDITIONS, now);
        match rung {
            Rung::Free | Rung::Offload => Estimate::default(),
            Rung::Trim => trim(),
            Rung::Throttle => self.throttle.estimate(trim(), CONDITIONS, now),
            Rung::Freeze => self.frozen(self.hibernate.estimate(trim(), CONDITIONS, now), now),
            Rung::Kill => {
                let mut kill = self.kill.estimate(prior(Worth::KILL), PROGRAM, now);
                kill.worth.lag = kill.worth.lag.max(DECISION);
                kill
            }
        }
    }

    /// Reclaim that has to wait for the freeze.
    fn frozen(&self, reclaim: Estimate, now: Monotonic) -> Estimate {
        let prior = Estimate { worth: Worth::FREEZE, observations: 0 };
        let freeze = self.freeze.estimate(prior, PROGRAM, now);
        let lag = Span(reclaim.worth.lag.0.saturating_add(freeze.worth.lag.0));
        let observations = reclaim.observations.max(freeze.observations);
        Estimate { worth: Worth { lag, ..reclaim.worth }, observations }
    }

    /// A reclaim of so much freed so much: of a running workload, of a throttled or of a frozen one.
    pub(crate) fn reclaimed(&mut self, rung: Rung, asked: Bytes, freed: Bytes, took: Span, now: Monotonic) {
        let Some(ratio) = Share::of(freed.0.min(asked.0), asked.0) else { return };
        // Where time ran out, it is the speed that was too low; what would have come is not known.
        let known = self.on(rung, now).worth.ratio.min(Share::ONE);
        let ratio = if took >= GIVEN_UP && freed < asked { known } else { ratio };
        let outcome = Worth { ratio, per_second: speed(freed, took), lag: Span::ZERO };
        let experience = match rung {
            Rung::Throttle => &mut self.throttle,
            Rung::Freeze => &mut self.hibernate,
            _ => &mut self.trim,
        };
        experience.take(outcome, CONDITIONS, now);
    }

    /// A freeze took so long; or it was given up after that.
    pub(crate) fn froze(&mut self, took: Span, now: Monotonic) {
        self.freeze.take(Worth { lag: took, ..Worth::FREEZE }, PROGRAM, now);
    }

    /// A kill that had promised so much freed so much. What it took beyond the pace of exits was delay.
    pub(crate) fn killed(&mut self, promised: Bytes, freed: Option<Bytes>, took: Span, now: Monotonic) {
        let known = self.on(Rung::Kill, now).worth.ratio;
        let ratio = freed.and_then(|freed| Share::of(freed.0, promised.0)).map_or(known, |r| r.min(MOST));
        let flow = time_for(freed.unwrap_or_default(), Worth::KILL.per_second).unwrap_or_default();
        let lag = Span(took.0.saturating_sub(flow.0));
        self.kill.take(Worth { ratio, lag, ..Worth::KILL }, PROGRAM, now);
    }

    /// The last time that anything was learned.
    pub(crate) fn newest(&self) -> Monotonic {
        self.all().map(|e| e.at).max().unwrap_or_default()
    }

    /// The same on a clock that shows `now`, where `then` is `away` ago.
    pub(crate) fn moved(&self, then: Monotonic, away: Span, now: Monotonic) -> Self {
        let Self { trim, throttle, freeze, hibernate, kill, ref levels } = *self;
        let moved = |e: Experience, half_life| {
            e.aged(half_life, Span(then.since(e.at).0.saturating_add(away.0)), now)
        };
        Self {
            trim: moved(trim, CONDITIONS),
            throttle: moved(throttle, CONDITIONS),
            freeze: moved(freeze, PROGRAM),
            hibernate: moved(hibernate, CONDITIONS),
            kill: moved(kill, PROGRAM),
            levels: levels.iter().map(|(level, it)| (*level, it.map(|e| moved(e, PROGRAM)))).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = Experience> + '_ {
        let Self { trim, throttle, freeze, hibernate, kill, ref levels } = *self;
        let done = [trim, throttle, freeze, hibernate, kill].into_iter();
        done.chain(levels.values().flat_map(Granted::each))
    }
}

/// Less than a millisecond can't be told from none.
fn speed(freed: Bytes, took: Span) -> Bytes {
    let speed = u128::from(freed.0) * 1_000_000_000 / u128::from(took.0.max(1_000_000));
    Bytes(u64::try_from(speed).unwrap_or(u64::MAX))
}

/// Reclaim that brought nothing lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rest {
    /// Fruitless reclaims in a row.
    pub fruitless: u32,
    /// Not worth another try before this.
    pub until: Monotonic,
}

impl Rest {
    /// Counts a reclaim. Each fruitless one is followed by a longer rest.
    pub(crate) fn take(&mut self, asked: Bytes, freed: Bytes, at: Monotonic) {
        if freed >= asked.share(FRUITLESS) {
            self.fruitless = 0;
            return;
        }
        self.until = at + Span(REST.0 << self.fruitless.min(RESTS));
        self.fruitless = (self.fruitless + 1).min(RESTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Monotonic = Monotonic(1_000_000_000_000);

    fn mib(n: u64) -> Bytes {
        Bytes::mib(n)
    }

    /// What a rung is worth, in per cent, MiB per second and milliseconds.
    fn worth(learned: &Learned, rung: Rung, now: Monotonic) -> (u32, u64, u64) {
        let Worth { ratio, per_second, lag } = learned.on(rung, now).worth;
        (ratio.0 / 10_000, per_second.0 >> 20, lag.0 / 1_000_000)
    }

    #[test]
    fn an_outcome_is_half_believed() {
        let mut learned = Learned::default();
        assert_eq!(worth(&learned, Rung::Trim, NOW), (100, 200, 0));
        learned.reclaimed(Rung::Trim, mib(64), mib(32), Span::secs(1), NOW);
        assert_eq!(worth(&learned, Rung::Trim, NOW), (75, 116, 0));
        learned.reclaimed(Rung::Trim, mib(64), mib(32), Span::secs(1), NOW);
        assert_eq!(worth(&learned, Rung::Trim, NOW), (62, 74, 0));
        assert_eq!(learned.on(Rung::Trim, NOW).observations, 2);
    }

    #[test]
    fn a_slow_device_is_slow_and_not_fruitless() {
        let mut learned = Learned::default();
        learned.reclaimed(Rung::Trim, mib(64), mib(20), Span::secs(2), NOW);
        assert_eq!(worth(&learned, Rung::Trim, NOW), (100, 105, 0));
    }

    #[test]
    fn what_is_learned_fades() {
        let mut learned = Learned::default();
        learned.reclaimed(Rung::Trim, mib(64), Bytes::ZERO, Span::secs(1), NOW);
        let after = |minutes: u64| worth(&learned, Rung::Trim, NOW + Span::secs(60 * minutes)).0;
        assert_eq!([after(0), after(15), after(30), after(60), after(100_000)], [50, 75, 87, 96, 100]);
    }

    #[test]
    fn frozen_reclaim_begins_with_what_trimming_showed() {
        let mut learned = Learned::default();
        for _ in 0..8 {
            learned.reclaimed(Rung::Trim, mib(10), mib(10), Span::secs(1), NOW);
        }
        assert_eq!(worth(&learned, Rung::Freeze, NOW), (100, 10, 10));
        learned.froze(Span::millis(90), NOW);
        assert_eq!(worth(&learned, Rung::Freeze, NOW).2, 50);
    }

    #[test]
    fn a_kill_that_leaves_shared_memory_behind_promises_less_the_next_time() {
        let mut learned = Learned::default();
        assert_eq!(worth(&learned, Rung::Kill, NOW), (100, 1024, 400));
        learned.killed(mib(200), Some(mib(100)), Span::millis(300), NOW);
        assert_eq!(worth(&learned, Rung::Kill, NOW), (75, 1024, 301));
        learned.killed(mib(200), Some(mib(5000)), Span::ZERO, NOW);
        assert_eq!(
            worth(&learned, Rung::Kill, NOW),
            (137, 1024, 150),
            "no outcome counts for more than twice"
        );
        learned.killed(mib(200), None, Span::secs(5), NOW);
        assert_eq!(
            worth(&learned, Rung::Kill, NOW),
            (137, 1024, 2575),
            "what could not be measured is no zero"
        );
    }

    #[test]
    fn what_takes_longer_than_there_is_yields_nothing() {
        let kill = Learned::default().on(Rung::Kill, NOW);
        assert_eq!(kill.within(mib(100), Span::millis(400)), Bytes::ZERO);
        assert_eq!(kill.within(mib(100), Span::secs(1)), mib(100));
        assert_eq!(kill.takes(mib(1024)), Span::millis(1400));
        assert_eq!(Estimate::default().takes(mib(1)), Span(u64::MAX));
    }

    #[test]
    fn fruitless_reclaim_rests_longer_each_time() {
        let mut rest = Rest::default();
        let mut rests = Vec::new();
        for _ in 0..3 {
            rest.take(mib(64), Bytes::ZERO, Monotonic(0));
            rests.push(rest.until.0 / 1_000_000);
        }
        assert_eq!(rests, [500, 1000, 2000]);
        rest.take(mib(64), mib(64), Monotonic(0));
        assert_eq!(rest.fruitless, 0);
    }

    #[test]
    fn a_restart_costs_no_more_than_its_time() {
        let mut learned = Learned::default();
        learned.reclaimed(Rung::Trim, mib(64), Bytes::ZERO, Span::secs(1), NOW);
        let minute = Span::secs(60);
        let later = learned.moved(NOW + minute, Span::secs(14 * 60), Monotonic(5));
        assert_eq!(worth(&later, Rung::Trim, Monotonic(5)).0, 75);
        assert_eq!(learned.moved(NOW, Span(u64::MAX), Monotonic(5)), Learned::default());
    }
}
