//! Who is told how often.

use hyper::Method;
use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::kubernetes::PodRef;
use crate::kubernetes::tell::call::Status;

struct Talk {
    events: Events,
    now: Instant,
    sent: Vec<Call>,
    counts: Arc<Counts>,
}

impl Talk {
    fn new() -> Self {
        let (now, counts) = (Instant::now(), Arc::new(Counts::default()));
        Self { events: Events::new("n1", Arc::clone(&counts), now), now, sent: Vec::new(), counts }
    }

    fn happens(&mut self, pod: &str, reason: Reason) {
        let of = PodRef { namespace: "ns".into(), pod: pod.into(), uid: pod.into(), container: "c".into() };
        let happening =
            Happening { about: About::Pod(of), reason, note: "because".into(), at: Timestamp::now() };
        self.events.take(happening, self.now);
    }

    /// Time passes, and whatever is due is sent.
    fn passes(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.events.sweep(false, self.now);
            while let Some((key, call)) = self.events.next(self.now) {
                self.events.ended(&key, Ok(()), self.now);
                self.sent.push(call);
            }
        }
    }

    fn count(&self, method: &Method) -> usize {
        self.sent.iter().filter(|call| call.method == *method).count()
    }
}

#[test]
fn what_flaps_is_one_event_and_a_few_counts() {
    let mut talk = Talk::new();
    for _ in 0..360 {
        talk.happens("web-0", Reason::ModelThrottled);
        talk.passes(5);
        talk.happens("web-0", Reason::ModelReleased);
        talk.passes(5);
    }
    assert_eq!(talk.count(&Method::POST), 2);
    assert!(talk.count(&Method::PATCH) <= 2 * (4 + 12), "{}", talk.count(&Method::PATCH));
    talk.passes(300);
    let counts: Vec<_> =
        talk.sent.iter().rev().take(2).map(|call| call.body["series"]["count"].clone()).collect();
    assert_eq!(counts, [360, 360]);
    assert_eq!(talk.counts.fates(Fate::Told) + talk.counts.fates(Fate::Counted), 720);
}

#[test]
fn one_pod_does_not_use_up_what_others_need() {
    let mut talk = Talk::new();
    for n in 0..100_u64 {
        let reason = Reason::InvalidAnnotation;
        let of =
            PodRef { namespace: "ns".into(), pod: "evil".into(), uid: "evil".into(), ..PodRef::default() };
        let note = format!("annotation {n}");
        talk.events.take(Happening { about: About::Pod(of), reason, note, at: Timestamp::now() }, talk.now);
    }
    talk.passes(5);
    // Six, less the two that are kept for what can't be undone.
    assert_eq!(talk.count(&Method::POST), 4);
    talk.happens("evil", Reason::ModelKilled);
    talk.happens("good", Reason::ModelThrottled);
    talk.passes(5);
    assert_eq!(talk.count(&Method::POST), 6);
    talk.passes(600);
    // What was not told in time is counted.
    assert!(talk.counts.fates(Fate::Suppressed) > 80);
    talk.happens("evil", Reason::ModelFrozen);
    talk.passes(10);
    let note = talk.sent.last().unwrap().body["note"].as_str().unwrap();
    assert!(note.starts_with("because (") && note.ends_with("more of this pod were not told)"), "{note}");
}

#[test]
fn what_happens_at_once_is_told_in_one() {
    let mut talk = Talk::new();
    (0..5).for_each(|_| talk.happens("web-0", Reason::ModelThrottled));
    talk.passes(10);
    assert_eq!(talk.sent.len(), 1);
    let event = &talk.sent[0].body;
    assert!(event["note"].as_str().unwrap().starts_with("because (5 times since "), "{event}");
    assert_eq!(event["regarding"]["fieldPath"], "spec.containers{c}");
    assert_eq!(event["reportingInstance"], "n1");
    assert_eq!(event["eventTime"].as_str().unwrap().len(), "2026-11-22T11:14:00.123456Z".len());
}

#[test]
fn an_event_that_expired_is_made_anew() {
    let mut talk = Talk::new();
    talk.happens("web-0", Reason::ModelThrottled);
    talk.passes(10);
    talk.happens("web-0", Reason::ModelThrottled);
    talk.now += Duration::from_secs(60);
    let (key, call) = talk.events.next(talk.now).unwrap();
    assert_eq!(call.method, Method::PATCH);
    let gone = CallError::Answered { code: 404, status: Status::default(), after: None };
    talk.events.ended(&key, Err(&gone), talk.now);
    talk.passes(2);
    assert_eq!(talk.count(&Method::POST), 2);
    assert_ne!(talk.sent[0].body["metadata"]["name"], talk.sent[1].body["metadata"]["name"]);
}

#[test]
fn what_the_server_would_not_have_is_not_tried_again() {
    let mut talk = Talk::new();
    talk.happens("web-0", Reason::ModelThrottled);
    talk.now += Duration::from_secs(10);
    let (key, _) = talk.events.next(talk.now).unwrap();
    let forbidden = CallError::Answered { code: 403, status: Status::default(), after: None };
    talk.events.ended(&key, Err(&forbidden), talk.now);
    talk.passes(600);
    assert_eq!((talk.sent.len(), talk.counts.fates(Fate::Dropped)), (0, 1));
}

#[test]
fn the_name_of_an_event_is_one() {
    let mut talk = Talk::new();
    let long = format!("{}.{}", "a".repeat(199), "b".repeat(50));
    talk.happens(&long, Reason::ModelKilled);
    talk.passes(2);
    let name = talk.sent[0].body["metadata"]["name"].as_str().unwrap();
    assert!(name.len() <= 253 && name.starts_with(&"a".repeat(199)) && !name.contains(".."), "{name}");
}
