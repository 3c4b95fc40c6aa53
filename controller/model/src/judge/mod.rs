//! Runs a machine of the fleet and judges what was done there, with all that the model knows and the policy can't.

mod passes;
mod tally;

use plimsoll_policy::pass::Pass;
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};

use crate::fleet::{Death, Fleet, Node, Policy, Role};
use crate::machine::{Machine, Process};
use passes::Passes;

pub use tally::Tally;

/// A kill is held against what would have come without it in this time.
const HORIZON_MS: u64 = 60_000;
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
    while node.machine.now_ms < duration_ms {
        let before = node.clone();
        let ooms = node.machine.oom.len();
        let deaths = node.slice(|sample, pass| {
            passes.look(sample, pass);
            look(sample, pass);
        });
        for id in std::mem::take(&mut passes.kills) {
            let event = killed(&before, &id, &mut tally);
            tell(&node.machine, event);
        }
        for name in &node.machine.oom[ooms..] {
            tell(&node.machine, Event::Oom { name: name.clone() });
        }
        for (tenant, _) in deaths.iter().filter(|(_, death)| *death == Death::Oom) {
            oom(&before, *tenant, &mut tally);
        }
        account(&mut node, &before, &mut tally);
    }
    tally.time_us = node.machine.now_ms * 1000;
    tally.passes = passes.count;
    tally.findings = passes.findings;
    tally.flaps = passes.flaps;
    tally
}

/// Judges a kill that was decided in the slice that began as `before`.
fn killed(before: &Node, id: &WorkloadId, tally: &mut Tally) -> Event {
    let machine = &before.machine;
    let name = id.path.rsplit('/').next().unwrap_or_default().to_owned();
    let needless = is_needless(before, id);
    let instead = lower_one(machine, id).map(|p| p.spec.name.clone());
    let victim = machine.processes.get(id);
    let priority = victim.map_or(0, |p| p.spec.priority);
    let untouchable = victim.is_some_and(|p| p.spec.preference == plimsoll_policy::sample::Preference::Omit);
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
    } else if tenant.id.as_ref().is_some_and(|id| lower_one(&before.machine, id).is_some()) {
        tally.oom_wrong += 1;
    }
}

/// One who should have died in his place: of lower rank, may be killed, and has enough.
fn lower_one<'m>(machine: &'m Machine, victim: &WorkloadId) -> Option<&'m Process> {
    let victim = machine.processes.get(victim)?;
    let rank = |p: &Process| (p.spec.preference, p.spec.priority);
    let enough = victim.anon.min(machine.total / ENOUGH_PART);
    machine.processes.values().find(|p| {
        let may = p.spec.rungs.contains(&Rung::Kill) && !p.dead && p.dies_at.is_none();
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
    let (kills, mut stall) = (other.machine.killed.len(), 0);
    while other.machine.now_ms < end {
        let former = other.clone();
        let deaths = other.slice(|_, _| ());
        stall += stalled(&former, &other);
        if !deaths.is_empty() || other.machine.killed.len() > kills || stall > BEARABLE_US {
            return false;
        }
    }
    true
}

/// How long protected services waited between two moments.
fn stalled(before: &Node, after: &Node) -> u64 {
    let services = after.tenants.iter().filter(|t| t.role == Role::Service);
    services.filter_map(|t| Some(since(t.id.as_ref()?, before, after, |p| p.psi_us))).sum()
}

/// What a cumulative figure of a process came to between two moments.
fn since(id: &WorkloadId, before: &Node, after: &Node, of: impl Fn(&Process) -> u64) -> u64 {
    let at = |node: &Node| node.machine.processes.get(id).map_or(0, &of);
    at(after).saturating_sub(at(before))
}

/// Adds up the slice that began as `before`.
fn account(node: &mut Node, before: &Node, tally: &mut Tally) {
    let passed = (node.machine.now_ms - before.machine.now_ms) * 1000;
    let second_ends = node.machine.now_ms / 1000 > before.machine.now_ms / 1000;
    for n in 0..node.tenants.len() {
        let (former, tenant) = (&before.tenants[n], &node.tenants[n]);
        let id = tenant.id.as_ref().or(former.id.as_ref());
        let figure = |of: fn(&Process) -> u64| id.map_or(0, |id| since(id, before, node, of));
        if tenant.role == Role::Service {
            let stall = if tenant.down { 0 } else { figure(|p| p.psi_us) };
            let down = if tenant.down { passed } else { 0 };
            tally.stall_us += stall;
            tally.down_us += down;
            tally.served_us += passed;
            let of_second = node.tenants[n].waited(stall + down, second_ends);
            of_second.into_iter().for_each(|us| tally.second(us));
        } else if tenant.role.is_expendable() {
            tally.wanted_us += if id.is_some() || tenant.down { passed } else { 0 };
            tally.done_us += figure(|p| p.work_us);
            let lost = if tenant.id.is_none() && tenant.down { former.unsaved(&before.machine) } else { 0 };
            tally.done_us = tally.done_us.saturating_sub(lost);
        }
    }
    for process in node.machine.processes.values() {
        tally.frozen_us += if process.frozen { passed } else { 0 };
        tally.throttled_us += if process.high.is_some() { passed } else { 0 };
    }
}
