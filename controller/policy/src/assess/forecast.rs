//! When the memory will be exhausted, as far as that can be said, and who says so.
//!
//! Several sources, of which the most pessimistic counts. `MemAvailable` is the one that sees everything; the others see
//! what it can't: growth that is hidden by what we take back meanwhile, growth that swap absorbs until it is full, and
//! faults that have not been charged yet.

use serde::{Deserialize, Serialize};

use super::observe::positive;
use super::{Memory, time_for};
use crate::history::{Course, Trend};
use crate::join::join;
use crate::sample::{Rung, Sample, Workload};
use crate::state::{State, Track};
use crate::units::{Bytes, Monotonic, Share, Span};

/// A rate of less than this part of the memory per second is noise: it would take longer than four minutes.
const NOISE_PART: u64 = 256;
/// The long window counts beside a short one that still falls by this part of its rate at least: after a burst that
/// has ended, a trickle is left now and then, which the rate of the burst says nothing about.
const TRICKLE: u64 = 4;
/// Bytes that a fault brings, at least. Huge pages bring more, and are seen in `memory.current`.
const PAGE: u64 = 4096;

/// How long the memory will last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forecast {
    /// Nobody can say.
    Unknown(Unknown),
    /// It does not fill, or so slowly that it takes minutes.
    NotFilling,
    /// It is exhausted at the present rate.
    In {
        /// After this long.
        left: Span,
        /// By what is seen here.
        source: Source,
    },
}

/// Why there is no forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// There are no two readings yet that are far enough apart.
    FewReadings,
    /// A reading is missing, or a long time without readings lies between the last two.
    Gap,
    /// The readings go back and forth.
    Disagree,
}

/// What a forecast was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `MemAvailable` over the last tenths of a second.
    Available,
    /// `MemAvailable` over the last seconds.
    AvailableLong,
    /// `memory.current` of the workloads: growth that our own reclaim hides for the moment.
    Growth,
    /// Page faults, counted while the gate is armed.
    Faults,
    /// RAM and swap together: growth that goes to swap until that is full.
    Swap,
    /// What a GPU's driver says is free.
    Free,
}

impl Default for Forecast {
    fn default() -> Self {
        Self::Unknown(Unknown::FewReadings)
    }
}

impl Forecast {
    /// Time until exhaustion, where there is one to be told.
    #[must_use]
    pub const fn left(&self) -> Option<Span> {
        match self {
            Self::In { left, .. } => Some(*left),
            Self::Unknown(_) | Self::NotFilling => None,
        }
    }
}

impl Forecast {
    /// What it was made from, or why there is none, in words; `None` where memory does not fill.
    #[must_use]
    pub const fn why(&self) -> Option<&'static str> {
        match self {
            Self::In { source, .. } => Some(source.name()),
            Self::Unknown(Unknown::FewReadings) => Some("too few readings"),
            Self::Unknown(Unknown::Gap) => Some("readings are missing"),
            Self::Unknown(Unknown::Disagree) => Some("the readings go back and forth"),
            Self::NotFilling => None,
        }
    }
}

impl Source {
    /// What falls or grows, in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Available => "MemAvailable",
            Self::AvailableLong => "MemAvailable over seconds",
            Self::Growth => "growth of the workloads",
            Self::Faults => "page faults",
            Self::Swap => "RAM and swap together",
            Self::Free => "what is free of it",
        }
    }
}

/// Bytes per second by which a reading falls, and what says so.
pub(crate) type Fall = Result<(Bytes, Source), Unknown>;

/// How fast `MemAvailable` falls; zero where it does not. The raw figure, since the file pages in use move in steps
/// whenever `memory.stat` is read again, and a step is no rate.
pub(crate) fn decline(state: &State, total: Bytes, now: Monotonic, patience: Span) -> Fall {
    if !state.available.is_continuous(patience) {
        let first = state.available.is_first();
        return Err(if first { Unknown::FewReadings } else { Unknown::Gap });
    }
    fall(&state.available, now, noise(total))
}

fn noise(total: Bytes) -> u64 {
    (total.0 / NOISE_PART).max(1)
}

/// The more pessimistic of the two windows, as far as they do not contradict each other. The short one says whether it
/// falls at all: then a finished burst is over within its length.
fn fall(trend: &Trend, now: Monotonic, noise: u64) -> Fall {
    let long = trend.for_long(now, noise);
    let (rate, source) = match (trend.lately(now, noise).ok_or(Unknown::FewReadings)?, long) {
        (Course::Falling(short), Some(Course::Falling(long))) if long > short && short >= long / TRICKLE => {
            (long, Source::AvailableLong)
        }
        (Course::Falling(short), _) => (short, Source::Available),
        // Back and forth by more than the long fall would come to: that may go on underneath.
        (Course::Erratic(way), Some(Course::Falling(long))) if way >= long => (long, Source::AvailableLong),
        (Course::Erratic(_), None | Some(Course::Erratic(_))) => return Err(Unknown::Disagree),
        (Course::Erratic(_) | Course::Level | Course::Rising, _) => (0, Source::Available),
    };
    Ok((Bytes(rate), source))
}

/// The most pessimistic source; where none has anything to tell, what `MemAvailable` has not.
pub(crate) fn forecast(state: &State, sample: &Sample, memory: &Memory, decline: Fall) -> Forecast {
    let (now, least) = (sample.at, noise(memory.total));
    let available = decline.ok().filter(|(rate, _)| *rate > Bytes::ZERO);
    let (hidden, faults) = hidden_growth(state, sample);
    let candidates = [
        available.and_then(|(rate, source)| Some((time_for(memory.headroom, rate)?, source))),
        enough(hidden, least).and_then(|rate| Some((time_for(memory.headroom, rate)?, Source::Growth))),
        enough(faults, least).and_then(|rate| Some((time_for(memory.headroom, rate)?, Source::Faults))),
        with_swap(state, sample, memory, fall(&state.with_swap, now, least)),
    ];
    match (candidates.into_iter().flatten().min(), decline) {
        (Some((left, source)), _) => Forecast::In { left, source },
        (None, Err(why)) => Forecast::Unknown(why),
        (None, Ok(_)) => Forecast::NotFilling,
    }
}

/// Of a resource that shows itself in nothing but how much of it is free.
pub(crate) fn of_free(trend: &Trend, total: Bytes, free: Bytes, now: Monotonic) -> Forecast {
    match fall(trend, now, noise(total)) {
        Err(why) => Forecast::Unknown(why),
        Ok((rate, _)) => time_for(free, rate)
            .map_or(Forecast::NotFilling, |left| Forecast::In { left, source: Source::Free }),
    }
}

fn enough(rate: Bytes, least: u64) -> Option<Bytes> {
    (rate.0 >= least).then_some(rate)
}

/// What the workloads grow by, by their charges and by their faults, that no page cache and no swap explains.
///
/// What we take back from a workload ourselves is no relief that lasts, so it is not set off against the growth of
/// others. What one gives up by itself is.
fn hidden_growth(state: &State, sample: &Sample) -> (Bytes, Bytes) {
    let (mut by_charge, mut by_faults, mut released) = (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);
    for (_, workload, track) in join(&sample.workloads, &state.workloads) {
        let Some(growth) = track.usage.growth(sample.at).filter(|_| workload.current.is_some()) else {
            continue;
        };
        if growth < 0 && track.held.rung == Rung::Free {
            released = released + Bytes(growth.unsigned_abs());
        }
        let charged = positive(growth);
        by_charge = by_charge + charged;
        by_faults = by_faults + charged.max(faulted(track, workload, charged, sample.at));
    }
    let rising = |trend: &Trend| trend.growth(sample.at).map_or(Bytes::ZERO, positive);
    let elsewhere = rising(&state.file) + rising(&state.swapped) + released;
    // Where most of it is explained the rest is the difference of large numbers, and means nothing.
    let rest = |sum: Bytes| Some(sum.saturating_sub(elsewhere)).filter(|rest| rest.0 >= sum.0 / 2);
    (rest(by_charge).unwrap_or_default(), rest(by_faults).unwrap_or_default())
}

/// Faults are seen before their charges are, which are batched; but not all of them bring a page, so they may at
/// most double what is charged. Nothing that is frozen faults.
fn faulted(track: &Track, workload: &Workload, charged: Bytes, now: Monotonic) -> Bytes {
    if workload.frozen == Some(true) {
        return Bytes::ZERO;
    }
    let faults = track.minor_faults.rate(now).map_or(Bytes::ZERO, positive);
    Bytes(faults.0.saturating_mul(PAGE)).min(charged + charged)
}

/// Until swap is full and the headroom is used up as well: while swap absorbs all growth, `MemAvailable` stands still.
/// What zram takes to hold it is no longer there for anything else.
fn with_swap(state: &State, sample: &Sample, memory: &Memory, fall: Fall) -> Option<(Span, Source)> {
    let (rate, _) = fall.ok().filter(|(rate, _)| *rate > Bytes::ZERO && memory.swap_free > Bytes::ZERO)?;
    let (mut swapped, mut in_ram) = (Bytes::ZERO, Bytes::ZERO);
    for (_, _, track) in join(&sample.workloads, &state.workloads) {
        swapped = swapped + track.swap;
        in_ram = in_ram + track.swap_ram;
    }
    let kept = Share::of(in_ram.0, swapped.0).unwrap_or_default().min(Share::ONE);
    let room = memory.headroom + memory.swap_free.saturating_sub(memory.swap_free.share(kept));
    Some((time_for(room, rate)?, Source::Swap))
}
