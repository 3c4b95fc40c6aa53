//! Gentle levels: garbage and caches, which cost a workload next to nothing. Asked of as many as it takes, the lowest first.

use super::begin;
use super::prospect::{Promise, Why, promise, why_not};
use crate::concession::Level;
use crate::decide::Turn;
use crate::gpu::GpuId;
use crate::plan::{Evidence, Tier};
use crate::relief::{CRUMBS, HORIZON};
use crate::roles;
use crate::sample::WorkloadId;
use crate::units::Bytes;

/// Who holds less has nothing to trim.
const SMALL: Bytes = Bytes::mib(16);

/// The gentle levels that a tier allows, the one that brings most first.
fn levels(tier: Tier) -> &'static [Level] {
    match tier {
        Tier::Normal => &[],
        Tier::Elevated => &[Level::Gc],
        Tier::Constrained | Tier::Critical | Tier::Emergency => &[Level::Aggressive, Level::Gc],
    }
}

pub(crate) fn ask(turn: &mut Turn<'_>) {
    of_host(turn);
    for gpu in turn.short_gpus() {
        let Some(seen) = turn.assessed.report.gpus.get(&gpu) else { continue };
        let lacking = seen.deficit.saturating_sub(turn.promised_on(&gpu));
        let (tier, deficit) = (seen.tier, seen.deficit);
        walk(turn, Why::Gpu(&gpu), tier, deficit, lacking, false);
    }
}

fn of_host(turn: &mut Turn<'_>) {
    let (tier, deficit) = (turn.tier(), turn.assessed.report.deficit);
    if turn.memory().is_some() {
        let coming = turn.pending(HORIZON) + turn.promised(super::PATIENCE);
        walk(turn, Why::Host, tier, deficit, deficit.saturating_sub(coming), false);
    }
}

/// Where nobody who yields can give what is needed, the protected are asked to drop what refills by itself, and nothing more.
pub(crate) fn ask_protected(turn: &mut Turn<'_>) {
    if turn.tier() >= Tier::Critical && turn.lacking > Bytes::ZERO {
        let (tier, lacking) = (turn.tier(), turn.lacking);
        walk(turn, Why::Host, tier, lacking, lacking, true);
    }
    for gpu in turn.short_gpus() {
        let Some(seen) = turn.assessed.report.gpus.get(&gpu) else { continue };
        let (tier, deficit) = (seen.tier, seen.deficit);
        let lacking = deficit.saturating_sub(turn.promised_on(&gpu));
        if tier >= Tier::Critical && !turn.yields_on(&gpu) {
            walk(turn, Why::Gpu(&gpu), tier, deficit, lacking, true);
        }
    }
}

/// From the one that yields first up, until what is asked for would be enough.
fn walk(turn: &mut Turn<'_>, why: Why<'_>, tier: Tier, deficit: Bytes, lacking: Bytes, protected: bool) {
    let mut lacking = lacking;
    if tier == Tier::Normal || lacking == Bytes::ZERO {
        return;
    }
    for id in order(turn, protected) {
        if lacking == Bytes::ZERO {
            return;
        }
        let Some((level, promise, gives)) = choose(turn, &id, why, tier) else { continue };
        lacking = lacking.saturating_sub(gives);
        let gpus: Vec<GpuId> = match why {
            Why::Host => Vec::new(),
            Why::Gpu(gpu) => vec![gpu.clone()],
        };
        let evidence = turn.reasons(why, tier, deficit, level, gives);
        begin(turn, &id, level, gpus, promise, evidence);
    }
}

/// Those who can be asked, the lowest first; of equals those who hold most.
pub(super) fn order(turn: &Turn<'_>, protected: bool) -> Vec<WorkloadId> {
    let able = turn.volunteers().filter(|(_, w, _)| {
        w.offer.is_some() && w.populated != Some(false) && roles::is_protected(turn.config, w) == protected
    });
    let mut able: Vec<_> =
        able.map(|(id, w, _)| (roles::rank(&w.spec), std::cmp::Reverse(w.current), id)).collect();
    able.sort();
    able.into_iter().map(|(.., id)| id.clone()).collect()
}

/// The level to ask for, with what it would bring where it is short.
fn choose(turn: &Turn<'_>, id: &WorkloadId, why: Why<'_>, tier: Tier) -> Option<(Level, Promise, Bytes)> {
    let (workload, track) = (turn.sample.workloads.get(id)?, turn.state.workloads.get(id)?);
    // One thing at a time: what is asked already is waited for.
    if track.voluntary.as_ref().is_some_and(|it| it.asking().is_some()) {
        return None;
    }
    let able = |level: &&Level| why_not(turn, workload, track, **level).is_none();
    let level = *levels(tier).iter().find(able)?;
    let promise = promise(turn, workload, track, level);
    let (gives, holds) = match why {
        Why::Host => (promise.gains.host_bytes(), promise.had.own),
        Why::Gpu(gpu) => {
            let holds = workload.gpus.get(gpu)?.unwrap_or(SMALL);
            (promise.on(gpu), holds)
        }
    };
    // What has been seen to bring nothing is not asked for; what is not known is.
    let worth = gives >= CRUMBS || promise.observations == 0;
    (holds >= SMALL && worth).then_some((level, promise, gives))
}

impl Turn<'_> {
    /// Why somebody is asked.
    pub(super) fn reasons(
        &self,
        why: Why<'_>,
        tier: Tier,
        deficit: Bytes,
        level: Level,
        expected: Bytes,
    ) -> Vec<Evidence> {
        let said = [Evidence::Tier { tier, deficit }, Evidence::Yield { expected }];
        let mut all = match why {
            Why::Host => self.because(said),
            Why::Gpu(gpu) => self.gpu_because(gpu).into_iter().chain(said.map(|fact| fact.on(gpu))).collect(),
        };
        all.push(Evidence::Asked { level });
        all
    }
}
