//! Finds the actions in a journal: wherever a plan puts a workload on another rung, it gives that a number.

use std::collections::BTreeMap;

use plimsoll_policy::journal::Line;
use plimsoll_policy::plan::{Evidence, Expected, Gate, Plan, Refused, Tier, Wanted};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::Monotonic;

/// One action, as the pass that took it left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its number.
    pub id: u64,
    /// When its sample was taken.
    pub at: Monotonic,
    /// Of whom.
    pub workload: WorkloadId,
    /// What people call it.
    pub name: String,
    /// The rung before; `None` where the journal does not reach back that far.
    pub from: Option<Rung>,
    /// The rung that it was put on.
    pub to: Rung,
    /// Tier of the host.
    pub tier: Tier,
    /// Why.
    pub evidence: Vec<Evidence>,
    /// What it was to bring.
    pub expected: Option<Expected>,
    /// What was not done instead.
    pub refused: Vec<Refused>,
    /// How it came about.
    pub kind: Kind,
}

/// How an action came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Planned and done.
    Planned,
    /// The kernel's gate stopped it by itself, and the plan took that over.
    Gate,
    /// Planned on a dry rung, and not done.
    Dry,
}

/// What is known from the lines so far.
#[derive(Debug, Default)]
pub struct Actions {
    last: BTreeMap<WorkloadId, Standing>,
    gate: Gate,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    rung: Rung,
    action: u64,
    dry: u64,
}

impl Actions {
    /// Takes a line and gives the actions that its pass took.
    pub fn line(&mut self, line: &Line<'_>) -> Vec<Action> {
        // A daemon begins with nothing held.
        if line.n == Some(1) {
            self.last.clear();
        }
        let Some(plan) = &line.plan else { return Vec::new() };
        let found =
            plan.workloads.iter().flat_map(|(id, wanted)| self.taken(line, plan, id, wanted)).collect();
        self.last.retain(|id, _| plan.workloads.contains_key(id));
        self.gate.clone_from(&plan.gate);
        found
    }

    fn taken(&mut self, line: &Line<'_>, plan: &Plan, id: &WorkloadId, wanted: &Wanted) -> Vec<Action> {
        let dry = wanted.would.as_ref().map_or(0, |would| would.action);
        let now = Standing { rung: wanted.rung, action: wanted.action, dry };
        let before = self.last.insert(id.clone(), now);
        let known = before.unwrap_or_default();
        let mut found = Vec::new();
        // The first line of a journal may find a workload where an earlier action had left it.
        let new = now.action != known.action && (now.rung > Rung::Free || before.is_some());
        if new {
            let from = before.map(|it| it.rung).or((line.n == Some(1)).then_some(Rung::Free));
            found.push(self.action(line, plan, id, from));
        }
        if let Some(would) = wanted.would.as_ref().filter(|would| would.action != known.dry) {
            let dry = Action {
                id: would.action,
                to: would.rung,
                evidence: would.evidence.clone(),
                expected: None,
                refused: Vec::new(),
                kind: Kind::Dry,
                ..self.action(line, plan, id, Some(wanted.rung))
            };
            found.push(dry);
        }
        found
    }

    fn action(&self, line: &Line<'_>, plan: &Plan, id: &WorkloadId, from: Option<Rung>) -> Action {
        let wanted = plan.workloads.get(id).cloned().unwrap_or_default();
        let seen = line.sample.workloads.get(id);
        let name = seen.map(|it| it.spec.name.clone()).filter(|it| !it.is_empty());
        let stopped = seen.is_some_and(|it| it.frozen == Some(true)) && self.gate.targets.contains(id);
        let gate = stopped && wanted.rung == Rung::Freeze && from < Some(Rung::Freeze);
        Action {
            id: wanted.action,
            at: line.sample.at,
            workload: id.clone(),
            name: name.unwrap_or_else(|| id.path.to_string()),
            from,
            to: wanted.rung,
            tier: line.assessment.as_ref().map(|it| it.tier).unwrap_or_default(),
            evidence: wanted.evidence,
            expected: wanted.expected,
            refused: wanted.refused,
            kind: if gate { Kind::Gate } else { Kind::Planned },
        }
    }
}
