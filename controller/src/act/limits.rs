//! `memory.high` and `memory.low` of a workload: held as the plan wants them, between what others allow and what they grant.

use std::sync::Arc;

use plimsoll_policy::plan::{Act, ActResult, Outcome, Plan, Wanted};
use plimsoll_policy::sample::{Sample, Workload, WorkloadId};
use plimsoll_policy::units::{Bytes, Limit, Span};

use super::mail::End;
use super::others::{File, How};
use super::worker::{self, Job, page_floor, raw};
use super::{Actor, Hand, outcome, result};
use crate::ledger::{Flags, Held};
use crate::sense::cgroup::{Cgroup, FileError};
use crate::sense::clock::now;

impl Actor {
    pub(super) fn high(
        &mut self,
        hand: &mut Hand,
        wanted: &Wanted,
        seen: &Workload,
        outcomes: &mut Vec<Outcome>,
    ) {
        let (Some(now_set), false) = (seen.high, hand.flying.high) else { return };
        let ours = match self.ours(hand, File::High, now_set) {
            Ok(ours) => ours,
            Err(theirs) => return outcomes.push(theirs),
        };
        let found = ours.map_or(now_set, |held| limit(held.found));
        // Never above what somebody else allows: their limit is our ceiling.
        let target = wanted.high.map(page_floor).filter(|high| Limit::Bytes(*high) < found);
        match target {
            Some(high) if hand.high.is_over(now()) && Limit::Bytes(high) != now_set => {
                if ours.is_none() {
                    hand.high.stands(now());
                }
                let (cgroup, slot) = (Arc::clone(&hand.cgroup), hand.slot);
                hand.flying.high = self.workers.submit(Job::High { cgroup, limit: high, slot });
            }
            None if ours.is_some() => {
                let act = Act::High(found);
                outcomes.push(self.inline(hand, act, Flags::HIGH, |cgroup| cgroup.set_high(found)));
            }
            _ => {}
        }
    }

    pub(super) fn low(
        &mut self,
        hand: &mut Hand,
        wanted: &Wanted,
        seen: &Workload,
        outcomes: &mut Vec<Outcome>,
    ) {
        let Some(now_set) = seen.low else { return };
        let ours = match self.ours(hand, File::Low, now_set) {
            Ok(ours) => ours,
            Err(theirs) => return outcomes.push(theirs),
        };
        let found = ours.map_or(now_set, |held| limit(held.found));
        // Never below what somebody else grants.
        let target = wanted.low.map(page_floor).filter(|low| Limit::Bytes(*low) > found);
        match target {
            Some(low) if hand.low.is_over(now()) && differs(low, now_set) => {
                if ours.is_none() {
                    hand.low.stands(now());
                }
                self.ledger.note_low(hand.slot, raw(now_set), low.0);
                let act = Act::Low(Limit::Bytes(low));
                outcomes
                    .push(self.inline(hand, act, Flags::empty(), |cgroup| cgroup.set_low(Limit::Bytes(low))));
            }
            None if ours.is_some() => {
                let act = Act::Low(found);
                outcomes.push(self.inline(hand, act, Flags::LOW, |cgroup| cgroup.set_low(found)));
            }
            _ => {}
        }
    }

    /// What we hold of a file.
    ///
    /// # Errors
    /// What there is to report where somebody else wrote over it: from now on it is theirs, and for a while it is left alone.
    fn ours(&mut self, hand: &mut Hand, file: File, now_set: Limit) -> Result<Option<Held>, Outcome> {
        let (ours, flag, patience) = if file == File::High {
            (self.ledger.high(hand.slot), Flags::HIGH, &mut hand.high)
        } else {
            (self.ledger.low(hand.slot), Flags::LOW, &mut hand.low)
        };
        let Some(held) = ours.filter(|held| !held.is_ours(raw(now_set))) else { return Ok(ours) };
        self.ledger.lower(hand.slot, flag);
        let (id, again) = (hand.cgroup.id.clone(), patience.overwritten(now()));
        Err(self.overwritten(Overwritten { id, file, ours: held.set, now_set, again }))
    }

    /// A write that never blocks, done here and now. `done` is taken out of the ledger when it succeeded.
    fn inline(
        &self,
        hand: &Hand,
        act: Act,
        done: Flags,
        write: impl FnOnce(&Cgroup) -> Result<(), FileError>,
    ) -> Outcome {
        let begun = now();
        let end = match write(&hand.cgroup) {
            Ok(()) => End::Done,
            Err(error) => worker::end_of(&error),
        };
        if matches!(end, End::Done | End::Gone) {
            self.ledger.lower(hand.slot, done);
        }
        outcome(hand, act, result(end), begun)
    }

    /// Counts it and says so. What is found there is theirs from now on, and is what stays there at the end.
    pub(super) fn overwritten(&mut self, overwritten: Overwritten) -> Outcome {
        let act = overwritten.act();
        let Overwritten { id, file, ours, now_set, again } = overwritten;
        let how = How::of(file, ours, now_set);
        Arc::make_mut(&mut self.others).count(file, how);
        let (file, how) = (file.name(), how.name());
        tracing::info!(workload = %id, file, how, %now_set, ours, %again, "somebody else wrote over a value of ours");
        let (begun, took) = (now(), Span::ZERO);
        Outcome { workload: id, act, result: ActResult::Foreign, begun, took, freed: None }
    }

    /// What each protected workload gets beyond what somebody else grants it.
    pub(super) fn increments(&self, plan: &Plan, sample: &Sample) -> Vec<(WorkloadId, Bytes)> {
        let increment = |(id, wanted): (&WorkloadId, &Wanted)| {
            let (low, hand) = (wanted.low?, self.hands.get(id)?);
            let found = self.ledger.low(hand.slot).map(|held| limit(held.found));
            match found.or(sample.workloads.get(id)?.low)? {
                Limit::Max => None,
                Limit::Bytes(found) => Some((id.clone(), low.saturating_sub(found))),
            }
        };
        plan.workloads.iter().filter_map(increment).collect()
    }

    pub(super) fn undo_limits(&self, hand: &Hand) {
        let stands = |held: &Held, now: Result<Limit, FileError>| now.is_ok_and(|now| held.is_ours(raw(now)));
        if let Some(held) = self.ledger.high(hand.slot).filter(|held| stands(held, hand.cgroup.high())) {
            // Raising never blocks; a cgroup that went away meanwhile needs no undoing.
            let _ = hand.cgroup.set_high(limit(held.found));
        }
        if let Some(held) = self.ledger.low(hand.slot).filter(|held| stands(held, hand.cgroup.low())) {
            let _ = hand.cgroup.set_low(limit(held.found));
        }
        self.ledger.lower(hand.slot, Flags::HIGH | Flags::LOW);
    }
}

/// A value of ours that somebody else wrote over.
pub(super) struct Overwritten {
    pub(super) id: WorkloadId,
    pub(super) file: File,
    pub(super) ours: u64,
    pub(super) now_set: Limit,
    /// For how long it is left alone.
    pub(super) again: Span,
}

impl Overwritten {
    fn act(&self) -> Act {
        if self.file == File::High { Act::High(self.now_set) } else { Act::Low(self.now_set) }
    }
}

/// `memory.low` follows a working set that breathes: only a change of 1/16 is worth a write.
pub(super) fn differs(low: Bytes, now_set: Limit) -> bool {
    match now_set {
        Limit::Max => true,
        Limit::Bytes(now) => low.0.abs_diff(now.0) > low.0 / 16,
    }
}

pub(super) fn limit(raw: u64) -> Limit {
    if raw == u64::MAX { Limit::Max } else { Limit::Bytes(Bytes(raw)) }
}
