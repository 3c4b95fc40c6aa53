//! Tells the API server what is done on this node, and asks it to hand pods to others.
//!
//! The [`Teller`] belongs to the pass, which shows it every plan and never waits: what changed goes through bounded channels, and
//! what finds no room is counted and not told. What speaks is one task on tokio.

mod budget;
mod call;
mod changes;
mod condition;
pub mod counts;
mod events;
mod evict;
mod evictions;
mod happening;
mod problems;
mod speaker;
mod standing;
mod steady;
mod taint;
mod tiers;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use plimsoll_policy::config::Config;
use plimsoll_policy::plan::{Assessment, Outcome, Plan};
use plimsoll_policy::sample::Sample;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::changes::Changes;
pub use self::counts::Counts;
use self::counts::Fate;
pub use self::evict::Evicted;
use self::evictions::Evictions;
use self::happening::{About, Happening, Reason, plain};
use self::speaker::{Ears, Speaker};
use self::standing::Standing;
use super::PodRef;
use super::needs::Unmet;
use super::pods::Pods;
use crate::sense::discover::Found;

/// What may wait to be told. A pass has as many where it lets go of a hundred workloads twice.
const WAITING: usize = 256;
/// Evictions that may wait. Policy wants one at a time.
const ORDERS: usize = 8;
/// What the end of the daemon waits for the API server to hear of it. A server that is away holds nobody up.
const FAREWELL: Duration = Duration::from_secs(2);

/// Tells. One owner, the pass.
pub struct Teller {
    events: bool,
    pods: BTreeMap<String, PodRef>,
    changes: Changes,
    evictions: Evictions,
    standing: watch::Sender<Option<Standing>>,
    happenings: mpsc::Sender<Happening>,
    counts: Arc<Counts>,
    stop: oneshot::Sender<()>,
    speaker: JoinHandle<()>,
}

/// Begins to tell as soon as there is a client (one that does not try again by itself); the ends of evictions arrive at the receiver.
/// Call it on the runtime.
#[must_use]
pub fn start(
    config: &Config,
    client: watch::Receiver<Option<Client>>,
    node: &str,
    pods: watch::Receiver<Arc<Pods>>,
    counts: Arc<Counts>,
) -> (Teller, mpsc::Receiver<Evicted>) {
    let (happenings, hears_happenings) = mpsc::channel(WAITING);
    let (orders, hears_orders) = mpsc::channel(ORDERS);
    let (evicted, ends) = mpsc::channel(ORDERS * 2);
    let (stop, stopped) = oneshot::channel();
    // A whole dry run does nothing to anybody, and keeping pods away is something.
    let dry = config.ladder.dry_run.is_whole();
    let mut settings = config.kubernetes.clone();
    settings.taint &= !dry;
    let (standing, hears) = watch::channel(None);
    let ears = Ears { client, standing: hears, happenings: hears_happenings, orders: hears_orders, pods };
    let speaker = Speaker::new(node, &settings, ears, evicted, Arc::clone(&counts));
    let teller = Teller {
        events: settings.events,
        pods: BTreeMap::new(),
        changes: Changes::default(),
        evictions: Evictions::new((settings.evict && !dry).then_some(orders)),
        standing,
        happenings,
        counts,
        stop,
        speaker: tokio::spawn(speaker.run(stopped)),
    };
    (teller, ends)
}

impl Teller {
    /// Takes over which workloads are containers of which pods.
    pub fn take_workloads(&mut self, found: &Found) {
        let pods = found.iter().filter_map(|(path, workload)| Some((path.clone(), workload.pod.clone()?)));
        self.pods = pods.collect();
    }

    /// Takes a pass, and hands over what there is to tell.
    pub fn pass(&mut self, sample: &Sample, assessment: &Assessment, plan: &Plan) {
        self.standing.send_if_modified(|former| {
            let now = Standing::of(assessment);
            let news = former.as_ref().is_none_or(|former| now.differs(former));
            *former = Some(now);
            news
        });
        let Self { pods, changes, evictions, .. } = self;
        let told = changes.pass(sample, plan, |id| pods.get(&*id.path).cloned());
        evictions.pass(sample, plan, |id| pods.get(&*id.path));
        self.tell(told);
    }

    /// A container that is not promised what it needs.
    pub fn unmet(&self, Unmet { of, needs, refusal }: &Unmet) {
        let note = plain(&format!("no room for the {needs} that it needs: {refusal}"));
        let (about, reason) = (About::Pod(of.clone()), Reason::NeedsUnmet);
        self.tell(vec![Happening { about, reason, note, at: Timestamp::now() }]);
    }

    /// The end of an eviction, as outcomes for the next sample.
    pub fn take_evicted(&mut self, evicted: Evicted) -> Vec<Outcome> {
        self.evictions.ended(evicted)
    }

    /// Says that everything is let go and nobody looks after this node any more. Bounded, whatever the API server does.
    pub async fn farewell(mut self) {
        let released = self.changes.end();
        self.tell(released);
        let _ = self.stop.send(());
        let abort = self.speaker.abort_handle();
        if tokio::time::timeout(FAREWELL, self.speaker).await.is_err() {
            tracing::warn!("the API server did not hear in time that this node is not looked after any more");
            abort.abort();
        }
    }

    /// Never waits.
    fn tell(&self, happenings: Vec<Happening>) {
        for happening in happenings.into_iter().filter(|_| self.events) {
            if self.happenings.try_send(happening).is_err() {
                self.counts.fared(Fate::Dropped, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
