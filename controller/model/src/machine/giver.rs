//! A process that can be asked: how it answers, well or badly.

use std::collections::BTreeMap;

use plimsoll_policy::concession::{Concession, Gains, Level, Offer, Prospect, Wish};
use plimsoll_policy::plan::ActResult;
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::Span;

use super::memory::Tick;
use super::{MIB, TICK_MS, moment};

/// A model is loaded at this pace: a plain SSD.
const LOAD: u64 = 400 * MIB * TICK_MS / 1000;

/// What a process gives when it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giver {
    /// Bytes of anon by level: of the gentle ones once, of an unload until it is restored.
    pub gives: BTreeMap<Level, u64>,
    /// From the asking until they are there.
    pub takes_ms: u64,
    /// How it answers.
    pub manner: Manner,
    /// The level that it is on.
    pub level: Level,
    /// A request loads the model again so long after it was unloaded.
    pub reload_ms: Option<u64>,
    /// Numbers and levels of what it was asked, in order.
    pub asked: Vec<(u64, Level)>,
    /// Bytes that it gave, and has not again.
    out: u64,
    doing: Option<Doing>,
    unloaded_ms: u64,
}

/// How an asking is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it was asked.
    Gives,
    /// It says that it can't.
    Fails,
    /// It says that it has, and has not.
    Lies,
    /// Not at all.
    Silent,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doing {
    /// Number of the wish; `None` where a request is the cause.
    number: Option<u64>,
    level: Level,
    begun_ms: u64,
    had: u64,
}

impl Giver {
    /// One that gives this many MiB on each level, so many milliseconds after it was asked.
    #[must_use]
    pub fn new(gives: &[(Level, u64)], takes_ms: u64) -> Self {
        Self {
            gives: gives.iter().map(|(level, mib)| (*level, mib * MIB)).collect(),
            takes_ms,
            manner: Manner::Gives,
            level: Level::Nothing,
            reload_ms: None,
            asked: Vec::new(),
            out: 0,
            doing: None,
            unloaded_ms: 0,
        }
    }

    /// What it offers.
    pub(crate) fn offer(&self) -> Offer {
        let prospect = |bytes: &u64| Prospect {
            gains: Some(Gains { host: i64::try_from(*bytes).unwrap_or(i64::MAX), ..Gains::default() }),
            takes: Some(Span::millis(self.takes_ms)),
        };
        let levels = self.gives.iter().map(|(level, bytes)| (*level, prospect(bytes))).collect();
        let busy = self.doing.and_then(|doing| doing.number);
        Offer { levels, level: Some(self.level), busy, ..Offer::default() }
    }

    /// Takes a wish; the same number is the same asking.
    pub(crate) fn wish(&mut self, wish: &Wish, now_ms: u64, has: u64) {
        if self.asked.last().is_none_or(|(number, _)| *number != wish.number) {
            self.asked.push((wish.number, wish.level));
            self.doing =
                Some(Doing { number: Some(wish.number), level: wish.level, begun_ms: now_ms, had: has });
        }
    }

    /// From now on it does what it is asked, and no request undoes it; it has little to load again.
    pub fn calm(&mut self) {
        (self.manner, self.reload_ms) = (Manner::Gives, None);
        self.out = self.out.min(MIB);
    }

    /// Whether nothing is under way, or will be by itself.
    pub(crate) fn rests(&self) -> bool {
        self.doing.is_none() && (self.reload_ms.is_none() || self.out == 0)
    }
}

impl Tick<'_> {
    /// Goes on with what a process was asked, or with what a request makes it do.
    pub(crate) fn give(&mut self, i: usize, id: &WorkloadId) {
        let now = self.now;
        let has = self.all[i].anon + self.all[i].swap;
        let Some(giver) = self.all[i].giver.as_mut() else { return };
        if giver.doing.is_none()
            && giver.out > 0
            && giver.reload_ms.is_some_and(|ms| now >= giver.unloaded_ms + ms)
        {
            giver.doing = Some(Doing { number: None, level: Level::Nothing, begun_ms: now, had: has });
        }
        let Some(doing) = giver.doing.filter(|doing| now >= doing.begun_ms + giver.takes_ms) else { return };
        let result = match (giver.manner, doing.number) {
            (Manner::Silent, Some(_)) => return,
            (Manner::Fails, Some(_)) => ActResult::Failed("no".into()),
            (Manner::Lies, Some(_)) => ActResult::Partial,
            _ if doing.level == Level::Nothing => {
                if self.load(i) > 0 {
                    return;
                }
                ActResult::Done
            }
            _ => {
                self.let_go(i, doing.level);
                ActResult::Done
            }
        };
        self.answer(i, id, doing, result);
    }

    /// Loads on; gives what is still out.
    fn load(&mut self, i: usize) -> u64 {
        let wants = self.all[i].giver.as_ref().map_or(0, |giver| giver.out.min(LOAD));
        let got = self.allocate(i, wants);
        let process = &mut *self.all[i];
        process.anon += got;
        let Some(giver) = process.giver.as_mut() else { return 0 };
        giver.out -= got;
        if giver.out == 0 {
            giver.level = Level::Nothing;
        }
        giver.out
    }

    fn let_go(&mut self, i: usize, level: Level) {
        let has = self.all[i].anon + self.all[i].swap;
        let now = self.now;
        let Some(giver) = self.all[i].giver.as_mut() else { return };
        let bytes = giver.gives.get(&level).copied().unwrap_or(0).saturating_sub(giver.out).min(has);
        if level >= Level::Offload {
            giver.out += bytes;
            (giver.level, giver.unloaded_ms) = (level, now);
        } else {
            // Garbage is collected once.
            giver.gives.insert(level, 0);
        }
        self.give_back(i, has - bytes);
    }

    fn answer(&mut self, i: usize, id: &WorkloadId, doing: Doing, result: ActResult) {
        let process = &mut *self.all[i];
        let has = process.anon + process.swap;
        let Some(giver) = process.giver.as_mut() else { return };
        giver.doing = None;
        let Some(number) = doing.number else { return };
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let claims =
            giver.gives.get(&doing.level).map(|bytes| Gains { host: signed(*bytes), ..Gains::default() });
        self.conceded.push(Concession {
            workload: id.clone(),
            number,
            level: doing.level,
            by: "client".into(),
            result,
            begun: moment(doing.begun_ms),
            took: Span::millis(self.now - doing.begun_ms),
            freed: Gains { host: signed(doing.had) - signed(has), ..Gains::default() },
            claimed: claims.filter(|_| giver.manner == Manner::Lies),
        });
    }
}
