//! Which pods the pass has asked to have evicted: one request for each, however often and for how many of its containers it is wanted.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_policy::plan::{Act, ActResult, Outcome, Plan};
use plimsoll_policy::sample::{Sample, WorkloadId};
use plimsoll_policy::units::{Monotonic, Span};
use tokio::sync::mpsc::Sender;

use super::evict::{Evicted, Order};
use crate::kubernetes::PodRef;

/// Before a pod whose eviction was refused is asked for again, whoever wants it.
const AGAIN: Span = Span::secs(10);
/// A pod that was to go and is still there after its grace and this is asked for again.
const STAYS: Span = Span::secs(60);
/// What Kubernetes gives a pod that asks for nothing else.
const GRACE: Span = Span::secs(30);
/// The task that asks answers long before this.
const LOST: Span = Span::secs(60);

/// All of them.
#[derive(Debug)]
pub(super) struct Evictions {
    /// `None` where nobody is evicted.
    orders: Option<Sender<Order>>,
    /// By the UID of the pod.
    asked: BTreeMap<String, Asked>,
}

#[derive(Debug)]
struct Asked {
    workloads: BTreeSet<WorkloadId>,
    grace: Span,
    answered: bool,
    /// When it may be asked for again.
    until: Monotonic,
}

impl Evictions {
    pub(super) const fn new(orders: Option<Sender<Order>>) -> Self {
        Self { orders, asked: BTreeMap::new() }
    }

    /// Asks for what the plan wants and has not been asked for.
    pub(super) fn pass<'a>(
        &mut self,
        sample: &Sample,
        plan: &Plan,
        pod: impl Fn(&WorkloadId) -> Option<&'a PodRef>,
    ) {
        self.asked.retain(|_, asked| asked.until > sample.at);
        for (id, _) in plan.workloads.iter().filter(|(_, wanted)| wanted.evict) {
            let Some(pod) = pod(id) else { continue };
            if let Some(asked) = self.asked.get_mut(&pod.uid) {
                if !asked.answered {
                    asked.workloads.insert(id.clone());
                }
                continue;
            }
            let grace = sample.workloads.get(id).and_then(|workload| workload.spec.evictable);
            let order = Order { pod: pod.clone(), grace, begun: sample.at };
            // Where there is no room it is wanted again by the next plan.
            if self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok()) {
                let asked = Asked {
                    workloads: [id.clone()].into(),
                    grace: grace.unwrap_or(GRACE),
                    answered: false,
                    until: sample.at + LOST,
                };
                self.asked.insert(pod.uid.clone(), asked);
            }
        }
    }

    /// An answer: one outcome for every workload of the pod that was to go.
    pub(super) fn ended(&mut self, evicted: Evicted) -> Vec<Outcome> {
        let Evicted { uid, result, begun, took } = evicted;
        let Some(asked) = self.asked.get_mut(&uid).filter(|asked| !asked.answered) else { return Vec::new() };
        asked.answered = true;
        let pause = if result == ActResult::Done { asked.grace.saturating_add(STAYS) } else { AGAIN };
        asked.until = begun + took + pause;
        let outcome = |workload| Outcome {
            workload,
            act: Act::Evict,
            result: result.clone(),
            begun,
            took,
            freed: None,
        };
        std::mem::take(&mut asked.workloads).into_iter().map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::plan::Wanted;
    use tokio::sync::mpsc::channel;

    use super::*;

    fn id(path: &str) -> WorkloadId {
        WorkloadId { path: path.into(), inode: 1 }
    }

    fn pass(evictions: &mut Evictions, at: u64, wanted: &[&str]) {
        let pod = PodRef { pod: "p".into(), uid: "u".into(), ..PodRef::default() };
        let wanted = wanted.iter().map(|path| (id(path), Wanted { evict: true, ..Wanted::default() }));
        let plan = Plan { workloads: wanted.collect(), ..Plan::default() };
        let sample = Sample { at: Monotonic::default() + Span::secs(at), ..Sample::default() };
        evictions.pass(&sample, &plan, |_| Some(&pod));
    }

    fn end(evictions: &mut Evictions, at: u64, result: ActResult) -> Vec<WorkloadId> {
        let begun = Monotonic::default() + Span::secs(at);
        let evicted = Evicted { uid: "u".into(), result, begun, took: Span::ZERO };
        evictions.ended(evicted).into_iter().map(|outcome| outcome.workload).collect()
    }

    #[test]
    fn a_pod_is_asked_for_once_for_all_its_containers() {
        let (sender, mut orders) = channel(8);
        let mut evictions = Evictions::new(Some(sender));
        (100..103).for_each(|at| pass(&mut evictions, at, &["a", "b"]));
        assert_eq!((orders.try_recv().is_ok(), orders.try_recv().is_ok()), (true, false));
        assert_eq!(end(&mut evictions, 103, ActResult::Blocked("no".into())), [id("a"), id("b")]);
        assert_eq!(end(&mut evictions, 103, ActResult::Done), []);
        // Not again at once, but after a while.
        pass(&mut evictions, 112, &["a"]);
        assert!(orders.try_recv().is_err());
        pass(&mut evictions, 113, &["a"]);
        assert!(orders.try_recv().is_ok());
        // Once granted it gets its grace.
        end(&mut evictions, 114, ActResult::Done);
        pass(&mut evictions, 203, &["a"]);
        assert!(orders.try_recv().is_err());
        pass(&mut evictions, 204, &["a"]);
        assert!(orders.try_recv().is_ok());
    }

    #[test]
    fn nobody_is_asked_for_where_that_is_off_or_nobody_listens() {
        let mut evictions = Evictions::new(None);
        pass(&mut evictions, 1, &["a"]);
        assert!(evictions.asked.is_empty());
        let (sender, orders) = channel(1);
        drop(orders);
        let mut evictions = Evictions::new(Some(sender));
        pass(&mut evictions, 1, &["a"]);
        assert!(evictions.asked.is_empty());
    }
}
