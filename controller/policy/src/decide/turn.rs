//! One pass's decisions in the making: what is known, and the state that they are kept in.

use std::collections::{BTreeMap, BTreeSet};

use super::explain::{Ask, Taken, explain};
use super::{leash, wish};
use crate::assess::observe::positive;
use crate::assess::{Assessed, Memory, time_for};
use crate::config::Config;
use crate::gpu::GpuId;
use crate::holding::Holding;
use crate::join::join;
use crate::plan::{Evidence, Tier};
use crate::relief::{BRAKE_AHEAD, Candidate, HORIZON, brake_holds, residual};
use crate::sample::{Rung, Sample, Workload, WorkloadId};
use crate::state::{Held, Lease, Spell, State, Track};
use crate::units::{Bytes, Monotonic, Share, Span};

/// A brake takes this long to show in the rates: the freeze itself and the window that they are taken over.
const BRAKE_SHOWS: Span = Span::millis(400);

/// What a pass decides with.
pub(crate) struct Turn<'a> {
    pub(crate) config: &'a Config,
    pub(crate) sample: &'a Sample,
    pub(crate) assessed: &'a Assessed,
    pub(crate) state: &'a mut State,
    /// What was newly done in this pass.
    pub(crate) taken: BTreeMap<WorkloadId, Taken>,
    /// The workloads of the sample that are, or were when the pass began, on a rung above free.
    raised: BTreeMap<&'a WorkloadId, &'a Workload>,
    /// Those that can be asked for something, or were.
    volunteers: Vec<(&'a WorkloadId, &'a Workload)>,
    /// Those that are handed to another node.
    pub(crate) evicted: BTreeSet<&'a WorkloadId>,
    /// What the brakes were for and could not give.
    pub(crate) lacking: Bytes,
}

/// To look one up costs as much as to walk past so many.
const LOOK_UP: usize = 32;

impl<'a> Turn<'a> {
    pub(crate) fn new(
        config: &'a Config,
        sample: &'a Sample,
        assessed: &'a Assessed,
        state: &'a mut State,
    ) -> Self {
        let (mut raised, mut volunteers, mut evicted) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        for (id, workload, track) in join(&sample.workloads, &state.workloads) {
            if track.held.rung > Rung::Free {
                raised.insert(id, workload);
            }
            if workload.offer.is_some() || track.voluntary.is_some() {
                volunteers.push((id, workload));
            }
            if track.eviction.as_ref().is_some_and(|it| it.is_open()) {
                evicted.insert(id);
            }
        }
        let (taken, lacking) = (BTreeMap::new(), Bytes::ZERO);
        Self { config, sample, assessed, state, taken, raised, volunteers, evicted, lacking }
    }

    /// The workloads that can be asked for something, or were.
    pub(crate) fn volunteers(&self) -> impl Iterator<Item = (&WorkloadId, &Workload, &Track)> {
        self.volunteers.iter().filter_map(|(id, w)| Some((*id, *w, self.state.workloads.get(id)?)))
    }

    /// Those of the sample that are handed to another node.
    pub(crate) fn evicted(&self) -> impl Iterator<Item = (&WorkloadId, &Workload, &Track)> {
        let all = self.evicted.iter();
        let all =
            all.filter_map(|id| Some((*id, self.sample.workloads.get(*id)?, self.state.workloads.get(*id)?)));
        all.filter(|(.., t)| t.eviction.as_ref().is_some_and(|it| it.is_open()))
    }

    /// Whether a pod is on its way to another node: asked to end, and not gone yet.
    pub(crate) fn somebody_leaves(&self) -> bool {
        self.evicted().any(|(.., track)| track.leaves().is_some())
    }

    /// Whether it ends in order. As long as nobody is handed over nobody is looked at for it.
    pub(crate) fn is_leaving(&self, track: &Track) -> bool {
        !self.evicted.is_empty() && track.leaves().is_some()
    }

    /// Host memory that what has been asked still brings, as far as the answers are expected within the time.
    pub(crate) fn promised(&self, within: Span) -> Bytes {
        let of = |(_, workload, track): (&WorkloadId, &Workload, &Track)| {
            let voluntary = track.voluntary.as_ref().filter(|_| self.answers(workload, track, within));
            voluntary.map_or(Bytes::ZERO, |it| it.promised(workload))
        };
        self.volunteers().map(of).sum()
    }

    /// Whether what it was asked is expected to be answered within the time.
    pub(crate) fn answers(&self, workload: &Workload, track: &Track, within: Span) -> bool {
        let frozen = workload.frozen == Some(true) || track.held.rung == Rung::Freeze;
        let remaining = track.voluntary.as_ref().and_then(|it| it.remaining(self.at()));
        !frozen && remaining.is_some_and(|remaining| remaining <= within)
    }

    /// How long an answer may take: until the memory would run out, less what a brake takes then.
    pub(crate) fn patience(&self) -> Span {
        let falling = |m: &Memory| time_for(m.headroom, residual(m, self.just_stopped()));
        let left = self.memory().as_ref().and_then(falling);
        left.map_or(wish::PATIENCE, |left| Span(left.0.saturating_sub(BRAKE_AHEAD.0)))
    }

    pub(crate) fn at(&self) -> Monotonic {
        self.sample.at
    }

    pub(crate) fn tier(&self) -> Tier {
        self.assessed.report.tier
    }

    /// The host's memory; what is moving there on request and has not arrived counts as used.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let memory = self.assessed.memory?;
        let moving =
            |(_, w, t): (&WorkloadId, &Workload, &Track)| t.voluntary.as_ref().map(|it| it.moving(w));
        let moving: Bytes = self.volunteers().filter_map(moving).sum();
        Some(Memory { reserved: memory.reserved + moving, ..memory })
    }

    /// The workloads of the sample with what is remembered of them.
    pub(crate) fn tracked(&self) -> impl Iterator<Item = (&WorkloadId, &Workload, &Track)> {
        join(&self.sample.workloads, &self.state.workloads)
    }

    /// Those of them on a rung above free that `test` accepts. As long as few are on any, only these are looked at.
    pub(crate) fn held(
        &self,
        test: impl Fn(Rung) -> bool,
    ) -> impl Iterator<Item = (&WorkloadId, &Workload, &Track)> {
        let few = self.raised.len() * LOOK_UP < self.state.workloads.len();
        let known = self.raised.iter().filter(move |_| few);
        let known = known.filter_map(|(id, w)| Some((*id, *w, self.state.workloads.get(id)?)));
        let walked = (!few).then(|| self.tracked()).into_iter().flatten();
        let above = move |rung| rung > Rung::Free && test(rung);
        known.chain(walked).filter(move |(.., track)| above(track.held.rung))
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

    /// A workload with its prospects; `None` where its memory could not be read. The growth is that of the report, which would have
    /// to be looked up.
    pub(crate) fn candidate<'t>(
        &self,
        workload: &Workload,
        track: &'t Track,
        swap_free: Bytes,
    ) -> Option<Candidate<'t>> {
        let holding = Holding::of(workload, swap_free, &self.config.ladder)?;
        let at = self.at();
        let growth = track.usage.growth(at).unwrap_or(0);
        let braked = brake_holds(track, workload.frozen, growth, at, self.grace());
        Some(Candidate { holding, track, growth: if braked { 0 } else { growth }, at })
    }

    /// Growth that is still in the rate of decline although it has just been stopped, or will be by a leash in a moment.
    pub(crate) fn just_stopped(&self) -> Bytes {
        let stopped = |(id, w, t): (&WorkloadId, &Workload, &Track)| {
            let growth = positive(self.growth(id));
            let recent = self.at().since(t.held.since) <= self.grace();
            match t.held.leash {
                Some(_) => growth.saturating_sub(leash::leeway(w, t)),
                None if recent => growth,
                None => Bytes::ZERO,
            }
        };
        self.held(|r| r >= Rung::Throttle).map(stopped).sum()
    }

    /// Bytes that come within the time although no rung stands for them any more: of kills under way, of those who leave for another
    /// node, and of reclaims whose workload was let go.
    pub(crate) fn pending(&self, within: Span) -> Bytes {
        let dying = |id: &WorkloadId, track: &Track| {
            let workload = self.sample.workloads.get(id).filter(|w| self.kill_in_flight(w, track))?;
            let candidate = self.candidate(workload, track, Bytes::ZERO)?;
            Some(candidate.relief(Rung::Kill, within, &self.config.ladder).bytes)
        };
        let pending = |(id, track): (&WorkloadId, &Track)| match track.held.rung {
            rung if self.is_leaving(track) && rung < Rung::Kill => {
                self.departing(id, track).unwrap_or_default()
            }
            Rung::Free => track.arriving(self.at(), within),
            Rung::Kill => dying(id, track).unwrap_or_default(),
            _ => Bytes::ZERO,
        };
        self.state.workloads.iter().map(pending).sum()
    }

    pub(crate) fn kill_in_flight(&self, workload: &Workload, track: &Track) -> bool {
        track.held.rung == Rung::Kill
            && workload.populated != Some(false)
            && self.at().since(track.held.since) < self.config.ladder.kill_deadline
    }

    /// What a kill is to free, for its outcome to be held against.
    fn at_death(&self, id: &WorkloadId, rung: Rung) -> Bytes {
        let workload = self.sample.workloads.get(id).filter(|_| rung == Rung::Kill);
        let holding = workload.and_then(|w| Holding::of(w, Bytes::ZERO, &self.config.ladder));
        holding.map_or(Bytes::ZERO, |h| h.at_death)
    }

    /// The assessment's evidence with more behind it.
    pub(crate) fn because(&self, more: impl IntoIterator<Item = Evidence>) -> Vec<Evidence> {
        self.assessed.report.because.iter().cloned().chain(more).collect()
    }

    /// What put a GPU into its tier, said of that GPU.
    pub(crate) fn gpu_because(&self, gpu: &GpuId) -> Option<Evidence> {
        let seen = self.assessed.report.gpus.get(gpu)?;
        seen.because.clone().map(|fact| fact.on(gpu))
    }

    /// Notes what a newly taken action will bring, and what was not done instead.
    pub(crate) fn explained(&mut self, id: &WorkloadId, taken: Taken) {
        self.taken.insert(id.clone(), taken);
    }

    /// The same for one that no need was counted for.
    fn expects(&mut self, id: &WorkloadId, rung: Rung) {
        let held = self.state.workloads.get(id).map_or(Rung::Free, |t| t.held.brake());
        if rung > held {
            let swap = self.memory().map_or(Bytes::ZERO, |m| m.swap_free);
            let ask = Ask { rung, needed: Bytes::ZERO, within: HORIZON, horizon: HORIZON, swap };
            let taken = Taken { refused: Vec::new(), ..explain(self, id, ask) };
            self.explained(id, taken);
        } else {
            self.taken.remove(id);
        }
    }

    /// Puts a workload on a rung. Nothing happens where it is on it already, unless it was being let go.
    pub(crate) fn put(&mut self, id: &WorkloadId, rung: Rung, mut evidence: Vec<Evidence>) {
        let (at, growth) = (self.at(), self.growth(id));
        let promised = self.at_death(id, rung);
        let mut kills = None;
        self.expects(id, rung);
        let ladder = &self.config.ladder;
        let most = self.sample.workloads.get(id).and_then(|w| w.spec.freeze_max);
        let Some(track) = self.state.workloads.get_mut(id) else { return };
        if track.held.rung == rung && track.held.leash.is_none() {
            return;
        }
        self.state.action = self.state.action.saturating_add(1);
        if rung == Rung::Kill {
            track.promised = promised;
            kills = self.sample.workloads.get_key_value(id);
        }
        if matches!(rung, Rung::Throttle | Rung::Freeze) && track.held.brake() < Rung::Throttle {
            let brake = track.repeats.brake(ladder, at);
            track.held.until = at + brake.hold;
            track.held.growth = growth;
            track.held_off = track.held_off.max(brake.held_off);
            evidence.extend(brake.evidence);
        }
        if rung == Rung::Freeze {
            track.spell = Spell::with_freeze(track.spell, most, at);
        } else if track.held.rung == Rung::Freeze {
            track.spell.iter_mut().for_each(|spell| spell.last = at);
        }
        track.held = Held {
            rung,
            action: self.state.action,
            evidence,
            since: at,
            until: if rung >= Rung::Throttle { track.held.until } else { at },
            high: None,
            low: track.held.low,
            growth: if rung >= Rung::Throttle { track.held.growth } else { 0 },
            lease: Lease::default(),
            leash: None,
            trimmed: track.held.trimmed,
        };
        self.raised.extend(self.sample.workloads.get_key_value(id));
        if let Some((id, workload)) = kills {
            self.state.killed(workload, id, at);
        }
    }
}

/// A share of the host's memory.
pub(crate) fn part(memory: &Memory, percent: u32) -> Bytes {
    memory.total.share(Share::percent(percent))
}
