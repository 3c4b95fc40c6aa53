//! Raises rungs: the cheapest set that is enough, the lowest victim first ([`cheapest`](super::cheapest)).
//!
//! Trimming costs a workload little, so it works towards calm: below what elevated may be left at. A throttle or a
//! freeze costs it its progress, so these are for staying below what constrained may be left at, and no more: memory
//! that nobody else needs is not refused to the lowest either.

use super::cheapest::{Give, Member, pick, relax};
use super::explain::{Ask, explain};
use super::spell;
use super::turn::{Turn, part};
use super::victims::victims;
use crate::assess::{Memory, time_for};
use crate::plan::{Evidence, Tier};
use crate::relief::{BRAKE_AHEAD, CRUMBS, Candidate, HORIZON, Relief, SLOW, residual};
use crate::roles::{self, Rank};
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::Track;
use crate::units::{Bytes, Span};

/// While the tier is above normal this share of the memory is kept really free, out of the caches of the
/// expendable: then reclaim has no reason to look at those of the protected.
const FREE_PERCENT: u32 = 3;

/// What is still wanted when a victim's turn comes.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// In headroom, to be calm.
    calm: Bytes,
    /// In headroom, to be out of constrained with the growth of the next moment: what brakes are for.
    brake: Bytes,
    /// In free pages, which page cache can give as well.
    free: Bytes,
    /// Within this time.
    within: Span,
    /// Swap that nobody has been promised yet.
    swap: Bytes,
}

impl Need {
    /// What a rung may be used for.
    fn of(&self, rung: Rung) -> Bytes {
        if rung >= Rung::Throttle { self.brake } else { self.calm }
    }

    /// What is left when this is given, by one who has so much page cache.
    fn after(&self, give: Give, cache: Bytes) -> Self {
        let free = if give.rung >= Rung::Trim { cache + give.bytes } else { Bytes::ZERO };
        Self {
            calm: self.calm.saturating_sub(give.calm),
            brake: self.brake.saturating_sub(give.soon),
            free: self.free.saturating_sub(free),
            within: self.within,
            swap: self.swap.saturating_sub(give.bytes),
        }
    }

    fn is_met(&self) -> bool {
        self.calm == Bytes::ZERO && self.brake == Bytes::ZERO && self.free == Bytes::ZERO
    }
}

pub(crate) fn raise(turn: &mut Turn<'_>) {
    let Some(memory) = turn.memory() else { return };
    let Some(strongest) = strongest(turn.tier()) else { return };
    let need = need(turn, &memory);
    let mut rows = ask_around(turn, strongest, need);
    relax(&mut rows, need.brake);
    trim(&mut rows, need);
    turn.lacking = rows.iter().fold(need, |need, row| need.after(row.give(), row.cache)).brake;
    for row in rows.iter().filter(|row| row.chosen > 0) {
        commit(turn, row);
    }
}

/// The strongest rung short of a kill that a tier allows.
fn strongest(tier: Tier) -> Option<Rung> {
    match tier {
        Tier::Normal => None,
        Tier::Elevated => Some(Rung::Trim),
        Tier::Constrained => Some(Rung::Throttle),
        Tier::Critical | Tier::Emergency => Some(Rung::Freeze),
    }
}

fn need(turn: &Turn<'_>, memory: &Memory) -> Need {
    let falling = residual(memory, turn.just_stopped());
    let host = &turn.config.host;
    let asked = turn.promised(turn.patience());
    let above = |share, growth, within| {
        memory.above(share, growth, BRAKE_AHEAD).saturating_sub(turn.pending(within) + asked)
    };
    let left = time_for(memory.headroom, falling).unwrap_or(HORIZON);
    Need {
        calm: above(host.elevated.leave, Bytes::ZERO, HORIZON),
        brake: above(host.constrained.leave, falling, BRAKE_AHEAD),
        free: free_wanted(memory),
        within: left.clamp(BRAKE_AHEAD, HORIZON),
        swap: memory.swap_free,
    }
}

/// Whether a brake on it would be worth while, and only its budget forbids it.
fn is_spared(turn: &Turn<'_>, workload: &Workload, track: &Track, swap_free: Bytes) -> bool {
    let worth = |c: Candidate<'_>| worthwhile(c.relief(Rung::Freeze, BRAKE_AHEAD, &turn.config.ladder));
    spent(turn, track, Rung::Freeze).is_some()
        && turn.candidate(workload, track, swap_free).is_some_and(worth)
}

/// Free pages that are lacking.
pub(crate) fn free_wanted(memory: &Memory) -> Bytes {
    part(memory, FREE_PERCENT).saturating_sub(memory.free)
}

/// A workload whose turn came.
struct Row {
    id: WorkloadId,
    rank: Rank,
    gives: Vec<Give>,
    chosen: usize,
    /// Page cache that it has.
    cache: Bytes,
    /// What was still wanted when its turn came.
    left: Need,
}

impl Member for Row {
    fn gives(&self) -> &[Give] {
        &self.gives
    }

    fn rank(&self) -> Rank {
        self.rank
    }

    fn chosen(&self) -> usize {
        self.chosen
    }

    fn choose(&mut self, at: usize) {
        self.chosen = at;
    }
}

impl Row {
    /// Where no brake is needed of it, trims it for calm, or for free pages that its cache would give.
    fn trim(&mut self, need: &Need) {
        let now = self.give();
        let Some(trim) = self.gives.get(1).filter(|give| give.rung == Rung::Trim) else { return };
        let calms = now.calm < need.calm && trim.calm > now.calm;
        let frees = need.free > Bytes::ZERO && self.cache >= CRUMBS;
        if self.chosen == 0 && (calms || frees) {
            self.chosen = 1;
        }
    }
}

/// From the one that yields first up, each as far as is still wanted, until nothing is.
fn ask_around(turn: &Turn<'_>, mut strongest: Rung, mut need: Need) -> Vec<Row> {
    let mut rows = Vec::new();
    for (id, workload, track) in victims(turn, strongest, need.within, need.swap) {
        if need.is_met() {
            break;
        }
        if is_spared(turn, workload, track, need.swap) {
            // Nobody is braked in place of one that matters less.
            strongest = strongest.min(Rung::Trim);
        }
        let Some(candidate) = turn.candidate(workload, track, need.swap) else { continue };
        let mut row = row(turn, id, workload, &candidate, strongest, need);
        row.chosen = pick(&row.gives, need.brake);
        row.trim(&need);
        need = need.after(row.give(), row.cache);
        rows.push(row);
    }
    rows
}

/// Once it is known who is braked and how hard, trims as many as are needed beside them.
fn trim(rows: &mut [Row], mut need: Need) {
    for row in rows {
        row.trim(&need);
        need = need.after(row.give(), row.cache);
    }
}

/// What a workload gives on the rung that it is on and on those that it may be put on.
fn row(
    turn: &Turn<'_>,
    id: &WorkloadId,
    workload: &Workload,
    candidate: &Candidate<'_>,
    strongest: Rung,
    left: Need,
) -> Row {
    let (track, cache) = (candidate.track, candidate.holding.file);
    let give = |rung| give(turn, candidate, rung, left.within);
    let now = track.held.brake();
    let mut gives = vec![give(now)];
    let reach = reach(turn, workload, candidate, strongest, &left);
    for rung in [Rung::Trim, Rung::Throttle, Rung::Freeze] {
        let open = rung > now && rung <= reach && open(turn, workload, track, rung);
        let spills = rung == Rung::Throttle && candidate.spills() && reach >= Rung::Freeze;
        if !open || (spills && roles::allows(turn.config, workload, Rung::Freeze)) {
            continue;
        }
        let most = gives.iter().map(|g| g.soon).max().unwrap_or_default();
        gives.extend(worth(turn, candidate, give(rung), give(now), most));
    }
    let rank = roles::rank(&workload.spec);
    Row { id: id.clone(), rank, gives, chosen: 0, cache, left }
}

fn give(turn: &Turn<'_>, candidate: &Candidate<'_>, rung: Rung, within: Span) -> Give {
    let relief = |within| candidate.relief(rung, within, &turn.config.ladder);
    Give {
        rung,
        soon: relief(BRAKE_AHEAD).total(),
        calm: relief(within).total(),
        bytes: relief(within).bytes,
    }
}

/// What is worth an action: trimming if it adds to calm, or to free pages; a brake if it adds to the next moment.
fn worth(turn: &Turn<'_>, candidate: &Candidate<'_>, give: Give, now: Give, most: Bytes) -> Option<Give> {
    if give.rung == Rung::Trim {
        let adds = give.bytes >= CRUMBS && give.calm > now.calm;
        let cache = candidate.holding.file >= CRUMBS;
        return if adds { Some(give) } else { cache.then_some(Give { rung: Rung::Trim, ..now }) };
    }
    let soon = candidate.relief(give.rung, BRAKE_AHEAD, &turn.config.ladder);
    if !worthwhile(soon) {
        return None;
    }
    if give.soon > most {
        return Some(give);
    }
    // Where nothing is enough, what is reclaimed must at least not come back: a frozen one can't refault.
    let keeps = give.rung == Rung::Freeze && soon.bytes >= CRUMBS && once_frozen(turn, candidate) >= most;
    keeps.then_some(Give { soon: most + Bytes(1), ..give })
}

/// What reclaim brings in the next moment after the freeze itself.
fn once_frozen(turn: &Turn<'_>, candidate: &Candidate<'_>) -> Bytes {
    let lag = candidate.estimate(Rung::Freeze).worth.lag;
    candidate.relief(Rung::Freeze, BRAKE_AHEAD.saturating_add(lag), &turn.config.ladder).total()
}

/// A workload is frozen where another one would be throttled if a throttle of it was futile; or if it grows, and all that is
/// gentler takes longer than there is.
fn reach(
    turn: &Turn<'_>,
    workload: &Workload,
    candidate: &Candidate<'_>,
    strongest: Rung,
    left: &Need,
) -> Rung {
    let gentler = [Rung::Trim, Rung::Throttle];
    let enough = |rung, time| {
        open(turn, workload, candidate.track, rung)
            && candidate.relief(rung, time, &turn.config.ladder).total() >= left.brake
    };
    let hurried = |time| candidate.grows() && !gentler.iter().any(|&rung| enough(rung, time));
    let forecast = turn.assessed.report.forecast.left();
    let futile = turn.at() < candidate.track.no_throttle;
    if strongest == Rung::Throttle && (futile || forecast.is_some_and(hurried)) {
        Rung::Freeze
    } else {
        strongest
    }
}

fn worthwhile(relief: Relief) -> bool {
    relief.bytes >= CRUMBS || relief.growth >= SLOW
}

fn open(turn: &Turn<'_>, workload: &Workload, track: &Track, rung: Rung) -> bool {
    let futile = rung == Rung::Throttle && turn.at() < track.no_throttle;
    // Trimming would take a workload that is being let go off its leash.
    let leashed = rung == Rung::Trim && track.held.leash.is_some();
    let free = !futile && !leashed && !gives_of_itself(turn, workload, track, rung);
    let rests = rung == Rung::Freeze && spell::rests(workload, track, turn.at()).is_some();
    roles::allows(turn.config, workload, rung) && free && !rests && spent(turn, track, rung).is_none()
}

/// One that is being offloaded or unloaded is left to it as long as that is in time; and what has moved to the host on request is
/// not put under a limit there.
fn gives_of_itself(turn: &Turn<'_>, workload: &Workload, track: &Track, rung: Rung) -> bool {
    let Some(voluntary) = track.voluntary.as_deref().filter(|_| rung >= Rung::Throttle) else { return false };
    (voluntary.leaves() && turn.answers(workload, track, turn.patience()))
        || (rung == Rung::Throttle && voluntary.is_moved())
}

/// How many, where the brakes of the hour are used up; survival is not bound by that.
pub(crate) fn spent(turn: &Turn<'_>, track: &Track, rung: Rung) -> Option<u32> {
    let begins = rung >= Rung::Throttle && track.held.rung < Rung::Throttle;
    let brakes = track.repeats.spent(&turn.config.ladder, turn.at());
    brakes.filter(|_| begins && turn.tier() < Tier::Emergency)
}

fn commit(turn: &mut Turn<'_>, row: &Row) {
    let Row { id, left, .. } = row;
    let rung = row.give().rung;
    let needed = left.of(rung);
    let evidence = turn.because([
        Evidence::Tier { tier: turn.tier(), deficit: needed },
        Evidence::Yield { expected: row.give().bytes },
        Evidence::Growth { bytes_per_second: turn.growth(id) },
    ]);
    let within = if rung >= Rung::Throttle { BRAKE_AHEAD } else { left.within };
    let taken = explain(turn, id, Ask { rung, needed, within, horizon: left.within, swap: left.swap });
    turn.put(id, rung, evidence);
    turn.explained(id, taken);
}
