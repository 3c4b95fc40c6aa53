//! Asking for the sake of GPUs: two resources in one plan, one restore at a time, and what requests undo.

use plimsoll_policy::concession::{Concession, Gains, Level, Offer, Prospect, Wish};
use plimsoll_policy::config::DryRun;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{ActResult, Evidence, Refusal, Tier};
use plimsoll_policy::sample::{Rung, Trigger, Workload};
use plimsoll_policy::units::{Bytes, Span};

use crate::gpu::{Node, id};

const ALL: [Level; 4] = Level::ALL;

/// A node with these GPUs of 24000 MiB.
fn node(gpus: &[&str]) -> Node {
    let mut node = Node::new(gpus);
    node.config.protect_priority = 1000;
    node
}

/// An engine that holds so many MiB of a GPU and offers these levels, without figures.
fn engine(node: &mut Node, name: &str, priority: i32, holds: (&str, u64), levels: &[Level]) {
    let (gpu, mib) = holds;
    let levels = levels.iter().map(|level| (*level, Prospect::default())).collect();
    node.add(name, priority).offer = Some(Offer { levels, ..Offer::default() });
    node.hold(name, gpu, mib);
}

/// One that can't be asked.
fn trainer(node: &mut Node, name: &str, priority: i32, gpu: &str, mib: u64) {
    node.add(name, priority);
    node.hold(name, gpu, mib);
}

fn workload<'a>(node: &'a mut Node, name: &str) -> &'a mut Workload {
    node.sample.workloads.get_mut(&id(name)).unwrap()
}

fn wish(pass: &Pass, name: &str) -> Option<Wish> {
    pass.plan.workloads[&id(name)].wish.clone()
}

fn level(pass: &Pass, name: &str) -> Option<Level> {
    wish(pass, name).map(|wish| wish.level)
}

/// Answers what was last asked of a workload: what it leaves on the GPU, in MiB, is seen there from now on.
fn answer(node: &mut Node, pass: &Pass, name: &str, result: ActResult, gpu: &str, leaves: u64) {
    let wish = wish(pass, name).expect("it was asked");
    let held = workload(node, name).gpus[&gpu.into()].unwrap();
    node.hold(name, gpu, leaves);
    let freed = Gains { gpus: [(gpu.into(), held.saturating_sub(Bytes::mib(leaves)))].into(), host: 0 };
    node.sample.conceded.push(Concession {
        workload: id(name),
        number: wish.number,
        level: wish.level,
        by: "engine".into(),
        result,
        begun: node.sample.at,
        took: Span::secs(1),
        freed,
        claimed: None,
    });
}

/// The next pass; what was answered has been heard then.
fn look(node: &mut Node) -> Pass {
    let pass = node.look();
    node.sample.conceded.clear();
    pass
}

fn looks(node: &mut Node, seconds: u64) -> Pass {
    (0..seconds * 2).map(|_| look(node)).last().unwrap()
}

/// A GPU that "batch" fills to so many MiB, a little more with each look, so that it is contested.
fn contest(node: &mut Node, gpu: &str, mib: u64) -> Pass {
    for step in (0..8_u64).rev() {
        node.hold("batch", gpu, mib.saturating_sub(step * 100));
        look(node);
    }
    looks(node, 2)
}

#[test]
fn eighty_ninety_and_ninety_five_per_cent_are_trim_aggressive_and_offload() {
    let mut node = node(&["a"]);
    engine(&mut node, "chat", 0, ("a", 10_000), &ALL);
    trainer(&mut node, "batch", 500, "a", 4_000);
    assert_eq!(level(&looks(&mut node, 2), "chat"), None);
    let seen = contest(&mut node, "a", 9_300);
    assert_eq!(
        (seen.assessment.gpus[&"a".into()].tier, level(&seen, "chat")),
        (Tier::Elevated, Some(Level::Gc))
    );
    assert_eq!(seen.plan.workloads[&id("chat")].rung, Rung::Trim);
    answer(&mut node, &seen, "chat", ActResult::Done, "a", 9_950);
    assert_eq!(level(&look(&mut node), "chat"), None, "that is over once it is answered");
    let seen = contest(&mut node, "a", 11_800);
    assert_eq!(level(&seen, "chat"), Some(Level::Aggressive), "{:?}", seen.assessment.gpus);
    answer(&mut node, &seen, "chat", ActResult::Done, "a", 9_900);
    let seen = contest(&mut node, "a", 13_200);
    assert_eq!(level(&seen, "chat"), Some(Level::Offload), "{:?}", seen.assessment.gpus);
    let wanted = &seen.plan.workloads[&id("chat")];
    assert_eq!(wanted.rung, Rung::Offload);
    assert_eq!(wish(&seen, "chat").unwrap().gpus, ["a".into()]);
    assert!(wanted.evidence.contains(&Evidence::Asked { level: Level::Offload }), "{:?}", wanted.evidence);
}

#[test]
fn a_gpu_that_is_merely_full_is_trimmed_at_most() {
    let mut node = node(&["a"]);
    engine(&mut node, "chat", 0, ("a", 23_800), &ALL);
    let mut most = Level::Nothing;
    for _ in 0..60 {
        let seen = look(&mut node);
        most = most.max(level(&seen, "chat").unwrap_or_default());
        if level(&seen, "chat").is_some() {
            answer(&mut node, &seen, "chat", ActResult::Partial, "a", 23_800);
        }
    }
    assert_eq!(most, Level::Aggressive);
}

#[test]
fn without_room_on_the_host_it_unloads_instead() {
    let mut node = node(&["a"]);
    let meminfo = node.sample.host.meminfo.as_mut().unwrap();
    // 20000 MiB are free, and the host may not be filled beyond 88 %.
    (meminfo.free, meminfo.available) = (Bytes::mib(12_000), Bytes::mib(12_000));
    engine(&mut node, "chat", 0, ("a", 12_000), &ALL);
    trainer(&mut node, "batch", 500, "a", 8_000);
    looks(&mut node, 1);
    let mut found = None;
    for step in 1..8_u64 {
        node.hold("batch", "a", 8_000 + step * 480);
        let seen = look(&mut node);
        if level(&seen, "chat") == Some(Level::Unload) {
            found = Some(seen.plan.workloads[&id("chat")].refused.clone());
            break;
        }
        assert_ne!(level(&seen, "chat"), Some(Level::Offload));
    }
    let refused = found.expect("it was asked to unload");
    assert!(refused.iter().any(|it| matches!(it.why, Refusal::NoHostRoom { .. })), "{refused:?}");
}

/// Two engines that can be offloaded, and somebody who fills their GPU.
fn two(free: u64) -> Node {
    let mut node = node(&["a"]);
    let meminfo = node.sample.host.meminfo.as_mut().unwrap();
    (meminfo.free, meminfo.available) = (Bytes::mib(free), Bytes::mib(free));
    engine(&mut node, "low", 0, ("a", 5_000), &[Level::Offload, Level::Unload]);
    engine(&mut node, "high", 100, ("a", 5_000), &[Level::Offload, Level::Unload]);
    trainer(&mut node, "batch", 500, "a", 8_000);
    looks(&mut node, 1);
    node
}

#[test]
fn the_lowest_goes_first_and_no_more_than_are_needed() {
    let mut node = two(50_000);
    let seen = contest(&mut node, "a", 13_000);
    assert_eq!((level(&seen, "low"), level(&seen, "high")), (Some(Level::Offload), None));
    assert!(wish(&seen, "low").unwrap().expected.host < 0, "it moves to the host");
    answer(&mut node, &seen, "low", ActResult::Done, "a", 900);
    let seen = look(&mut node);
    assert_eq!(level(&seen, "low"), Some(Level::Offload), "it lasts until it is undone");
    let seen = contest(&mut node, "a", 17_900);
    assert_eq!(level(&seen, "low"), Some(Level::Unload), "what is left of it goes with its process only");
    assert_eq!(level(&seen, "high"), Some(Level::Offload));
}

#[test]
fn what_is_moving_takes_room_before_it_is_seen() {
    // Room for one of them beside what must stay free.
    let mut node = two(14_000);
    let seen = contest(&mut node, "a", 14_000);
    assert_eq!((level(&seen, "low"), level(&seen, "high")), (Some(Level::Offload), None));
    node.hold("batch", "a", 20_000);
    let seen = looks(&mut node, 1);
    assert_eq!((level(&seen, "low"), level(&seen, "high")), (Some(Level::Offload), Some(Level::Unload)));
}

#[test]
fn both_gpus_of_a_node_are_looked_after() {
    let mut node = node(&["a", "b"]);
    engine(&mut node, "left", 0, ("a", 10_000), &ALL);
    engine(&mut node, "right", 0, ("b", 10_000), &ALL);
    trainer(&mut node, "batch", 500, "a", 8_000);
    looks(&mut node, 1);
    let seen = contest(&mut node, "a", 13_300);
    assert_eq!((level(&seen, "left"), level(&seen, "right")), (Some(Level::Offload), None));
    let seen = contest(&mut node, "b", 13_300);
    assert_eq!(level(&seen, "right"), Some(Level::Offload));
}

/// Both engines are offloaded and have answered; the GPU is free again.
fn offloaded() -> (Node, Pass) {
    let mut node = two(50_000);
    node.hold("low", "a", 5_000);
    let seen = contest(&mut node, "a", 13_000);
    answer(&mut node, &seen, "low", ActResult::Done, "a", 900);
    look(&mut node);
    let seen = contest(&mut node, "a", 17_900);
    answer(&mut node, &seen, "high", ActResult::Done, "a", 900);
    answer(&mut node, &seen, "low", ActResult::Done, "a", 0);
    node.hold("batch", "a", 1_000);
    let seen = look(&mut node);
    (node, seen)
}

/// Looks until a workload is asked for a level.
fn until(node: &mut Node, name: &str, wanted: Level, seconds: u64) -> (Pass, u64) {
    let begun = node.sample.at;
    for _ in 0..seconds * 2 {
        let seen = look(node);
        if level(&seen, name) == Some(wanted) {
            return (seen, node.sample.at.since(begun).0 / 1_000_000_000);
        }
    }
    panic!("{name} is not asked for {wanted} within {seconds} s")
}

#[test]
fn restores_come_one_at_a_time_and_the_highest_first() {
    let (mut node, _) = offloaded();
    let (seen, _) = until(&mut node, "high", Level::Nothing, 60);
    assert_eq!(seen.plan.workloads[&id("high")].rung, Rung::Free);
    assert_eq!(
        level(&looks(&mut node, 20), "low"),
        Some(Level::Unload),
        "the other one has not answered yet"
    );
    answer(&mut node, &seen, "high", ActResult::Done, "a", 5_000);
    let seen = look(&mut node);
    assert_eq!((wish(&seen, "high"), level(&seen, "low")), (None, Some(Level::Nothing)));
    answer(&mut node, &seen, "low", ActResult::Done, "a", 5_000);
    assert_eq!(wish(&look(&mut node), "low"), None);
}

#[test]
fn one_that_does_not_fit_waits() {
    let (mut node, _) = offloaded();
    node.hold("batch", "a", 16_000);
    let seen = looks(&mut node, 120);
    assert_eq!(seen.assessment.gpus[&"a".into()].tier, Tier::Normal);
    assert_eq!((level(&seen, "high"), level(&seen, "low")), (Some(Level::Nothing), Some(Level::Unload)));
    answer(&mut node, &seen, "high", ActResult::Done, "a", 5_000);
    let seen = looks(&mut node, 120);
    assert_eq!((wish(&seen, "high"), level(&seen, "low")), (None, Some(Level::Unload)), "no room for both");
}

#[test]
fn a_restore_that_fails_is_tried_again_after_one_minute_and_after_two() {
    let (mut node, _) = offloaded();
    let (mut seen, _) = until(&mut node, "high", Level::Nothing, 60);
    let mut waits = Vec::new();
    for _ in 0..3 {
        let number = wish(&seen, "high").unwrap().number;
        answer(&mut node, &seen, "high", ActResult::Failed("it does not answer".into()), "a", 900);
        // The other one has its turn meanwhile.
        seen = look(&mut node);
        let begun = node.sample.at;
        while wish(&seen, "high").unwrap().number == number {
            if level(&seen, "low") == Some(Level::Nothing) {
                answer(&mut node, &seen, "low", ActResult::Done, "a", 5_000);
            }
            seen = look(&mut node);
        }
        waits.push(node.sample.at.since(begun).0 / 1_000_000_000);
    }
    assert_eq!(waits, [60, 120, 240]);
}

#[test]
fn what_requests_undo_three_times_is_left_alone_for_a_while() {
    let mut node = node(&["a"]);
    engine(&mut node, "chat", 0, ("a", 10_000), &[Level::Unload]);
    trainer(&mut node, "batch", 500, "a", 8_000);
    looks(&mut node, 1);
    contest(&mut node, "a", 13_000);
    for times in 1..=3_u32 {
        let (seen, _) = until(&mut node, "chat", Level::Unload, 60);
        answer(&mut node, &seen, "chat", ActResult::Done, "a", 0);
        look(&mut node);
        node.hold("chat", "a", 10_000);
        let seen = look(&mut node);
        let wanted = &seen.plan.workloads[&id("chat")];
        let Some(Evidence::Reloaded { times: seen_times, until, .. }) = wanted.evidence.last() else {
            // It was asked again in the same pass.
            assert!(times < 3 && level(&seen, "chat") == Some(Level::Unload), "{wanted:?}");
            continue;
        };
        assert_eq!((*seen_times, until.is_some()), (times, times == 3));
    }
    // Somebody wants more all the time, and it is not asked.
    for step in 0..500_u64 {
        node.hold("batch", "a", 13_000 + step % 2 * 300);
        let seen = look(&mut node);
        assert_ne!(level(&seen, "chat"), Some(Level::Unload), "after {step} looks");
    }
    let mut again = false;
    for step in 0..200_u64 {
        node.hold("batch", "a", 13_000 + step % 2 * 300);
        again |= level(&look(&mut node), "chat") == Some(Level::Unload);
    }
    assert!(again, "after five minutes it is asked again");
}

#[test]
fn who_is_frozen_is_not_asked() {
    let mut node = two(50_000);
    workload(&mut node, "low").frozen = Some(true);
    let seen = contest(&mut node, "a", 13_000);
    assert_eq!((level(&seen, "low"), level(&seen, "high")), (None, Some(Level::Offload)));
}

#[test]
fn the_protected_are_asked_for_garbage_and_only_where_nobody_else_gives() {
    let mut node = node(&["a"]);
    engine(&mut node, "chat", 1000, ("a", 10_000), &ALL);
    engine(&mut node, "other", 0, ("a", 3_000), &ALL);
    trainer(&mut node, "batch", 500, "a", 8_000);
    looks(&mut node, 1);
    let seen = contest(&mut node, "a", 10_300);
    assert_eq!((level(&seen, "chat"), level(&seen, "other")), (None, Some(Level::Offload)));
    // It is late, and unloading fails it as well: nobody who yields has anything to give.
    let seen = contest(&mut node, "a", 10_300);
    answer(&mut node, &seen, "other", ActResult::Failed("no".into()), "a", 3_000);
    let (seen, _) = until(&mut node, "other", Level::Unload, 10);
    assert_eq!(level(&seen, "chat"), None);
    answer(&mut node, &seen, "other", ActResult::Failed("no".into()), "a", 3_000);
    let mut most = Level::Nothing;
    for _ in 0..40 {
        let seen = look(&mut node);
        most = most.max(level(&seen, "chat").unwrap_or_default());
        assert!(seen.plan.workloads[&id("chat")].rung <= Rung::Trim);
    }
    assert_eq!(most, Level::Gc);
}

#[test]
fn nobody_is_asked_for_what_is_not_its_rung_or_only_rehearsed() {
    let mut plain = two(50_000);
    workload(&mut plain, "low").spec.rungs = vec![Rung::Trim, Rung::Kill];
    let seen = contest(&mut plain, "a", 13_000);
    assert_eq!((level(&seen, "low"), level(&seen, "high")), (None, Some(Level::Offload)));
    let mut dry = two(50_000);
    dry.config.ladder.dry_run = DryRun::Rungs(vec![Rung::Offload]);
    let seen = contest(&mut dry, "a", 13_000);
    let wanted = &seen.plan.workloads[&id("low")];
    assert_eq!(wanted.wish, None);
    assert_eq!(wanted.would.as_ref().map(|would| would.rung), Some(Rung::Offload));
}

#[test]
fn before_the_controller_leaves_everybody_may_have_it_back() {
    let (mut node, _) = offloaded();
    node.sample.trigger = Trigger::Shutdown;
    let seen = look(&mut node);
    assert_eq!((level(&seen, "low"), level(&seen, "high")), (Some(Level::Nothing), Some(Level::Nothing)));
    assert!(seen.plan.workloads.values().all(|wanted| wanted.rung == Rung::Free));
}

#[test]
fn an_answer_to_another_question_is_none_and_silence_is_not_waited_for_for_ever() {
    let mut node = two(50_000);
    let seen = contest(&mut node, "a", 13_000);
    let asked = wish(&seen, "low").unwrap();
    answer(&mut node, &seen, "low", ActResult::Done, "a", 5_000);
    node.sample.conceded[0].number += 1;
    let seen = look(&mut node);
    assert_eq!(wish(&seen, "low"), Some(asked.clone()));
    let begun = node.sample.at;
    until(&mut node, "low", Level::Unload, 30);
    let waited = node.sample.at.since(begun);
    assert!(waited < asked.deadline.saturating_add(Span::secs(3)), "{waited}");
    // The GPU is contested as long as somebody wants more; that nobody answers does not change that.
    node.hold("batch", "a", 13_400);
    let (seen, _) = until(&mut node, "high", Level::Offload, 30);
    let evidence = &seen.plan.workloads[&id("low")].evidence;
    assert!(matches!(evidence[..], [Evidence::Unanswered { level: Level::Unload, .. }]), "{evidence:?}");
}
