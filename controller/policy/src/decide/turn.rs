//! One pass's decisions in the making: what is known, and the state that they are kept in.

use std::ops::Add;

use crate::assess::observe::positive;
use crate::assess::{Assessed, Memory};
use crate::config::Config;
use crate::holding::Holding;
use crate::join::join;
use crate::plan::{Evidence, Tier};
use crate::relief::{Candidate, brake_holds};
use crate::sample::{Rung, Sample, Workload, WorkloadId};
use crate::state::{Held, Lease, Repeats, State, Track};
use crate::units::{Bytes, Monotonic, Share, Span};

/// Repetitions are forgotten one by one after this long.
const REPEAT_MEMORY: Span = Span::secs(600);
/// Hold times double at most this often.
const DOUBLINGS: u32 = 5;
/// A brake takes this long to show in the rates: the freeze itself and the window that they are taken over.
const BRAKE_SHOWS: Span = Span::millis(400);

/// What a pass decides with.
pub(crate) struct Turn<'a> {
    pub(crate) config: &'a Config,
    pub(crate) sample: &'a Sample,
    pub(crate) assessed: &'a Assessed,
    pub(crate) state: &'a mut State,
}

impl<'a> Turn<'a> {
    pub(crate) fn at(&self) -> Monotonic {
        self.sample.at
    }

    pub(crate) fn tier(&self) -> Tier {
        self.assessed.report.tier
    }

    pub(crate) fn memory(&self) -> Option<Memory> {
        self.assessed.memory
    }

    /// The workloads of the sample with what is remembered of them.
    pub(crate) fn tracked(&self) -> impl Iterator<Item = (&WorkloadId, &Workload, &Track)> {
        join(&self.sample.workloads, &self.state.workloads)
    }

    /// Those of them on a rung that `test` accepts. Few are on any: they are looked for on the state's side.
    pub(crate) fn held(
        &self,
        test: impl Fn(Rung) -> bool,
    ) -> impl Iterator<Item = (&WorkloadId, &Workload, &Track)> {
        let tracks = self.state.workloads.iter().filter(move |(_, t)| test(t.held.rung));
        tracks.filter_map(|(id, track)| Some((id, self.sample.workloads.get(id)?, track)))
    }

    /// Workloads of the sample that are on a rung that `test` accepts.
    pub(crate) fn on(&self, test: impl Fn(Rung) -> bool) -> Vec<WorkloadId> {
        self.held(test).map(|(id, ..)| id.clone()).collect()
    }

    pub(crate) fn growth(&self, id: &WorkloadId) -> i64 {
        self.assessed.report.growth.get(id).copied().unwrap_or(0)
    }

    /// The deadline by which a freeze ought to be seen in the readings.
    pub(crate) fn grace(&self) -> Span {
        Span(self.config.ladder.freeze_deadline.0.max(BRAKE_SHOWS.0))
    }

    /// A workload with its prospects; `None` where its memory could not be read.
    pub(crate) fn candidate<'t>(
        &self,
        id: &WorkloadId,
        workload: &Workload,
        track: &'t Track,
        swap_free: Bytes,
    ) -> Option<Candidate<'t>> {
        let holding = Holding::of(workload, swap_free, &self.config.ladder)?;
        let (at, growth) = (self.at(), self.growth(id));
        let braked = brake_holds(track, workload.frozen, growth, at, self.grace());
        Some(Candidate { holding, track, growth: if braked { 0 } else { growth }, at })
    }

    /// Growth that is still in the rate of decline although it has just been stopped.
    pub(crate) fn just_stopped(&self) -> Bytes {
        let recent = |t: &Track| self.at().since(t.held.since) <= self.grace();
        self.held(|r| r >= Rung::Throttle)
            .filter(|(_, _, t)| recent(t))
            .map(|(id, ..)| positive(self.growth(id)))
            .sum()
    }

    /// Bytes that come within the time although no rung stands for them any more: of kills under way, and of reclaims whose
    /// workload was let go.
    pub(crate) fn pending(&self, within: Span) -> Bytes {
        let dying: Bytes = self
            .held(|r| r == Rung::Kill)
            .filter(|(_, w, t)| self.kill_in_flight(w, t))
            .filter_map(|(id, w, t)| self.candidate(id, w, t, Bytes::ZERO))
            .map(|c| c.relief(Rung::Kill, within, &self.config.ladder).bytes)
            .sum();
        let free = self.state.workloads.values().filter(|t| t.held.rung == Rung::Free);
        free.map(|t| t.arriving(self.at(), within)).fold(dying, Bytes::add)
    }

    pub(crate) fn kill_in_flight(&self, workload: &Workload, track: &Track) -> bool {
        track.held.rung == Rung::Kill
            && workload.populated != Some(false)
            && self.at().since(track.held.since) < self.config.ladder.kill_deadline
    }

    /// What a kill is to free, for its outcome to be held against.
    fn promised(&self, id: &WorkloadId, rung: Rung) -> Bytes {
        let workload = self.sample.workloads.get(id).filter(|_| rung == Rung::Kill);
        let holding = workload.and_then(|w| Holding::of(w, Bytes::ZERO, &self.config.ladder));
        holding.map_or(Bytes::ZERO, |h| h.at_death)
    }

    /// The assessment's evidence with more behind it.
    pub(crate) fn because(&self, more: impl IntoIterator<Item = Evidence>) -> Vec<Evidence> {
        self.assessed.report.because.iter().cloned().chain(more).collect()
    }

    /// Puts a workload on a rung. Nothing happens where it is on it already.
    pub(crate) fn put(&mut self, id: &WorkloadId, rung: Rung, evidence: Vec<Evidence>) {
        let (at, growth, hold) = (self.at(), self.growth(id), self.config.ladder.hold);
        let promised = self.promised(id, rung);
        let Some(track) = self.state.workloads.get_mut(id) else { return };
        if track.held.rung == rung {
            return;
        }
        self.state.action = self.state.action.saturating_add(1);
        let entered = rung >= Rung::Throttle && track.held.rung < Rung::Throttle;
        if entered {
            track.held.until = at + track.repeats.hold(hold, at);
            track.held.growth = growth;
        }
        track.held = Held {
            rung,
            action: self.state.action,
            evidence,
            since: at,
            until: if rung >= Rung::Throttle { track.held.until } else { at },
            high: None,
            low: track.held.low,
            promised,
            growth: if rung >= Rung::Throttle { track.held.growth } else { 0 },
            lease: Lease::default(),
            trimmed: track.held.trimmed,
        };
    }
}

impl Repeats {
    /// Counts one more time and says how long to hold: twice as long as the last time within ten minutes.
    fn hold(&mut self, base: Span, at: Monotonic) -> Span {
        let quiet = at.since(self.at).0 / REPEAT_MEMORY.0;
        self.times = self.times.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX));
        let span = Span(base.0.saturating_mul(1 << self.times.min(DOUBLINGS)));
        self.times = (self.times + 1).min(DOUBLINGS);
        self.at = at;
        span
    }
}

/// A share of the host's memory.
pub(crate) fn part(memory: &Memory, percent: u32) -> Bytes {
    memory.total.share(Share::percent(percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_double_within_ten_minutes_and_are_forgotten() {
        let mut repeats = Repeats::default();
        let mut hold =
            |minutes: u64| repeats.hold(Span::secs(5), Monotonic(minutes * 60_000_000_000)).0 / 1_000_000_000;
        assert_eq!([hold(1), hold(2), hold(3), hold(4)], [5, 10, 20, 40]);
        assert_eq!(hold(25), 20, "two of them are forgotten");
        assert_eq!(hold(500), 5);
        assert_eq!(
            [hold(500), hold(500), hold(500), hold(500), hold(500), hold(500)],
            [10, 20, 40, 80, 160, 160]
        );
    }
}
