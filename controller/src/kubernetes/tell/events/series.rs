//! One Event and how often the same happened since.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use hyper::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kubernetes::backoff::Dice;
use crate::kubernetes::tell::call::{Call, JSON, MERGE};
use crate::kubernetes::tell::counts::What;
use crate::kubernetes::tell::happening::{About, Happening, Reason};

/// Who speaks.
const CONTROLLER: &str = "plimsoll.dev/controller";
/// After so long without another a series is over, as with Kubernetes' own recorders.
const OVER: Duration = Duration::from_secs(360);
/// The first that is told of waits for a part of this, so that nodes do not speak at once. What is over by then is told in one.
const SPREAD: Duration = Duration::from_secs(4);
/// The same for what can't be undone: a person looks for it at once.
const SPREAD_GRAVE: Duration = Duration::from_secs(1);
/// Between two counts of the same, the first and the longest.
const COUNT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// Where Events of things without a namespace are: Kubernetes before 1.22 takes them nowhere else.
const NOWHERE: &str = "kube-system";

/// One Event.
#[derive(Debug)]
pub(super) struct Series {
    last: Happening,
    /// When the first of those happened that are to be told.
    first: Timestamp,
    /// Its name, once it is there.
    name: Option<String>,
    /// How often in all, and how many of these are told.
    count: u32,
    told: u32,
    seen: Instant,
    waiting: Option<Instant>,
    due: Instant,
    counted: u32,
}

impl Series {
    pub(super) fn new(happening: Happening, now: Instant, dice: &mut Dice) -> Self {
        let spread = if happening.reason.is_grave() { SPREAD_GRAVE } else { SPREAD };
        Self {
            first: happening.at,
            last: happening,
            name: None,
            count: 1,
            told: 0,
            seen: now,
            waiting: Some(now),
            due: now + dice.below(spread),
            counted: 0,
        }
    }

    /// It happened again.
    pub(super) fn again(&mut self, happening: Happening, now: Instant) {
        self.last = happening;
        self.count = self.count.saturating_add(1);
        self.seen = now;
        self.waiting.get_or_insert(now);
    }

    /// Whether the next of its kind begins a new one.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.waiting.is_none() && now.saturating_duration_since(self.seen) >= OVER
    }

    /// Since when there is something to send.
    pub(super) const fn waiting(&self) -> Option<Instant> {
        self.waiting
    }

    /// When it may be sent.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// It may be sent now.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// How many are to be told.
    pub(super) const fn pending(&self) -> u32 {
        self.count - self.told
    }

    /// Whether the Event is there, so that the next is only counted.
    pub(super) const fn is_there(&self) -> bool {
        self.name.is_some()
    }

    /// The request that tells it.
    pub(super) fn call(&mut self, node: &str, untold: u32) -> Call {
        let namespace = match &self.last.about {
            About::Pod(pod) => pod.namespace.clone(),
            About::Node => NOWHERE.into(),
        };
        let events = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        if let Some(name) = &self.name {
            let series = json!({ "count": self.count, "lastObservedTime": micro(self.last.at) });
            return Call {
                what: What::Event,
                method: Method::PATCH,
                path: format!("{events}/{name}"),
                content: MERGE,
                body: json!({ "series": series }),
            };
        }
        let body = self.event(node, &namespace, untold);
        Call { what: What::Event, method: Method::POST, path: events, content: JSON, body }
    }

    /// It was sent.
    pub(super) fn sent(&mut self, node: &str, now: Instant) {
        self.counted = if self.name.is_some() { self.counted + 1 } else { 0 };
        self.name = Some(name(&self.last, self.first, node));
        self.told = self.count;
        self.waiting = None;
        self.due = now + (COUNT.0 * 2_u32.pow(self.counted.min(8))).min(COUNT.1);
    }

    /// The Event is gone: what is to be told makes another.
    pub(super) fn begin_anew(&mut self) {
        self.name = None;
        self.count -= self.told;
        self.told = 0;
        self.first = self.last.at;
    }

    /// What is waiting is not told.
    pub(super) fn give_up(&mut self) {
        self.told = self.count;
        self.waiting = None;
    }

    fn event(&self, node: &str, namespace: &str, untold: u32) -> Value {
        let mut note = self.last.note.clone();
        if self.count - self.told > 1 {
            note += &format!(" ({} times since {})", self.count - self.told, clock(self.first));
        }
        if untold > 0 {
            note += &format!(" ({untold} more of this pod were not told)");
        }
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "name": name(&self.last, self.first, node), "namespace": namespace },
            "eventTime": micro(self.last.at),
            "regarding": regarding(&self.last.about, node),
            "reason": self.last.reason.name(),
            "action": self.last.reason.action(),
            "type": self.last.reason.kind(),
            "note": note,
            "reportingController": CONTROLLER,
            // At most 128 bytes, where a node's name may have 253.
            "reportingInstance": &node[..node.len().min(128)],
        })
    }
}

/// Names are unique, or of a mistake the same over all runs of the daemon, so that it is told once.
fn name(happening: &Happening, first: Timestamp, node: &str) -> String {
    let (subject, unique) = match &happening.about {
        About::Pod(pod) => (pod.pod.as_str(), sameness(happening)),
        About::Node => (node, 0),
    };
    let unique = if unique == 0 { first.as_nanosecond().cast_unsigned() } else { unique.into() };
    let subject = subject[..subject.len().min(200)].trim_end_matches(['-', '.']);
    format!("{subject}.{unique:x}")
}

/// What tells things of one reason apart: of mistakes in annotations their words, of all others nothing.
pub(super) fn sameness(happening: &Happening) -> u64 {
    if happening.reason != Reason::InvalidAnnotation {
        return 0;
    }
    // Its keys are fixed, so that a later run gives the same.
    let mut hasher = DefaultHasher::new();
    (&happening.about_uid(), &happening.note).hash(&mut hasher);
    hasher.finish().max(1)
}

impl Happening {
    fn about_uid(&self) -> &str {
        match &self.about {
            About::Pod(pod) => &pod.uid,
            About::Node => "",
        }
    }
}

/// Kubelets give a node its name as UID, and `kubectl describe node` looks for that.
fn regarding(about: &About, node: &str) -> Value {
    match about {
        About::Node => json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": node }),
        About::Pod(pod) => {
            let mut regarding = json!({
                "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.pod, "uid": pod.uid,
            });
            if !pod.container.is_empty() {
                regarding["fieldPath"] = format!("spec.containers{{{}}}", pod.container).into();
            }
            regarding
        }
    }
}

/// A `MicroTime`, in which the six digits are a must.
fn micro(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// The time of day, which is what a person reads beside an Event.
fn clock(at: Timestamp) -> String {
    format!("{at:.0}")
}
