//! What somebody else has set on our workloads: seen in every pass, said once.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use plimsoll_policy::sample::{Sample, Workload, WorkloadId};
use plimsoll_policy::units::{Bytes, Limit};

use super::limits::limit;
use super::others::{Foreign, Others};
use super::{Actor, Hand};
use crate::ledger::Flags;
use crate::sense::cgroup::Cgroup;

impl Actor {
    /// What others did to us and to our workloads.
    #[must_use]
    pub fn others(&self) -> Arc<Others> {
        Arc::clone(&self.others)
    }

    /// Notes what somebody else has set.
    pub(super) fn see_others(&mut self, sample: &Sample) {
        self.look_rarely();
        // Both are in the same order: of a thousand workloads none has to be looked for.
        let mut workloads = sample.workloads.iter().peekable();
        for (id, hand) in &mut self.hands {
            while workloads.next_if(|(other, _)| *other < id).is_some() {}
            let Some((_, workload)) = workloads.next_if(|(other, _)| *other == id) else { continue };
            let flags = self.ledger.flags(hand.slot);
            let (high, low) = (self.ledger.high(hand.slot), self.ledger.low(hand.slot));
            let found = (high.map(|held| limit(held.found)), low.map(|held| limit(held.found)));
            let foreign = hand.dear | in_sample(hand, workload, flags, found);
            if foreign != hand.foreign {
                hand.foreign = foreign;
                Arc::make_mut(&mut self.others).note(id, foreign);
                say(id, hand);
            }
        }
    }

    /// Two more files of one workload in each pass: what they say hardly ever changes.
    fn look_rarely(&mut self) {
        let after = self.looked.take().map_or(Unbounded, Excluded);
        let next = self.hands.range_mut::<WorkloadId, _>((after, Unbounded)).next();
        let Some((id, hand)) = next else { return };
        hand.dear = rarely(&hand.cgroup, self.ledger.flags(hand.slot));
        self.looked = Some(id.clone());
    }
}

/// Each of them once.
fn say(id: &WorkloadId, hand: &mut Hand) {
    let new = hand.foreign - hand.said;
    if !new.is_empty() {
        hand.said |= new;
        tracing::info!(workload = %id, set = %new, "somebody else has set these, and they hold");
    }
}

/// `found` is what stood in memory.high and memory.low before ours.
fn in_sample(hand: &Hand, seen: &Workload, flags: Flags, found: (Option<Limit>, Option<Limit>)) -> Foreign {
    let (high, low) = (found.0.or(seen.high), found.1.or(seen.low));
    // `frozen` lags behind a thaw of ours, `cgroup.freeze` does not.
    let frozen = seen.frozen == Some(true)
        && !hand.flying.freeze
        && !flags.contains(Flags::FROZEN)
        && (hand.foreign.contains(Foreign::FROZEN) || hand.cgroup.is_to_freeze() == Ok(true));
    let mut foreign = Foreign::empty();
    foreign.set(Foreign::NO_SWAP, seen.swap_max == Some(Limit::Bytes(Bytes::ZERO)));
    foreign.set(Foreign::HIGH, high.is_some_and(|high| high != Limit::Max));
    foreign.set(Foreign::LOW, low.is_some_and(|low| low != Limit::Bytes(Bytes::ZERO)));
    foreign.set(Foreign::FROZEN, frozen);
    foreign
}

/// What somebody else has set, of what is not in every sample. A file that this kernel lacks says nothing.
pub(super) fn rarely(cgroup: &Cgroup, flags: Flags) -> Foreign {
    let mut foreign = Foreign::empty();
    foreign.set(Foreign::MIN, cgroup.min().is_ok_and(|min| min != Limit::Bytes(Bytes::ZERO)));
    let group = !flags.contains(Flags::OOM_GROUP) && cgroup.oom_group() == Ok(true);
    foreign.set(Foreign::OOM_GROUP, group);
    foreign
}
