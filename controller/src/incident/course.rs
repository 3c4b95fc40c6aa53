//! The course of an incident under one policy: how long which tier and rung lasted, and what was done first.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_policy::plan::{Assessment, Plan, Tier};
use plimsoll_policy::sample::Rung;
use plimsoll_policy::units::{Monotonic, Share, Span};
use serde::Serialize;

/// Points that are kept of a curve; it is drawn some hundred pixels wide.
const POINTS: usize = 4000;

/// Sums over all passes, and what a plot needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Course {
    /// Time in each tier.
    pub tiers: BTreeMap<Tier, Span>,
    /// Time that the gate was armed.
    pub gate: Span,
    /// Time on each rung above `free`, by the cgroup of the workload.
    pub workloads: BTreeMap<String, BTreeMap<Rung, Span>>,
    /// Actions by the rung that they led to.
    pub actions: BTreeMap<Rung, u64>,
    /// Whom it killed.
    pub killed: BTreeSet<String>,
    /// What it did first.
    pub first: Option<First>,
    #[serde(skip)]
    pub(super) used: Vec<(Monotonic, Share)>,
    /// Every change, the first moment included.
    #[serde(skip)]
    pub(super) tier_changes: Vec<(Monotonic, Tier)>,
    #[serde(skip)]
    pub(super) rung_changes: BTreeMap<String, Vec<(Monotonic, Rung)>>,
    #[serde(skip)]
    pub(super) last: Option<Last>,
}

/// The first action.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct First {
    /// Since the first pass.
    pub after: Span,
    /// The rung.
    pub rung: Rung,
    /// The cgroup of the workload.
    pub workload: String,
}

/// The last pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Last {
    pub(super) at: Monotonic,
    begun: Monotonic,
    tier: Tier,
    gate: bool,
    rungs: BTreeMap<String, (Rung, u64)>,
}

impl Course {
    /// Takes a pass over. `follows` says that no pass is missing before it: time in a gap belongs to nobody.
    pub(super) fn pass(&mut self, at: Monotonic, follows: bool, seen: &Assessment, plan: &Plan) {
        let before = self.last.take().unwrap_or(Last { at, begun: at, ..Last::default() });
        let passed = if follows { at.since(before.at) } else { Span::ZERO };
        self.lasted(&before, passed);
        let rungs =
            plan.workloads.iter().map(|(id, it)| (id.path.to_string(), (it.rung, it.action))).collect();
        let now = Last { at, begun: before.begun, tier: seen.tier, gate: plan.gate.armed(), rungs };
        self.changed(&before, &now);
        self.point(at, seen.used);
        self.last = Some(now);
    }

    fn lasted(&mut self, before: &Last, passed: Span) {
        add(self.tiers.entry(before.tier).or_default(), passed);
        if before.gate {
            add(&mut self.gate, passed);
        }
        for (name, (rung, _)) in before.rungs.iter().filter(|(_, (rung, _))| *rung > Rung::Free) {
            add(self.workloads.entry(name.clone()).or_default().entry(*rung).or_default(), passed);
        }
    }

    fn changed(&mut self, before: &Last, now: &Last) {
        if self.tier_changes.last().is_none_or(|(_, tier)| *tier != now.tier) {
            self.tier_changes.push((now.at, now.tier));
        }
        for (name, (rung, action)) in &now.rungs {
            let (was, earlier) = before.rungs.get(name).copied().unwrap_or_default();
            if was == *rung && (earlier == *action || *rung == Rung::Free) {
                continue;
            }
            self.rung_changes.entry(name.clone()).or_default().push((now.at, *rung));
            *self.actions.entry(*rung).or_default() += 1;
            if *rung == Rung::Kill {
                self.killed.insert(name.clone());
            }
            if *rung > Rung::Free {
                let after = now.at.since(now.begun);
                self.first.get_or_insert_with(|| First { after, rung: *rung, workload: name.clone() });
            }
        }
        for name in before.rungs.keys().filter(|name| !now.rungs.contains_key(*name)) {
            if let Some(changes) = self.rung_changes.get_mut(name) {
                changes.push((now.at, Rung::Free));
            }
        }
    }

    /// Of two neighbours the higher one is kept when there are too many.
    fn point(&mut self, at: Monotonic, used: Option<Share>) {
        self.used.extend(used.map(|used| (at, used)));
        if self.used.len() > 2 * POINTS {
            let pairs = self.used.chunks(2).filter_map(|pair| pair.iter().max_by_key(|(_, used)| *used));
            self.used = pairs.copied().collect();
        }
    }
}

fn add(sum: &mut Span, more: Span) {
    sum.0 = sum.0.saturating_add(more.0);
}
