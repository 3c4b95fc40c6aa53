//! The plan in the words of the cgroup files: what each rung means for `high`, `low`, `frozen`, `kill`, `reclaim`.

use std::collections::BTreeMap;

use super::ladder::free_wanted;
use super::lease::set_high;
use super::{Taken, Turn};
use crate::config::Ladder;
use crate::holding::Holding;
use crate::plan::{Plan, Tier, Wanted};
use crate::relief::{CRUMBS, Candidate, HORIZON};
use crate::roles;
use crate::sample::{Rung, Trigger, WorkloadId};
use crate::state::{Asked, Track};
use crate::units::{Bytes, Monotonic, Span};

/// Growth that must not be missed between two calm passes, in bytes per second.
const FASTEST: u64 = 2 << 30;
/// Time between two trims below constrained, where nothing is urgent.
const TRIM_APART: Span = Span::millis(500);

pub(crate) fn plan(turn: &mut Turn<'_>) -> Plan {
    set_high(turn);
    let budgets = budgets(turn);
    let mut plan = Plan { gate: turn.state.gate.clone(), next: next(turn), ..Plan::default() };
    let budget = |id| budgets.get(id).map(|asked| asked.budget);
    let (ladder, at) = (&turn.config.ladder, turn.at());
    let of = |id, track| Wanted { reclaim: budget(id), ..wanted(track, ladder, at) };
    let spoken_of = turn.tracked().filter(|(.., t)| {
        t.held.action > 0
            || t.rung() > Rung::Free
            || t.held.low.is_some()
            || t.voluntary.is_some()
            || t.eviction.is_some()
    });
    plan.workloads = spoken_of.map(|(id, _, t)| (id.clone(), of(id, t))).collect();
    for (id, Taken { expected, refused }) in std::mem::take(&mut turn.taken) {
        if let Some(wanted) = plan.workloads.get_mut(&id) {
            (wanted.expected, wanted.refused) = (Some(expected), refused);
        }
    }
    for (id, asked) in budgets {
        if let Some(track) = turn.state.workloads.get_mut(&id) {
            track.held.trimmed = Some(asked.at);
            track.asked = Some(asked);
        }
    }
    plan
}

/// What is held, as the end state of the files.
pub(crate) fn wanted(track: &Track, ladder: &Ladder, at: Monotonic) -> Wanted {
    let held = &track.held;
    let voluntary = track.voluntary.as_deref();
    // The latest of them says why the workload is where it is.
    let last = voluntary.filter(|it| it.action > held.action);
    let last = last.map_or((held.action, &held.evidence), |it| (it.action, &it.evidence));
    let eviction = track.eviction.as_deref().filter(|it| it.is_open() && it.action > last.0);
    let (action, evidence) = eviction.map_or(last, |it| (it.action, &it.evidence));
    Wanted {
        rung: track.rung(),
        high: held.high,
        leash: held.leash.is_some(),
        low: held.low,
        frozen: held.rung == Rung::Freeze,
        kill: held.rung == Rung::Kill,
        until: expiry(track, ladder),
        held_off: (held.rung >= Rung::Throttle && track.held_off > at).then_some(track.held_off),
        wish: voluntary.and_then(|it| it.wish.clone()),
        evict: track.eviction.as_ref().is_some_and(|it| it.wanted.is_some()),
        action,
        evidence: evidence.clone(),
        ..Wanted::default()
    }
}

fn expiry(track: &Track, ladder: &Ladder) -> Option<Monotonic> {
    let held = &track.held;
    match held.rung {
        Rung::Throttle => held.high.map(|_| held.lease.until),
        Rung::Freeze => {
            let most = held.since + ladder.freeze_max;
            Some(track.spell.map_or(most, |spell| most.min(spell.until)))
        }
        _ => None,
    }
}

/// What is asked of whom in this pass: of the lowest first, and together no more than calm still lacks.
fn budgets(turn: &Turn<'_>) -> BTreeMap<WorkloadId, Asked> {
    let mut budgets = BTreeMap::new();
    let Some(memory) = turn.memory().filter(|_| turn.tier() > Tier::Normal) else { return budgets };
    let under_way: Bytes =
        turn.held(|r| r != Rung::Free).map(|(_, _, t)| t.arriving(turn.at(), HORIZON)).sum();
    let coming = turn.pending(HORIZON) + turn.promised(turn.patience()) + under_way;
    // Who is unloading, or has, is let alone: what it keeps it needs.
    let trimmed = turn.held(|r| matches!(r, Rung::Trim | Rung::Freeze));
    let mut order: Vec<_> =
        trimmed.filter(|(.., t)| t.rung() == t.held.rung && t.leaves().is_none()).collect();
    order.sort_by_key(|(id, w, _)| (roles::rank(&w.spec), *id));
    let mut lacking = Lacking {
        bytes: turn.assessed.report.deficit.saturating_sub(coming),
        free: free_wanted(&memory),
        swap: memory.swap_free,
    };
    for (id, workload, track) in order {
        if workload.populated != Some(true) || !rested(turn, track) {
            continue;
        }
        let Some(candidate) = turn.candidate(workload, track, lacking.swap) else { continue };
        if let Some(asked) = ask(turn, &candidate, &mut lacking) {
            budgets.insert(id.clone(), asked);
        }
    }
    budgets
}

/// What nobody has been asked for yet.
struct Lacking {
    bytes: Bytes,
    free: Bytes,
    swap: Bytes,
}

/// The kernel takes clean page cache first, which makes pages free and adds nothing to headroom.
fn ask(turn: &Turn<'_>, candidate: &Candidate<'_>, lacking: &mut Lacking) -> Option<Asked> {
    let ladder = &turn.config.ladder;
    let Holding { file, .. } = candidate.holding;
    let rung = candidate.track.held.rung;
    let from_anon = candidate.promised(rung, ladder).min(lacking.bytes);
    let budget = from_anon.max(file.min(lacking.free)).min(ladder.reclaim_step);
    if budget < CRUMBS.min(ladder.reclaim_step) || budget == Bytes::ZERO {
        return None;
    }
    let estimate = candidate.estimate(rung);
    let anon = budget.saturating_sub(file);
    let promised = estimate.in_the_end(anon);
    lacking.bytes = lacking.bytes.saturating_sub(promised);
    lacking.free = lacking.free.saturating_sub(budget);
    lacking.swap = lacking.swap.saturating_sub(anon);
    Some(Asked { at: turn.at(), budget, promised, per_second: estimate.worth.per_second })
}

fn rested(turn: &Turn<'_>, track: &Track) -> bool {
    let pace = if turn.tier() >= Tier::Constrained { Span::ZERO } else { TRIM_APART };
    let paced = track.held.trimmed.is_none_or(|last| turn.at().since(last) >= pace);
    paced && turn.at() >= track.rest.until && track.under_way(turn.at()).is_none()
}

/// Soon while anything is going on; otherwise so that the fastest growth is seen at half of the headroom.
fn next(turn: &Turn<'_>) -> Span {
    let pace = &turn.config.pace;
    let held = turn.held(|r| r > Rung::Free).next().is_some();
    let Some(memory) = turn.memory().filter(|_| turn.tier() == Tier::Normal && !held) else {
        return if turn.sample.trigger == Trigger::Shutdown { pace.calm } else { pace.busy };
    };
    if turn.state.gate.armed() {
        return pace.busy;
    }
    let safe = u128::from(memory.headroom.0) * 500_000_000 / u128::from(FASTEST);
    Span(u64::try_from(safe).unwrap_or(u64::MAX)).min(pace.calm).max(pace.busy)
}
