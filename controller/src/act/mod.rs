//! Turns a plan into writes: only differences, each written down in the ledger first, each proved by a later reading.

mod ancestors;
mod limits;
pub mod mail;
pub mod oom;
pub mod others;
mod patience;
pub mod protect;
pub mod react;
mod ring;
mod seen;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_policy::config::Ladder;
use plimsoll_policy::plan::{Act, ActResult, Outcome, Plan, Wanted};
use plimsoll_policy::sample::{Sample, Workload, WorkloadId};
use plimsoll_policy::units::{Bytes, Monotonic, Share};

use self::ancestors::Ancestors;
use self::mail::{End, Ended};
use self::others::{File, Foreign, How, Others};
use self::patience::Patience;
use self::react::{Look, Order, Reaction};
use self::worker::{Job, Workers};
use crate::ledger::release::continue_stopped;
use crate::ledger::{Flags, Ledger, SlotId};
use crate::sense::cgroup::Cgroup;
use crate::sense::clock::now;

/// Carries plans out.
pub struct Actor {
    ledger: Arc<Ledger>,
    reaction: Reaction,
    workers: Workers,
    hands: BTreeMap<WorkloadId, Hand>,
    ancestors: Ancestors,
    others: Arc<Others>,
    /// Whose dear readings come next.
    looked: Option<WorkloadId>,
}

/// What we hold of one workload.
struct Hand {
    cgroup: Arc<Cgroup>,
    slot: SlotId,
    flying: Flying,
    /// With others who write `memory.high`.
    high: Patience,
    /// With others who write `memory.low`.
    low: Patience,
    /// With others who thaw it.
    freeze: Patience,
    /// What somebody else has set on it.
    foreign: Foreign,
    /// What of that is not in every sample.
    dear: Foreign,
    /// What of that has been said.
    said: Foreign,
}

/// Actions whose end has not been heard of. One of a kind at a time.
#[derive(Clone, Copy, Debug, Default)]
struct Flying {
    reclaim: bool,
    high: bool,
    freeze: bool,
    kill: bool,
}

impl Actor {
    /// Takes over the running threads.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, reaction: Reaction, workers: Workers) -> Self {
        let ancestors = Ancestors::new(&ledger);
        Self {
            ledger,
            reaction,
            workers,
            hands: BTreeMap::new(),
            ancestors,
            others: Arc::default(),
            looked: None,
        }
    }

    /// The reaction thread.
    #[must_use]
    pub fn reaction(&self) -> &Reaction {
        &self.reaction
    }

    /// Takes a workload in.
    ///
    /// # Errors
    /// When the ledger has no room: what can't be written down is not touched.
    pub fn watch(
        &mut self,
        cgroup: &Arc<Cgroup>,
        psi: Option<std::os::fd::OwnedFd>,
    ) -> Result<(), crate::ledger::LedgerError> {
        let slot = self.ledger.claim(&cgroup.id)?;
        self.reaction.order(Order::Watch { cgroup: Arc::clone(cgroup), slot, psi });
        let hand = Hand {
            cgroup: Arc::clone(cgroup),
            slot,
            flying: Flying::default(),
            high: Patience::default(),
            low: Patience::default(),
            freeze: Patience::default(),
            foreign: Foreign::empty(),
            dear: seen::rarely(cgroup, self.ledger.flags(slot)),
            said: Foreign::empty(),
        };
        self.hands.insert(cgroup.id.clone(), hand);
        Ok(())
    }

    /// Lets go of a workload that is no longer one. What was set on it is undone, if it is still there.
    pub fn forget(&mut self, id: &WorkloadId) {
        let Some(hand) = self.hands.remove(id) else { return };
        if self.others.set.contains_key(id) {
            Arc::make_mut(&mut self.others).set.remove(id);
        }
        if hand.cgroup.state().is_ok() {
            self.undo_limits(&hand);
            if self.ledger.flags(hand.slot).intersects(Flags::FROZEN | Flags::STOPPED) {
                self.reaction.order(Order::Thaw(id.inode));
            }
        } else {
            self.ledger.lower(hand.slot, Flags::all());
        }
        self.reaction.order(Order::Forget(id.inode));
        self.ledger.give_back(hand.slot);
    }

    /// Translates the end of an action for the policy, and allows the next of its kind.
    pub fn ended(&mut self, ended: &Ended) -> Option<Outcome> {
        let (id, hand) = self.hands.iter_mut().find(|(id, _)| id.inode == ended.inode)?;
        match (ended.act, ended.end) {
            (Act::Freeze, End::Done) => hand.freeze.stands(now()),
            (Act::Freeze, End::Foreign) => {
                let again = hand.freeze.overwritten(now());
                Arc::make_mut(&mut self.others).count(File::Freeze, How::Thawed);
                tracing::info!(workload = %id, %again, "somebody else thawed it");
            }
            _ => {}
        }
        match ended.act {
            Act::Reclaim(_) => hand.flying.reclaim = false,
            Act::High(_) => hand.flying.high = false,
            Act::Freeze | Act::Thaw => hand.flying.freeze = false,
            Act::Kill => hand.flying.kill = false,
            Act::Low(_) | Act::Evict => {}
        }
        Some(Outcome {
            workload: id.clone(),
            act: ended.act,
            result: result(ended.end),
            begun: ended.begun,
            took: ended.took,
            freed: ended.freed,
        })
    }

    /// Writes what differs between the sample and the plan. Returns the actions that ended at once.
    pub fn apply(&mut self, plan: &Plan, sample: &Sample, deficit: Bytes, ladder: &Ladder) -> Vec<Outcome> {
        // Before anything is written: the sample is older than that.
        self.see_others(sample);
        // The plan has nothing in it then; this is the last lock before the kernel.
        if ladder.dry_run.is_whole() {
            return Vec::new();
        }
        // A growth that merely paused for an instant is no reason to withdraw.
        let margin = |total: Bytes| deficit.max(total.share(Share::percent(1)));
        let enough = sample.host.meminfo.map(|meminfo| meminfo.available + margin(meminfo.total));
        let looks = Looks {
            freeze: Look { enough, deadline: ladder.freeze_deadline },
            kill: Look { enough, deadline: ladder.kill_deadline },
        };
        let granted = self.ancestors.grant(&self.increments(plan, sample), &self.ledger);
        let mut outcomes: Vec<_> = granted.into_iter().map(|theirs| self.overwritten(theirs)).collect();
        for (id, workload) in &sample.workloads {
            let Some(mut hand) = self.hands.remove(id) else { continue };
            self.differences(&mut hand, &plan.workloads[id], workload, looks, &mut outcomes);
            self.hands.insert(id.clone(), hand);
        }
        outcomes
    }

    fn differences(
        &mut self,
        hand: &mut Hand,
        wanted: &Wanted,
        seen: &Workload,
        looks: Looks,
        outcomes: &mut Vec<Outcome>,
    ) {
        if wanted.kill {
            if !hand.flying.kill {
                // That the host has room is no reason to spare one that stands in the way on a GPU. There the second look
                // has been taken: it had to be that full in several readings.
                let host = wanted.killed_for().is_none();
                let look = Look { enough: looks.kill.enough.filter(|_| host), ..looks.kill };
                hand.flying.kill = self.reaction.order(Order::Kill(hand.cgroup.id.inode, look));
            }
            return;
        }
        self.low(hand, wanted, seen, outcomes);
        self.high(hand, wanted, seen, outcomes);
        self.frozen(hand, wanted, seen, looks.freeze);
        if let (Some(budget), false) = (wanted.reclaim, hand.flying.reclaim) {
            let cgroup = Arc::clone(&hand.cgroup);
            hand.flying.reclaim = self.workers.submit(Job::Reclaim { cgroup, budget });
        }
    }

    fn frozen(&self, hand: &mut Hand, wanted: &Wanted, seen: &Workload, look: Look) {
        let ours = self.ledger.flags(hand.slot).contains(Flags::FROZEN);
        let inode = hand.cgroup.id.inode;
        if hand.flying.freeze {
            return;
        }
        if wanted.frozen && seen.frozen != Some(true) && hand.freeze.is_over(now()) {
            hand.flying.freeze = self.reaction.order(Order::Freeze(inode, look));
        } else if !wanted.frozen && ours {
            hand.flying.freeze = self.reaction.order(Order::Thaw(inode));
        }
    }

    /// Notes that the gate may stop these workloads from now. Call it before it is armed.
    pub fn mark_gate(&self, targets: &[WorkloadId]) {
        for (id, hand) in &self.hands {
            if targets.contains(id) {
                self.ledger.raise(hand.slot, Flags::STOPPED);
            }
        }
    }

    /// Continues what the gate stopped and nobody froze. Call it after the gate was disarmed for all but `targets`.
    pub fn settle_gate(&mut self, targets: &[WorkloadId]) {
        let root = self.ledger.cgroup_root();
        for (id, hand) in &self.hands {
            let flags = self.ledger.flags(hand.slot);
            let held = flags.contains(Flags::FROZEN) || hand.flying.freeze;
            if flags.contains(Flags::STOPPED) && !held && !targets.contains(id) {
                continue_stopped(&root.join(&*id.path));
                self.ledger.lower(hand.slot, Flags::STOPPED);
            }
        }
    }

    /// The reaction thread is freezing this workload on its own: not to be undone before its end is heard of.
    pub fn reflex(&mut self, inode: u64) {
        if let Some((_, hand)) = self.hands.iter_mut().find(|(id, _)| id.inode == inode) {
            hand.flying.freeze = true;
        }
    }

    /// Ends the threads. The ledger still lists what is set; the caller releases it.
    pub fn stop(self) {
        self.reaction.stop();
        self.workers.stop();
    }
}

#[derive(Clone, Copy)]
struct Looks {
    freeze: Look,
    kill: Look,
}

fn outcome(hand: &Hand, act: Act, result: ActResult, begun: Monotonic) -> Outcome {
    Outcome { workload: hand.cgroup.id.clone(), act, result, begun, took: now().since(begun), freed: None }
}

fn result(end: End) -> ActResult {
    match end {
        End::Done => ActResult::Done,
        End::Partial => ActResult::Partial,
        End::Gone => ActResult::Gone,
        End::Withdrawn => ActResult::Withdrawn,
        End::Foreign => ActResult::Foreign,
        End::Failed(errno) => ActResult::Failed(std::io::Error::from_raw_os_error(errno).to_string()),
    }
}
