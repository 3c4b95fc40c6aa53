//! Another policy is followed with its own state, and the same policy has the same course.

use plimsoll_policy::sample::Rung;
use plimsoll_policy::units::Share;

use super::*;
use crate::incident::fixture::{journalled, scenario, story};
use crate::incident::say;

fn compared(name: &str, change: impl Fn(&mut Config)) -> Comparison {
    let (config, samples) = story(&scenario(name));
    let dir = tempfile::tempdir().unwrap();
    let files = journalled(dir.path(), &config, &samples, &[]);
    let mut other = config;
    change(&mut other);
    compare(&mut Journal::of(files), Some(Policy { path: "other.yaml".into(), config: other }), |_| {})
        .unwrap()
}

#[test]
fn the_same_policy_has_the_same_course() {
    for name in ["story_b_swap", "flap_guard", "gap_everywhere"] {
        let Comparison { recorded, other, passes, span } = compared(name, |_| {});
        assert_eq!(Some(&recorded), other.as_ref(), "{name}");
        let total: u64 = recorded.tiers.values().map(|it| it.0).sum();
        assert_eq!(total, span.0);
        assert!(passes > 50 && recorded.first.is_some());
    }
}

#[test]
fn another_ladder_does_other_things() {
    let compared = compared("story_b_swap", |config| config.ladder.rungs = vec![Rung::Trim, Rung::Kill]);
    let other = compared.other.as_ref().unwrap();
    assert!(compared.recorded.actions.contains_key(&Rung::Freeze));
    assert!(!other.actions.contains_key(&Rung::Freeze));
    let text = say::comparison(&compared, "other.yaml");
    assert!(text.contains("actions: freeze") && text.contains("models/batch"), "{text}");
}

#[test]
fn other_thresholds_give_other_tiers() {
    let compared = compared("page_cache_scanner", |config| {
        config.host.elevated.used = Share::percent(20);
        config.host.elevated.leave = Share::percent(10);
    });
    let other = compared.other.unwrap();
    assert!(compared.recorded.tiers.len() < other.tiers.len(), "{:?}", other.tiers);
}

#[test]
fn rules_of_the_other_policy_hold_by_name() {
    let (config, samples) = story(&scenario("story_b_swap"));
    let rule = Rule { name: "batch".into(), priority: 5000, ..Rule::default() };
    let config = Config { workloads: vec![rule], ..config };
    let sample = respecified(&config, &samples[0]);
    let priority =
        |name: &str| sample.workloads.values().find(|it| it.spec.name == name).map(|it| it.spec.priority);
    assert_eq!((priority("batch"), priority("service")), (Some(5000), Some(1000)));
}

/// The thresholds of a preset are those of the machine that wrote the journal.
#[test]
fn the_other_policy_is_that_of_the_host() {
    let (config, mut samples) = story(&scenario("page_cache_scanner"));
    let scale = |bytes: &mut plimsoll_policy::units::Bytes| bytes.0 *= 512;
    for meminfo in samples.iter_mut().filter_map(|it| it.host.meminfo.as_mut()) {
        [&mut meminfo.total, &mut meminfo.free, &mut meminfo.available].into_iter().for_each(scale);
    }
    let dir = tempfile::tempdir().unwrap();
    let files = journalled(dir.path(), &config, &samples, &[]);
    let mut other = Other {
        policy: Policy { path: "other.yaml".into(), config: Config::default() },
        config: None,
        state: None,
        course: Course::default(),
    };
    let Some(Ok((_, Read::Whole(Entry::Line(line))))) = Journal::of(files).nth(1) else { panic!("a line") };
    other.pass(&line, true).unwrap();
    assert!(other.config.unwrap().host.elevated.used > Config::default().host.elevated.used);
}
