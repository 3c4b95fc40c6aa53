//! What a level would bring of a workload, and why one can't be asked for it.

use crate::concession::{Gains, Level, Prospect};
use crate::decide::Turn;
use crate::gpu::GpuId;
use crate::holding::Holding;
use crate::learned::Pool;
use crate::plan::{Refusal, Tier};
use crate::roles;
use crate::sample::{Preference, Rung, Workload};
use crate::state::Track;
use crate::units::{Bytes, Share, Span};
use crate::voluntary::Had;

/// What a level would bring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) gains: Gains,
    /// Until it is there.
    pub(crate) takes: Span,
    /// Outcomes that this rests on.
    pub(crate) observations: u32,
    /// What the workload holds.
    pub(crate) had: Had,
}

impl Promise {
    /// What it would move to the host.
    pub(crate) fn moves(&self) -> Bytes {
        if self.gains.host < 0 { Bytes(self.gains.host.unsigned_abs()) } else { Bytes::ZERO }
    }

    pub(crate) fn on(&self, gpu: &GpuId) -> Bytes {
        self.gains.gpus.get(gpu).copied().unwrap_or_default()
    }
}

/// What is short.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Why<'a> {
    Host,
    Gpu(&'a GpuId),
}

/// Where nobody offers a figure and nothing has been seen yet: which part of what it holds on the host and on GPUs, and by when.
/// What refills by itself is little; a model is most of a model server; the process and its libraries stay.
const fn prior(level: Level) -> (Share, Share, Span) {
    match level {
        Level::Nothing => (Share::ZERO, Share::ZERO, Span::ZERO),
        Level::Gc => (Share::percent(2), Share::percent(2), Span::secs(1)),
        Level::Aggressive => (Share::percent(10), Share::percent(10), Span::secs(2)),
        Level::Offload => (Share::ZERO, Share::percent(80), Span::secs(3)),
        Level::Unload => (Share::percent(70), Share::percent(80), Span::secs(2)),
    }
}

/// What moves a model's weights from a GPU to the host, page by page, where nothing is known of it: PyTorch was seen at 1.0 to 1.3 GiB/s,
/// `cuda-checkpoint` at 1.7 GiB/s, on the fastest bus there is.
const MOVED_PER_SECOND: Bytes = Bytes::mib(1024);

/// How long so much takes to move.
pub(super) fn moving(bytes: Bytes) -> Span {
    Span::millis(bytes.0.saturating_mul(1000) / MOVED_PER_SECOND.0)
}

/// What was measured counts most, then what is offered, then the prior.
pub(crate) fn promise(turn: &Turn<'_>, workload: &Workload, track: &Track, level: Level) -> Promise {
    let own = Holding::of(workload, Bytes::ZERO, &turn.config.ladder).map_or(Bytes::ZERO, |h| h.killable);
    let had = Had::of(workload, own);
    let offered = workload.offer.as_ref().and_then(|offer| offer.levels.get(&level));
    let figures = offered.and_then(|it| it.gains.as_ref());
    let (host, gpu, takes) = prior(level);
    let all: Bytes = if level == Level::Offload { had.gpus.values().copied().sum() } else { Bytes::ZERO };
    let takes = takes.saturating_add(moving(all.share(gpu)));
    let takes = offered.and_then(|Prospect { takes, .. }| *takes).unwrap_or(takes);
    let seen = |pool, ratio| track.learned.grant(level, pool, (ratio, takes), turn.at());
    let part = |bytes: Bytes, of: Bytes| Share::of(bytes.0.min(of.0), of.0).unwrap_or_default();
    let mut promise = Promise { takes, had, ..Promise::default() };
    for (id, bytes) in &promise.had.gpus {
        // Who knows of host memory only says nothing of GPUs.
        let known = figures.filter(|it| !it.gpus.is_empty() || it.host != 0);
        let ratio = known.map_or(gpu, |it| part(it.gpus.get(id).copied().unwrap_or_default(), *bytes));
        let (ratio, takes, observations) = seen(Pool::Gpu, ratio);
        promise.gains.gpus.insert(id.clone(), bytes.share(ratio));
        (promise.takes, promise.observations) = (takes, observations);
    }
    let offered_host = figures.map(|it| it.host);
    if level == Level::Offload && offered_host.is_none_or(|host| host <= 0) {
        let moves: Bytes = promise.gains.gpus.values().copied().sum();
        let all = i64::try_from(moves.0).unwrap_or(i64::MAX).saturating_neg();
        promise.gains.host = offered_host.map_or(all, |host| host.max(all));
        return promise;
    }
    let ratio = offered_host.map_or(host, |it| part(Bytes(u64::try_from(it).unwrap_or(0)), own));
    let (ratio, takes, observations) = seen(Pool::Host, ratio);
    promise.gains.host = i64::try_from(own.share(ratio).0).unwrap_or(i64::MAX);
    if promise.had.gpus.is_empty() || observations > promise.observations {
        (promise.takes, promise.observations) = (takes, observations);
    }
    promise
}

/// Why a workload is not asked for a level, whatever it would bring; `None` where nothing is in the way.
pub(crate) fn why_not(turn: &Turn<'_>, workload: &Workload, track: &Track, level: Level) -> Option<Refusal> {
    let at = turn.at();
    let offers = workload.offer.as_ref().is_some_and(|offer| offer.levels.contains_key(&level));
    let protected = roles::is_protected(turn.config, workload) && level > Level::Gc;
    let voluntary = track.voluntary.as_deref();
    let pause = voluntary.and_then(|it| it.pauses.get(&level)).filter(|pause| pause.until > at);
    match () {
        () if workload.spec.preference == Preference::Omit => Some(Refusal::Omit),
        () if protected => Some(Refusal::Protected),
        () if !offers || workload.populated == Some(false) => Some(Refusal::NotOffered { level }),
        () if !roles::allows(turn.config, workload, level.rung()) => Some(Refusal::NotAllowed),
        () if track.held.rung == Rung::Kill => Some(Refusal::Undying),
        () if track.leaves().is_some() => Some(Refusal::Leaves),
        () if is_frozen(workload, track) => Some(Refusal::Frozen),
        () if gives(track, level) => Some(Refusal::Gives { rung: track.rung() }),
        () => pause.map(|pause| Refusal::Futile { until: pause.until }).or_else(|| worn(turn, track, level)),
    }
}

/// Who is frozen can't answer.
pub(crate) fn is_frozen(workload: &Workload, track: &Track) -> bool {
    workload.frozen == Some(true) || track.held.rung == Rung::Freeze
}

/// Whether it is on that level or beyond, is asked for it, or is being restored. One on which it failed may be asked again.
fn gives(track: &Track, level: Level) -> bool {
    let Some(voluntary) = track.voluntary.as_deref() else { return false };
    match voluntary.asking() {
        // Who is half way out of its memory is not asked for more before it has answered.
        Some((wish, _)) => !matches!(wish.level, Level::Gc | Level::Aggressive) || wish.level >= level,
        None => {
            let failed = voluntary.pauses.get(&level).is_some_and(|pause| pause.times > 0);
            voluntary.level > level || (voluntary.level == level && !failed)
        }
    }
}

/// Offloaded and unloaded too often: by us, or in vain since requests undo it. Survival is not bound by that.
fn worn(turn: &Turn<'_>, track: &Track, level: Level) -> Option<Refusal> {
    let voluntary = track.voluntary.as_ref().filter(|_| level >= Level::Offload)?;
    if turn.assessed.report.worst_tier() >= Tier::Emergency {
        return None;
    }
    let held_off = (voluntary.held_off > turn.at()).then_some(Refusal::Reloads { until: voluntary.held_off });
    // To go from offload to unload is no new brake.
    let spent = voluntary.repeats.spent(&turn.config.ladder, turn.at()).filter(|_| !voluntary.lasts());
    held_off.or_else(|| spent.map(|brakes| Refusal::Spent { brakes }))
}
