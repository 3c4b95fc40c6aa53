//! What pods say they will need is reserved for their containers, so that room is made before a model loads.
//!
//! Asked of the admission desk like everything else that wants room, and bound to the container's cgroup as `exec --needs` is: it settles
//! as the container grows, and ends with the cgroup or with the time that a model may take to load. From the moment on at which a pod
//! is known until its container has a cgroup, it is held in the container's name. Nobody waits for the answer: the scheduler has
//! placed the pod already, so that there is no room is something to tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_policy::admission::{Answer, Call, Caller, Refusal, Reply, Request, Reserve};
use plimsoll_policy::config::Admission;
use plimsoll_policy::sample::{Sample, WorkloadId};
use plimsoll_policy::units::{Bytes, Monotonic, Span};
use tokio::sync::watch::Receiver;

use super::PodRef;
use super::pods::Pods;
use crate::control::Tickets;

/// Containers for which something is reserved at a time: half of what the desk holds, the rest is for those who ask by themselves.
const MOST: usize = 128;

/// Sees to it that every container is promised what it needs.
#[derive(Debug)]
pub struct Needs {
    pods: Receiver<Arc<Pods>>,
    tickets: Tickets,
    promises: BTreeMap<PodRef, Promise>,
    /// Calls that are to be taken back.
    parting: Vec<u64>,
}

/// A container that needs something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Promise {
    holder: WorkloadId,
    bytes: Bytes,
    priority: i32,
    /// When it was first wanted; `None` = in the next pass.
    since: Option<Monotonic>,
    told: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be asked for from then on.
    Due(Monotonic),
    /// By this call.
    Asked(u64),
    /// It was granted to this call; the reservation, and when something was last said of it.
    Held { ticket: u64, id: u64, heard: Monotonic },
    /// It has what it needs, or can't have it, or had its time.
    Over,
}

/// A container that is not promised what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// Which one.
    pub of: PodRef,
    /// What it said that it will need.
    pub needs: Bytes,
    /// Why not, with the numbers.
    pub refusal: Refusal,
}

impl Needs {
    /// Nothing is needed yet. `pods` are those of this node as they are known at each moment.
    #[must_use]
    pub fn new(pods: Receiver<Arc<Pods>>, tickets: Tickets) -> Self {
        Self { pods, tickets, promises: BTreeMap::new(), parting: Vec::new() }
    }

    /// Takes over what the pods of this node need now, and the cgroups that their containers have.
    pub fn follow<'a>(&mut self, cgroups: impl Iterator<Item = (&'a WorkloadId, &'a PodRef)>) {
        let pods = Arc::clone(&self.pods.borrow());
        let mut wanted = wanted(&pods, &cgroups.map(|(id, of)| (of, id)).collect());
        for (of, promise) in std::mem::take(&mut self.promises) {
            match wanted.get_mut(&of) {
                // Of the same cgroup and as much as before: it goes on.
                Some(now) if now.holder == promise.holder && now.bytes == promise.bytes => *now = promise,
                now => {
                    self.parting.extend(promise.stage.ticket());
                    now.into_iter().for_each(|now| now.told = promise.told);
                }
            }
        }
        self.promises = wanted;
    }

    /// Puts into a sample what there is to be asked for.
    pub fn ask(&mut self, sample: &mut Sample, admission: &Admission) {
        let Self { pods: _, tickets, promises, parting } = self;
        let say = |requests: &mut Vec<Request>, call| {
            let ticket = tickets.next();
            requests.push(Request { ticket, caller: Caller::Root, call });
            ticket
        };
        for ticket in parting.drain(..) {
            say(&mut sample.requests, Call::Withdraw { ticket });
        }
        for promise in promises.values_mut() {
            let seen = sample.workloads.get(&promise.holder);
            let current = seen.and_then(|workload| workload.current).unwrap_or_default();
            let populated = seen.is_some_and(|workload| workload.populated == Some(true));
            if let Some(call) = promise.next(sample.at, admission, current, populated) {
                let asks = matches!(call, Call::Reserve(_));
                let ticket = say(&mut sample.requests, call);
                if asks {
                    promise.stage = Stage::Asked(ticket);
                }
            }
        }
    }

    /// Takes the answers in. Who is not promised what it needs is told of once.
    pub fn hear(&mut self, answers: &[Answer], at: Monotonic) -> Vec<Unmet> {
        if answers.is_empty() {
            return Vec::new();
        }
        let mut unmet = Vec::new();
        for (of, promise) in &mut self.promises {
            let Stage::Asked(ticket) = promise.stage else { continue };
            match answers.iter().find(|answer| answer.ticket == ticket).map(|answer| &answer.reply) {
                Some(Reply::Granted { id, .. }) => promise.stage = Stage::Held { ticket, id: *id, heard: at },
                Some(Reply::Refused(refusal)) => {
                    promise.stage = refusal.retry.map_or(Stage::Over, |after| Stage::Due(at + after));
                    if !std::mem::replace(&mut promise.told, true) {
                        unmet.push(Unmet { of: of.clone(), needs: promise.bytes, refusal: refusal.clone() });
                    }
                }
                _ => {}
            }
        }
        unmet
    }
}

impl Stage {
    /// The call by which something may be held.
    const fn ticket(self) -> Option<u64> {
        match self {
            Self::Asked(ticket) | Self::Held { ticket, .. } => Some(ticket),
            Self::Due(_) | Self::Over => None,
        }
    }
}

impl Promise {
    /// What there is to be said of it now.
    fn next(
        &mut self,
        at: Monotonic,
        admission: &Admission,
        current: Bytes,
        populated: bool,
    ) -> Option<Call> {
        let since = *self.since.get_or_insert(at);
        let late = at.since(since) >= admission.load;
        match self.stage {
            Stage::Due(due) if at >= due => {
                // What it has already it need not be promised: the daemon was started after it, or there was no room before.
                let left = self.bytes.saturating_sub(current);
                if late || left == Bytes::ZERO {
                    self.stage = Stage::Over;
                    return None;
                }
                Some(Call::Reserve(self.reserve(left, current, populated)))
            }
            Stage::Held { ticket, .. } if late && !self.has_cgroup() => {
                // An image that can't be pulled must not hold memory for days.
                self.stage = Stage::Over;
                Some(Call::Withdraw { ticket })
            }
            Stage::Held { ticket, id, heard }
                if !self.has_cgroup() && at.since(heard).0 >= admission.ttl.0 / 4 =>
            {
                self.stage = Stage::Held { ticket, id, heard: at };
                Some(Call::Heartbeat { id })
            }
            _ => None,
        }
    }

    fn reserve(&self, left: Bytes, current: Bytes, populated: bool) -> Reserve {
        Reserve {
            holder: self.holder.clone(),
            sizes: vec![left],
            current,
            priority: self.priority,
            populated,
            wait: Span::ZERO,
            detached: true,
            ..Reserve::default()
        }
    }

    const fn has_cgroup(&self) -> bool {
        self.holder.inode != 0
    }
}

/// The containers that need something and run, or are yet to run for the first time: one that crashes again and again does not hold
/// memory while it is not there.
fn wanted(pods: &Pods, holders: &BTreeMap<&PodRef, &WorkloadId>) -> BTreeMap<PodRef, Promise> {
    let managed = pods.pods.values().filter(|pod| pod.unmanaged.is_none());
    let mut wanted = BTreeMap::new();
    for container in managed.flat_map(|pod| &pod.containers) {
        let Some(bytes) = container.needs else { continue };
        let holder = match holders.get(&container.of) {
            Some(id) => (*id).clone(),
            None if container.id.is_none() && pods.confirmed => coming(&container.of),
            None => continue,
        };
        let (since, told, stage) = (None, false, Stage::Due(Monotonic(0)));
        let promise = Promise { holder, bytes, priority: container.spec.priority, since, told, stage };
        if wanted.len() < MOST {
            wanted.insert(container.of.clone(), promise);
        }
    }
    wanted
}

/// Stands for a cgroup that is not there yet. No cgroup has inode 0, and none is named like this.
fn coming(of: &PodRef) -> WorkloadId {
    WorkloadId { path: format!("coming:{}/{}/{}", of.namespace, of.pod, of.container).into(), inode: 0 }
}

#[cfg(test)]
mod tests;
