//! What is told of a course of passes, and what is not.

use plimsoll_policy::units::Share;

use super::*;

#[derive(Default)]
struct Course {
    changes: Changes,
    at: u64,
}

fn id() -> WorkloadId {
    WorkloadId { path: "kubepods/pod1/c1".into(), inode: 7 }
}

impl Course {
    fn pass(&mut self, wanted: Option<Wanted>, ended: &[(Act, ActResult)]) -> Vec<String> {
        self.at += 1;
        let at = Monotonic::default() + Span::secs(self.at);
        let plan =
            Plan { workloads: wanted.map(|wanted| (id(), wanted)).into_iter().collect(), ..Plan::default() };
        let outcome = |(act, result): &(Act, ActResult)| Outcome {
            workload: id(),
            act: *act,
            result: result.clone(),
            begun: at,
            took: Span::millis(400),
            freed: Some(Bytes::mib(300)),
        };
        let workload =
            plimsoll_policy::sample::Workload { current: Some(Bytes::mib(900)), ..Default::default() };
        let outcomes = ended.iter().map(outcome).collect();
        let sample = Sample { at, workloads: [(id(), workload)].into(), outcomes, ..Sample::default() };
        let told = self.changes.pass(&sample, &plan, |_| Some(PodRef::default()));
        told.into_iter().map(|told| format!("{}: {}", told.reason.name(), told.note)).collect()
    }
}

fn wanted(rung: Rung, action: u64) -> Option<Wanted> {
    let evidence = vec![Evidence::Used { share: Share::percent(96), threshold: Share::percent(95) }];
    let high = (rung == Rung::Throttle).then_some(Bytes::mib(512));
    Some(Wanted {
        rung,
        action,
        evidence,
        high,
        frozen: rung == Rung::Freeze,
        kill: rung == Rung::Kill,
        ..Wanted::default()
    })
}

#[test]
fn a_story_is_told_with_its_numbers() {
    let mut course = Course::default();
    let because = Evidence::Used { share: Share::percent(96), threshold: Share::percent(95) }.to_string();
    let more = |action: u64| format!("; action {action}, `plimsoll explain {action}` says more");
    assert_eq!(course.pass(wanted(Rung::Trim, 1), &[]), [""; 0]);
    let throttled =
        format!("ModelThrottled: memory.high set to 512MiB, it uses 900MiB: {because}{}", more(2));
    assert_eq!(course.pass(wanted(Rung::Throttle, 2), &[]), [throttled]);
    assert_eq!(course.pass(wanted(Rung::Throttle, 2), &[]), [""; 0]);
    assert_eq!(course.pass(wanted(Rung::Freeze, 3), &[]), [""; 0]);
    let frozen = format!("ModelFrozen: stopped for its memory to be taken back: {because}{}", more(3));
    assert_eq!(course.pass(wanted(Rung::Freeze, 3), &[(Act::Freeze, ActResult::Done)]), [frozen]);
    assert_eq!(course.pass(wanted(Rung::Throttle, 3), &[]), [""; 0]);
    let thawed = format!("ModelThawed: runs again after 2.0s{}", more(3));
    assert_eq!(course.pass(wanted(Rung::Throttle, 3), &[(Act::Thaw, ActResult::Done)]), [thawed]);
    let released = format!("ModelReleased: throttled no more after 6.0s{}", more(3));
    assert_eq!(course.pass(None, &[]), [released]);
    assert_eq!(course.pass(None, &[]), [""; 0]);
}

#[test]
fn a_kill_is_told_when_it_is_done_though_the_workload_is_gone() {
    let mut course = Course::default();
    course.pass(wanted(Rung::Kill, 5), &[]);
    let told = course.pass(None, &[(Act::Kill, ActResult::Done)]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("ModelKilled: killed in 400ms, 300MiB freed: "), "{told:?}");
    assert!(told[0].contains("plimsoll explain 5"), "{told:?}");
}

#[test]
fn a_freeze_that_was_withdrawn_is_not_told() {
    let mut course = Course::default();
    course.pass(wanted(Rung::Freeze, 5), &[]);
    assert_eq!(course.pass(wanted(Rung::Trim, 5), &[(Act::Freeze, ActResult::Withdrawn)]), [""; 0]);
    assert_eq!(course.pass(None, &[]), [""; 0]);
}

#[test]
fn why_somebody_was_not_evicted_is_told() {
    let mut course = Course::default();
    let evict = || wanted(Rung::Throttle, 6).map(|wanted| Wanted { evict: true, ..wanted });
    course.pass(evict(), &[]);
    let blocked =
        ActResult::Blocked("The disruption budget web needs 1 healthy pods and has 1 currently".into());
    let told = course.pass(evict(), &[(Act::Evict, blocked)]);
    assert!(
        told[0].starts_with("EvictionBlocked: may not be evicted, The disruption budget web needs 1"),
        "{told:?}"
    );
    let told = course.pass(evict(), &[(Act::Evict, ActResult::Done)]);
    assert!(told[0].starts_with("ModelEvicted: "), "{told:?}");
}

#[test]
fn what_it_gives_when_asked_is_told_by_the_meters() {
    let mut course = Course::default();
    course.pass(wanted(Rung::Offload, 7), &[]);
    let conceded = |level, result| Concession {
        workload: id(),
        number: 1,
        level,
        by: "engine".into(),
        result,
        begun: Monotonic::default(),
        took: Span::millis(2300),
        freed: Gains { host: -5, gpus: [("GPU-1".into(), Bytes::mib(2048))].into() },
        claimed: None,
    };
    let note = |conceded: &Concession| course.changes.conceded(conceded).map(|told| (told.reason, told.note));
    let (reason, text) = note(&conceded(Level::Unload, ActResult::Done)).unwrap();
    assert_eq!(reason, Reason::ModelOffloaded);
    assert!(text.starts_with("gave back 2GiB of gpu:GPU-1 by engine in 2.3s: "), "{text}");
    assert_eq!(note(&conceded(Level::Nothing, ActResult::Done)).unwrap().0, Reason::ModelRestored);
    let away = ActResult::Failed("503".into());
    assert_eq!(note(&conceded(Level::Nothing, away)).unwrap().0, Reason::ModelNotRestored);
    assert_eq!(note(&conceded(Level::Gc, ActResult::Done)), None);
}

#[test]
fn what_is_held_at_the_end_is_told_to_be_let_go() {
    let mut course = Course::default();
    course.pass(wanted(Rung::Freeze, 3), &[]);
    course.pass(wanted(Rung::Freeze, 3), &[(Act::Freeze, ActResult::Done)]);
    let told: Vec<_> = course.changes.end().into_iter().map(|told| told.reason).collect();
    assert_eq!(told, [Reason::ModelThawed]);
}
