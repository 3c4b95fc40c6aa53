//! An action's story from journals of the modelled machine.

use plimsoll_policy::sample::Sample;

use super::*;
use crate::incident::fixture::{journalled, scenario, story as samples};
use crate::incident::{events, say};

/// The story of the first action to a rung. The modelled machine has outcomes of reclaim only: the one of `act` is added.
fn told(name: &str, rung: Rung, act: Act, freed: Option<Bytes>) -> Story {
    let (config, mut samples) = samples(&scenario(name));
    let first = |samples: &[Sample]| {
        let dir = tempfile::tempdir().unwrap();
        let files = journalled(dir.path(), &config, samples, &[]);
        let events = events::events(Journal::of(files.clone()), 100).unwrap();
        let event = events.into_iter().find(|event| event.rung == rung).unwrap();
        let story = explain(Journal::of(files), event.action).unwrap();
        assert_eq!((&story.time[..8], story.rung), (&event.time[..8], event.rung));
        assert_eq!(story.evidence.first(), event.because.as_ref());
        story
    };
    let story = first(&samples);
    let (workload, begun) = (story.cgroup.parse().unwrap(), story.window.at + Span::millis(1));
    let next = samples.iter_mut().find(|sample| sample.at > begun).unwrap();
    let took = Span::millis(20);
    next.outcomes.push(Outcome { workload, act, result: ActResult::Done, begun, took, freed });
    first(&samples)
}

#[test]
fn a_freeze_is_told_from_reason_to_thaw() {
    let story = told("story_b_swap", Rung::Freeze, Act::Freeze, None);
    assert_eq!((&*story.workload, story.kind), ("batch", "planned"));
    assert!(story.from < Some(Rung::Freeze) && !story.evidence.is_empty());
    assert_eq!(story.measured["freeze"].results, [("done".to_owned(), 1)].into());
    let reclaim = &story.measured["reclaim"];
    assert!(reclaim.times > 3 && reclaim.freed > Some(Bytes::mib(50)), "{reclaim:?}");
    let last = story.followed.last().unwrap();
    assert_eq!(last.rung, Rung::Free);
    assert!(last.after > Span::secs(5), "{last:?}");
}

#[test]
fn a_kill_is_told_with_what_it_freed() {
    let story = told("story_b_noswap", Rung::Kill, Act::Kill, Some(Bytes::mib(400)));
    assert!(story.host.starts_with("emergency: "), "{}", story.host);
    let text = say::story(&story);
    for word in [
        "action 1: kill of batch",
        "  because   ",
        "  measured  kill: done, freed 400MiB, 21ms after the decision",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

#[test]
fn a_number_that_is_not_there_is_named_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let (config, samples) = samples(&scenario("story_b_swap"));
    let files = journalled(dir.path(), &config, &samples, &[]);
    let last = events::events(Journal::of(files.clone()), 1).unwrap()[0].action;
    let error = explain(Journal::of(files), 99).unwrap_err();
    assert_eq!(error.to_string(), format!("no action 99 in the journal, which has actions 1 to {last}"));
    let error = explain(Journal::of([]), 1).unwrap_err();
    assert_eq!(error.to_string(), "no action 1 in the journal, which has none at all");
}

/// The gate stopped it between two passes: the first that anybody hears of it is that it is frozen.
#[test]
fn what_the_gate_stopped_is_told_as_such() {
    let (config, mut samples) = samples(&scenario("story_a_noswap"));
    let dir = tempfile::tempdir().unwrap();
    let files = journalled(dir.path(), &config, &samples, &[]);
    let mut armed = None;
    for read in Journal::of(files) {
        if let Read::Whole(Entry::Line(line)) = read.unwrap().1
            && let Some(id) = line.plan.as_ref().and_then(|plan| plan.gate.targets.first())
        {
            armed.get_or_insert((line.sample.at, id.clone()));
        }
    }
    let (at, id) = armed.expect("the gate is armed in this story");
    let next = samples.iter().position(|sample| sample.at > at).unwrap();
    samples.truncate(next + 1);
    samples[next].workloads.get_mut(&id).unwrap().frozen = Some(true);
    let dir = tempfile::tempdir().unwrap();
    let files = journalled(dir.path(), &config, &samples, &[]);
    let last = events::events(Journal::of(files.clone()), 1).unwrap()[0].action;
    let story = explain(Journal::of(files), last).unwrap();
    assert_eq!((story.rung, story.kind), (Rung::Freeze, "gate"));
    assert!(say::story(&story).contains("stopped by the kernel's gate"));
}

/// The same number stands on the wish, on the answer and on the action.
#[test]
fn an_asking_is_told_with_its_answer_and_how_it_was_undone() {
    let (config, samples) = samples(&scenario("asked_and_restored"));
    let dir = tempfile::tempdir().unwrap();
    let files = journalled(dir.path(), &config, &samples, &[]);
    let events = events::events(Journal::of(files.clone()), 100).unwrap();
    let unload = events.iter().find(|event| event.rung == Rung::Offload).unwrap();
    let text = say::story(&explain(Journal::of(files.clone()), unload.action).unwrap());
    for word in [
        "offload of embed",
        "it is asked for unload",
        "measured  unload: done by client, freed 600MiB of host memory, 1.0s after the decision",
        "it is asked to take back what it gave",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    let back = events.iter().rfind(|event| event.rung == Rung::Free && event.workload == "embed").unwrap();
    let text = say::story(&explain(Journal::of(files), back.action).unwrap());
    assert!(text.contains("restore by client done: took 600MiB of host memory"), "{text}");
}
