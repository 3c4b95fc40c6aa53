//! A GPU is short, and somebody needs more of it: who is asked to offload, or to unload.
//!
//! An offload is the gentler of the two, and it moves the memory to the host: it is asked for only where the host has room for all of
//! it. What a sleeping engine still shows on the GPU goes with its process, so only an unload can be asked for it then.

use super::begin;
use super::gentle::order;
use super::prospect::{Promise, Why, promise, why_not};
use crate::concession::Level;
use crate::decide::explain::gentler_than_asking;
use crate::decide::{Taken, Turn};
use crate::gpu::GpuId;
use crate::plan::{Expected, Refusal, Refused, Tier};
use crate::relief::CRUMBS;
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Share};

pub(crate) fn ask(turn: &mut Turn<'_>) {
    for gpu in turn.short_gpus() {
        let Some(seen) = turn.assessed.report.gpus.get(&gpu) else { continue };
        let (tier, deficit) = (seen.tier, seen.deficit);
        if tier >= Tier::Critical && seen.contested {
            let lacking = deficit.saturating_sub(calmer(turn, &gpu) + turn.promised_on(&gpu));
            walk(turn, &gpu, tier, lacking);
        }
    }
}

/// What lies between calm and what constrained may be left at: for that nobody is put out of service, on the host neither.
fn calmer(turn: &Turn<'_>, gpu: &GpuId) -> Bytes {
    let (constrained, elevated) = (turn.config.gpu.constrained.leave, turn.config.gpu.elevated.leave);
    let between = Share(constrained.0.saturating_sub(elevated.0));
    let total = turn.sample.gpus.get(gpu).and_then(|gpu| gpu.total);
    total.unwrap_or_default().share(between)
}

/// From the one that yields first up, until what is asked for would be enough.
fn walk(turn: &mut Turn<'_>, gpu: &GpuId, tier: Tier, mut lacking: Bytes) {
    for id in order(turn, false) {
        if lacking == Bytes::ZERO {
            return;
        }
        let Some((level, promise)) = choose(turn, &id, gpu) else { continue };
        let gives = promise.on(gpu);
        let evidence = turn.reasons(Why::Gpu(gpu), tier, lacking, level, gives);
        let taken = turn.weighed_on(&id, level, &promise, gives);
        begin(turn, &id, level, vec![gpu.clone()], promise, evidence);
        turn.explained(&id, taken);
        lacking = lacking.saturating_sub(gives);
    }
}

/// The gentlest level that frees this GPU's memory and does no harm to the host.
fn choose(turn: &Turn<'_>, id: &WorkloadId, gpu: &GpuId) -> Option<(Level, Promise)> {
    let (workload, track) = (turn.sample.workloads.get(id)?, turn.state.workloads.get(id)?);
    let held = workload.gpus.get(gpu)?;
    if held.is_some_and(|held| held < CRUMBS) {
        return None;
    }
    [Level::Offload, Level::Unload].into_iter().find_map(|level| {
        let promise = promise(turn, workload, track, level);
        let gives = held.is_none() || promise.on(gpu) >= CRUMBS;
        (gives && refusal(turn, workload, track, level, &promise).is_none()).then_some((level, promise))
    })
}

/// Why not, with what it would do to the host.
fn refusal(
    turn: &Turn<'_>,
    workload: &Workload,
    track: &Track,
    level: Level,
    promise: &Promise,
) -> Option<Refusal> {
    let (moves, room) = (promise.moves(), turn.host_room());
    let crowded = (moves > room).then_some(Refusal::NoHostRoom { moves, room });
    why_not(turn, workload, track, level).or(crowded)
}

/// Whether one that yields gives something on this GPU, or can be asked to.
pub(crate) fn gives_on(turn: &Turn<'_>, workload: &Workload, track: &Track, gpu: &GpuId) -> bool {
    let able = |level: Level| {
        let promise = promise(turn, workload, track, level);
        promise.on(gpu) >= CRUMBS && refusal(turn, workload, track, level, &promise).is_none()
    };
    let coming = || track.voluntary.as_ref().is_some_and(|it| it.promised_on(gpu, workload) > Bytes::ZERO);
    roles::is_eligible(turn.config, workload) && (coming() || Level::ALL.into_iter().any(able))
}

impl Turn<'_> {
    /// The GPUs that are short.
    pub(crate) fn short_gpus(&self) -> Vec<GpuId> {
        let gpus = self.assessed.report.gpus.iter();
        gpus.filter(|(_, seen)| seen.tier > Tier::Normal).map(|(id, _)| id.clone()).collect()
    }

    /// GPU memory that is still to come of what has been asked.
    pub(crate) fn promised_on(&self, gpu: &GpuId) -> Bytes {
        let of = |(_, w, t): (&WorkloadId, &Workload, &Track)| {
            let voluntary = t.voluntary.as_ref().filter(|_| !super::prospect::is_frozen(w, t));
            voluntary.map_or(Bytes::ZERO, |it| it.promised_on(gpu, w))
        };
        self.volunteers().map(of).sum()
    }

    /// Whether anybody who yields gives something on this GPU, or can be asked to.
    pub(super) fn yields_on(&self, gpu: &GpuId) -> bool {
        self.volunteers().any(|(_, w, t)| gives_on(self, w, t, gpu))
    }

    /// What may be moved to the host: nothing where that is short itself.
    pub(super) fn host_room(&self) -> Bytes {
        let memory = self.memory().filter(|_| self.tier() < Tier::Constrained);
        let limit = self.config.host.constrained.leave;
        memory.map_or(Bytes::ZERO, |m| m.total.share(limit).saturating_sub(m.used()))
    }

    /// What an offload or unload for a GPU is to bring, and what was not done instead.
    fn weighed_on(&self, id: &WorkloadId, level: Level, promise: &Promise, bytes: Bytes) -> Taken {
        let expected = Expected {
            bytes,
            takes: promise.takes,
            observations: promise.observations,
            ..Expected::default()
        };
        let instead = self.sample.workloads.get(id).zip(self.state.workloads.get(id));
        let gentler = instead.filter(|_| level == Level::Unload).and_then(|(workload, track)| {
            let offload = super::prospect::promise(self, workload, track, Level::Offload);
            refusal(self, workload, track, Level::Offload, &offload)
        });
        let own = gentler.map(|why| Refused { workload: id.clone(), rung: Rung::Offload, why });
        let mut refused: Vec<_> = own.into_iter().collect();
        refused.extend(self.not_asked(id, level).take(Refused::MOST - refused.len()));
        Taken { expected, refused }
    }

    /// The same for the host.
    pub(super) fn weighed(&self, id: &WorkloadId, level: Level, promise: &Promise, needed: Bytes) -> Taken {
        let bytes = promise.gains.host_bytes();
        let expected = Expected {
            bytes,
            takes: promise.takes,
            observations: promise.observations,
            ..Expected::default()
        };
        let mut refused = gentler_than_asking(self, id, needed);
        refused.extend(self.not_asked(id, level).take(Refused::MOST - refused.len()));
        Taken { expected, refused }
    }

    /// Those who should have been asked before this one, the lowest first, with what kept them from it.
    fn not_asked<'t>(&'t self, id: &WorkloadId, level: Level) -> impl Iterator<Item = Refused> + use<'t> {
        let rank = |w: &Workload| roles::rank(&w.spec);
        let this = self.sample.workloads.get(id).map(rank);
        let mut lower: Vec<_> = self.tracked().filter(|(_, w, _)| Some(rank(w)) < this).collect();
        lower.sort_by_key(|(id, w, _)| (rank(w), *id));
        lower.into_iter().filter_map(move |(id, w, t)| {
            let why = why_not(self, w, t, level)?;
            Some(Refused { workload: id.clone(), rung: Rung::Offload, why })
        })
    }
}
