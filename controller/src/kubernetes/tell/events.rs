//! Events: what is the same is told once and then counted, and nobody is told more than a person reads.

mod series;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::series::Series;
use super::budget::Budget;
use super::call::{Call, CallError};
use super::counts::{Counts, Ending, Fate};
use super::happening::{About, Happening, Reason};
use crate::kubernetes::backoff::Dice;

/// Events of a node: twenty at once, then six a minute. A kubelet allows itself as many in a second; this is what is left when five
/// thousand nodes speak at once.
const NODE: (u32, Duration) = (20, Duration::from_secs(10));
/// Events of one pod: six at once, then one a minute. That is a story from the throttle to the kill.
const POD: (u32, Duration) = (6, Duration::from_secs(60));
/// What of these is kept for what is grave.
const KEPT: (u32, u32) = (5, 2);
/// Different things that are remembered at once.
const MOST: usize = 256;
/// What could not be told for so long is told no more: it would be read as news.
const STALE: Duration = Duration::from_secs(300);

/// What is the same: whom it is about, what, and for mistakes in annotations which one.
pub(super) type Key = (About, Reason, u64);

/// All that there is to tell.
#[derive(Debug)]
pub(super) struct Events {
    node: String,
    series: BTreeMap<Key, Series>,
    all: Budget,
    pods: BTreeMap<String, Pod>,
    dice: Dice,
    counts: Arc<Counts>,
}

/// What one pod may still be told of.
#[derive(Debug)]
struct Pod {
    budget: Budget,
    untold: u32,
}

impl Events {
    pub(super) fn new(node: &str, counts: Arc<Counts>, now: Instant) -> Self {
        let all = Budget::new(NODE.0, NODE.1, now);
        Self {
            node: node.into(),
            series: BTreeMap::new(),
            all,
            pods: BTreeMap::new(),
            dice: Dice::new(),
            counts,
        }
    }

    /// Something happened.
    pub(super) fn take(&mut self, happening: Happening, now: Instant) {
        let key = (happening.about.clone(), happening.reason, series::sameness(&happening));
        if let Some(series) = self.series.get_mut(&key).filter(|series| !series.is_over(now)) {
            return series.again(happening, now);
        }
        if self.series.len() >= MOST && !self.series.contains_key(&key) {
            return self.fared(&key.0, Fate::Suppressed, 1);
        }
        let series = Series::new(happening, now, &mut self.dice);
        self.series.insert(key, series);
    }

    /// When there is something to send.
    pub(super) fn due(&mut self, now: Instant) -> Option<Instant> {
        let Self { series, all, pods, .. } = self;
        series.iter().filter_map(|(key, series)| ready(key, series, all, pods, now)).min()
    }

    /// What is to be sent now: the gravest first, then what has waited longest.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Key, Call)> {
        let Self { series, all, pods, node, .. } = self;
        let mut is_ready =
            |key, series: &Series| ready(key, series, all, pods, now).is_some_and(|ready| ready <= now);
        let ready =
            series.iter_mut().filter_map(|(key, series)| is_ready(key, series).then_some((key, series)));
        let (key, series) = ready.min_by_key(|(key, series)| (!key.1.is_grave(), series.due()))?;
        let untold = pods.get(subject(&key.0)).map_or(0, |pod| pod.untold);
        let call = series.call(node, untold);
        let key = key.clone();
        self.all.take(now);
        self.pod(&key.0, now).budget.take(now);
        Some((key, call))
    }

    /// How the sending ended.
    pub(super) fn ended(&mut self, key: &Key, result: Result<(), &CallError>, now: Instant) {
        let Some(series) = self.series.get_mut(key) else { return };
        let (is_there, pending) = (series.is_there(), series.pending());
        match result.map_err(CallError::ending) {
            Ok(()) => {
                series.sent(&self.node, now);
                if !is_there {
                    self.pod(&key.0, now).untold = 0;
                    self.fared(&key.0, Fate::Told, 1);
                    self.fared(&key.0, Fate::Counted, u64::from(pending - 1));
                } else {
                    self.fared(&key.0, Fate::Counted, u64::from(pending));
                }
            }
            // An Event lives an hour; a series may live longer, so that a new one begins.
            Err(Ending::Conflict) if is_there => series.begin_anew(),
            // An earlier run has told it.
            Err(Ending::Conflict) if key.1 == Reason::InvalidAnnotation => series.sent(&self.node, now),
            Err(Ending::Conflict | Ending::Refused) => {
                series.give_up();
                self.fared(&key.0, Fate::Dropped, u64::from(pending));
            }
            // It is tried again after the pause.
            Err(_) => {}
        }
    }

    /// Nothing waits for its turn any more: the daemon ends.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.series.values_mut().for_each(|series| series.hurry(now));
    }

    /// Forgets what is over, and drops what came too late: `away` says whether for want of a server.
    pub(super) fn sweep(&mut self, away: bool, now: Instant) {
        let fate = if away { Fate::Dropped } else { Fate::Suppressed };
        let stale = |series: &Series| series.waiting().is_some_and(|since| now - since >= STALE);
        let dropped: Vec<_> = self.series.iter_mut().filter(|(_, series)| stale(series)).collect();
        let dropped: Vec<_> = dropped
            .into_iter()
            .map(|(key, series)| {
                let pending = series.pending();
                series.give_up();
                (key.0.clone(), pending)
            })
            .collect();
        for (about, pending) in dropped {
            self.fared(&about, fate, pending.into());
        }
        self.series.retain(|_, series| series.waiting().is_some() || !series.is_over(now));
        self.pods.retain(|_, pod| pod.untold > 0 || !pod.budget.is_full(now));
        if self.pods.len() > MOST {
            self.pods.retain(|_, pod| !pod.budget.is_full(now));
        }
    }

    /// Counts what became of something; what was not told is summed up in the next note.
    fn fared(&mut self, about: &About, fate: Fate, count: u64) {
        self.counts.fared(fate, count);
        if let (Fate::Suppressed | Fate::Dropped, Some(pod)) = (fate, self.pods.get_mut(subject(about))) {
            pod.untold = pod.untold.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    fn pod(&mut self, about: &About, now: Instant) -> &mut Pod {
        let new = || Pod { budget: Budget::new(POD.0, POD.1, now), untold: 0 };
        self.pods.entry(subject(about).to_owned()).or_insert_with(new)
    }
}

/// When a series can be sent; `None` where it has nothing to send.
fn ready(
    key: &Key,
    series: &Series,
    all: &mut Budget,
    pods: &mut BTreeMap<String, Pod>,
    now: Instant,
) -> Option<Instant> {
    series.waiting()?;
    let kept = if key.1.is_grave() { (0, 0) } else { KEPT };
    let pod = pods.get_mut(subject(&key.0)).map_or(now, |pod| pod.budget.ready(kept.1, now));
    Some(series.due().max(all.ready(kept.0, now)).max(pod))
}

/// What a budget is kept for: a pod by its UID, or the node.
fn subject(about: &About) -> &str {
    match about {
        About::Pod(pod) => &pod.uid,
        About::Node => "",
    }
}

#[cfg(test)]
mod tests;
