//! Runs a machine of the fleet and judges what was done there, with all that the model knows and the policy can't.

mod books;
mod passes;
mod tally;

use plimsoll_policy::pass::Pass;
use plimsoll_policy::sample::{Preference, Rung, Sample, WorkloadId};

use crate::fleet::{Death, Fleet, Node, Policy, Role};
use crate::machine::{Machine, Process};
use books::Books;
use passes::Passes;

pub use tally::Tally;

/// A kill is held against what would have come without it in this time.
const HORIZON_MS: u64 = 60_000;
/// A copy of the machine is kept that is no older than this.
const CHECKPOINT_MS: u64 = 10_000;
/// That is bad where the protected wait longer than this in it: one per cent.
const BEARABLE_US: u64 = HORIZON_MS * 1000 / 100;
/// What one gets who is killed while a lower one has this part of the memory: as much as it takes to leave an emergency.
const ENOUGH_PART: u64 = 50;

/// Something to tell of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The policy killed somebody.
    Killed {
        /// Whom.
        name: String,
        /// Without it nothing bad would have happened.
        needless: bool,
        /// One of lower priority who had enough.
        instead: Option<String>,
    },
    /// The kernel did.
    Oom {
        /// Whom.
        name: String,
    },
}

/// Runs machine `number` for so long. Every pass is given to `look`, and what happened at the end of each slice to `tell`.
pub fn judge(
    fleet: &Fleet,
    number: u64,
    policy: &Policy,
    duration_ms: u64,
    mut look: impl FnMut(&Sample, &Pass),
    mut tell: impl FnMut(&Machine, Event),
) -> Tally {
    let mut node = fleet.node(number, policy);
    let mut tally = Tally { machines: 1, ..Tally::default() };
    let mut passes = Passes::default();
    let mut books = Books::default();
    let mut checkpoint = node.clone();
    while node.machine.now_ms < duration_ms {
        let begun = node.machine.now_ms;
        if begun >= checkpoint.machine.now_ms + CHECKPOINT_MS {
            checkpoint.clone_from(&node);
        }
        let ooms = node.machine.oom.len();
        let deaths = node.slice(|sample, pass| {
            passes.look(sample, pass);
            look(sample, pass);
        });
        let kills = std::mem::take(&mut passes.kills);
        for (n, id) in kills.iter().enumerate() {
            let event = killed(&again(&checkpoint, begun), id, &kills[..n], &mut tally);
            tell(&node.machine, event);
        }
        for name in &node.machine.oom[ooms..] {
            tell(&node.machine, Event::Oom { name: name.clone() });
        }
        for (tenant, _) in deaths.iter().filter(|(_, death)| *death == Death::Oom) {
            oom(&again(&checkpoint, begun), *tenant, &mut tally);
        }
        books.take(&node, &deaths, begun, &mut tally);
    }
    tally.time_us = node.machine.now_ms * 1000;
    tally.passes = passes.count;
    tally.findings = passes.findings;
    tally.flaps = passes.flaps;
    tally
}

/// The machine as it was at a moment, by living through the last seconds again: that is dearer than a copy of it, but most seconds
/// are never asked for.
fn again(checkpoint: &Node, now_ms: u64) -> Node {
    let mut node = checkpoint.clone();
    while node.machine.now_ms < now_ms {
        node.slice(|_, _| ());
    }
    node
}

/// Judges a kill that was decided in the slice that began as `before`, after those of `earlier`.
fn killed(before: &Node, id: &WorkloadId, earlier: &[WorkloadId], tally: &mut Tally) -> Event {
    let machine = &before.machine;
    let name = id.path.rsplit('/').next().unwrap_or_default().to_owned();
    let needless = is_needless(before, id);
    let instead = lower_one(machine, id, earlier).map(|p| p.spec.name.clone());
    let victim = machine.processes.get(id);
    let priority = victim.map_or(0, |p| p.spec.priority);
    let untouchable = victim.is_some_and(|p| p.spec.preference == Preference::Omit);
    tally.kills += 1;
    tally.needless += u64::from(needless);
    tally.wrong += u64::from(instead.is_some());
    tally.forbidden += u64::from(untouchable || priority >= machine.config.protect_priority);
    Event::Killed { name, needless, instead }
}

fn oom(before: &Node, tenant: usize, tally: &mut Tally) {
    let tenant = &before.tenants[tenant];
    tally.oom_kills += 1;
    if !tenant.role.is_expendable() {
        tally.oom_protected += 1;
    } else if tenant.id.as_ref().is_some_and(|id| lower_one(&before.machine, id, &[]).is_some()) {
        tally.oom_wrong += 1;
    }
}

/// One who should have died in his place: of lower rank, may be killed, and has enough.
fn lower_one<'m>(machine: &'m Machine, victim: &WorkloadId, earlier: &[WorkloadId]) -> Option<&'m Process> {
    let victim = machine.processes.get(victim)?;
    let rank = |p: &Process| (p.spec.preference, p.spec.priority);
    let enough = victim.anon.min(machine.total / ENOUGH_PART);
    let mut left = machine.processes.iter().filter(|(id, _)| !earlier.contains(id)).map(|(_, p)| p);
    left.find(|p| {
        let open = p.spec.preference != Preference::Omit && p.spec.priority < machine.config.protect_priority;
        let may = open && p.spec.rungs.contains(&Rung::Kill) && !p.dead && p.dies_at.is_none();
        may && rank(p) < rank(victim) && p.anon >= enough
    })
}

/// The same machine with the same demand, on which this one may not be killed: does anything bad happen there? Bad is that the
/// kernel kills somebody, that somebody else has to be killed, or that the protected wait.
fn is_needless(before: &Node, id: &WorkloadId) -> bool {
    let mut other = before.clone();
    let Some(process) = other.machine.processes.get_mut(id) else { return false };
    process.spec.rungs.retain(|&rung| rung != Rung::Kill);
    let end = other.machine.now_ms + HORIZON_MS;
    let (kills, begun) = (other.machine.killed.len(), waited(&other));
    while other.machine.now_ms < end {
        let deaths = other.slice(|_, _| ());
        let stalled = waited(&other).saturating_sub(begun) > BEARABLE_US;
        if !deaths.is_empty() || other.machine.killed.len() > kills || stalled {
            return false;
        }
    }
    true
}

/// How long protected services have waited so far. None of them dies where this matters.
fn waited(node: &Node) -> u64 {
    let services = node.tenants.iter().filter(|t| t.role == Role::Service);
    services.filter_map(|t| Some(t.process(&node.machine)?.psi_us)).sum()
}
