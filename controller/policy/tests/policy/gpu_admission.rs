//! GPU memory is promised as the host's is: all or nothing, by device, and no longer than anybody can be seen to use it.

use plimsoll_policy::admission::{Call, Reason, Refusal, Reply, Reserve, Room};
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::Tier;
use plimsoll_policy::units::{Bytes, Share, Span};

use crate::gpu::{Node, id, of};

fn mib(n: u64) -> Bytes {
    Bytes::mib(n)
}

fn wants(name: &str, host: u64, gpus: &[(&str, u64)]) -> Reserve {
    let gpus = gpus.iter().map(|(gpu, n)| ((*gpu).into(), mib(*n))).collect();
    Reserve { holder: id(name), sizes: vec![mib(host)], gpus, ..Reserve::default() }
}

fn loaders(gpus: &[&str]) -> Node {
    let mut node = Node::new(gpus);
    node.add("a", 0);
    node.add("b", 0);
    node.look();
    node
}

/// The answers of a pass, in the order of the requests.
fn answers(pass: &Pass) -> Vec<&Reply> {
    let mut answers: Vec<_> = pass.plan.answers.iter().collect();
    answers.sort_by_key(|answer| answer.ticket);
    answers.into_iter().map(|answer| &answer.reply).collect()
}

/// The devices and bytes of a grant.
fn granted(reply: &Reply) -> Vec<(&str, u64)> {
    let Reply::Granted { gpus, .. } = reply else { panic!("not granted: {reply:?}") };
    gpus.iter().map(|(gpu, bytes)| (&*gpu.0, bytes.0 >> 20)).collect()
}

fn refused(reply: &Reply) -> &Refusal {
    let Reply::Refused(refusal) = reply else { panic!("not refused: {reply:?}") };
    refusal
}

fn room(pass: &Pass) -> &Room {
    let Reply::Headroom(room) = answers(pass)[0] else { panic!("{:?}", pass.plan.answers) };
    room
}

fn reserved(node: &Node, gpu: &str) -> u64 {
    node.state.admission.reserved_on(&gpu.into()).0 >> 20
}

#[test]
fn of_two_racing_loaders_exactly_one_is_granted() {
    let mut node = loaders(&["g0"]);
    node.ask("a", Call::Reserve(wants("a", 100, &[("g0", 14_000)])));
    node.ask("b", Call::Reserve(wants("b", 100, &[("g0", 14_000)])));
    let pass = node.look();
    assert_eq!(granted(answers(&pass)[0]), [("g0", 14_000)]);
    let refusal = refused(answers(&pass)[1]);
    assert_eq!((refusal.reason, refusal.gpu.as_ref()), (Reason::NoRoom, Some(&GpuId::from("g0"))));
    assert_eq!(
        refusal.to_string(),
        "on gpu:g0: 13.6GiB asked for, 9.7GiB available, of which 1.1GiB are kept back at tier normal; \
         try again in 10.0s"
    );
    assert_eq!(node.state.admission.reserved(), mib(100), "nothing of the host is held for who was refused");
}

#[test]
fn both_resources_or_nothing() {
    let mut node = loaders(&["g0", "g1"]);
    node.ask("a", Call::Reserve(wants("a", 100, &[("g0", 9000), ("g1", 30_000)])));
    node.ask("a", Call::Reserve(wants("a", 48_000, &[("g0", 9000)])));
    node.ask("a", Call::Reserve(wants("a", 100, &[("g9", 9000)])));
    node.ask("a", Call::Reserve(wants("a", 100, &[("g0", 9000), ("g1", 9000)])));
    let pass = node.look();
    let all = answers(&pass);
    assert_eq!(
        (refused(all[0]).reason, refused(all[0]).gpu.as_ref().unwrap().to_string()),
        (Reason::TooLarge, "g1".into())
    );
    assert_eq!((refused(all[1]).reason, &refused(all[1]).gpu), (Reason::NoRoom, &None));
    assert_eq!(
        (refused(all[2]).reason, refused(all[2]).gpu.as_ref().unwrap().to_string()),
        (Reason::Unknown, "g9".into())
    );
    assert_eq!(granted(all[3]), [("g0", 9000), ("g1", 9000)]);
    assert_eq!((reserved(&node, "g0"), reserved(&node, "g1")), (9000, 9000));
}

#[test]
fn any_is_the_device_with_the_most_room() {
    let mut node = loaders(&["g0", "g1", "g2"]);
    node.hold("b", "g0", 12_000);
    node.hold("b", "g2", 4000);
    node.looks(70);
    for _ in 0..3 {
        node.ask("a", Call::Reserve(wants("a", 0, &[("any", 10_000)])));
    }
    node.ask("a", Call::Headroom);
    let pass = node.look();
    let all = answers(&pass);
    assert_eq!((granted(all[0]), granted(all[1])), (vec![("g1", 10_000)], vec![("g2", 10_000)]));
    assert_eq!(granted(all[2]), [("g1", 10_000)]);
    let Reply::Headroom(room) = all[3] else { panic!("{all:?}") };
    let g1 = room.gpus[&GpuId::from("g1")];
    assert_eq!((g1.reserved, g1.available, g1.admissible), (mib(20_000), Some(mib(4000)), mib(2800)));
}

#[test]
fn memory_that_is_the_hosts_is_asked_of_the_host() {
    let mut node = loaders(&["g0"]);
    node.gpu("g0").unified = true;
    node.ask("a", Call::Reserve(wants("a", 100, &[("g0", 9000)])));
    node.ask("a", Call::Reserve(wants("a", 100, &[("any", 1000)])));
    node.ask("a", Call::Headroom);
    let pass = node.look();
    let all = answers(&pass);
    assert_eq!((granted(all[0]), granted(all[1])), (vec![], vec![]));
    assert_eq!(node.state.admission.reserved(), mib(10_200));
    let Reply::Headroom(room) = all[2] else { panic!("{all:?}") };
    assert!(room.gpus.is_empty());
}

#[test]
fn what_is_promised_counts_as_used_and_settles_as_it_is_taken() {
    let mut node = loaders(&["g0"]);
    node.ask("a", Call::Reserve(wants("a", 100, &[("g0", 20_000)])));
    node.look();
    let pass = node.looks(2);
    assert_eq!(of(&pass, "g0").tier, Tier::Elevated, "20000 of 24000 MiB are spoken for");
    assert_eq!(of(&pass, "g0").headroom, Some(mib(4000)));
    node.hold("a", "g0", 15_000);
    let pass = node.look();
    assert_eq!((reserved(&node, "g0"), of(&pass, "g0").headroom), (5000, Some(mib(4000))));
    node.hold("a", "g0", 20_000);
    node.look();
    assert_eq!(reserved(&node, "g0"), 0);
}

#[test]
fn a_promise_leads_to_no_more_than_a_request() {
    let mut node = loaders(&["g0"]);
    node.ask("a", Call::Reserve(wants("a", 0, &[("g0", 22_700)])));
    node.look();
    node.hold("b", "g0", 1200);
    assert_eq!(of(&node.looks(5), "g0").tier, Tier::Constrained, "98.8 %, of which 5 % are in use");
}

#[test]
fn a_claim_that_nobody_is_seen_to_use_is_dropped() {
    let mut node = loaders(&["g0"]);
    node.ask("a", Call::Reserve(wants("a", 5000, &[("g0", 20_000)])));
    node.look();
    node.looks(19);
    assert_eq!(reserved(&node, "g0"), 20_000);
    node.ask("a", Call::Heartbeat { id: 1 });
    node.looks(19);
    assert_eq!(reserved(&node, "g0"), 20_000, "it is still being loaded");
    node.hold("a", "g0", 8000);
    node.looks(19);
    assert_eq!(reserved(&node, "g0"), 12_000, "it grew meanwhile");
    node.looks(2);
    assert_eq!(reserved(&node, "g0"), 0);
    assert_eq!(node.state.admission.reserved(), mib(5000), "of the host it is still believed");
}

#[test]
fn where_nobody_knows_the_holder_the_device_is_the_evidence() {
    let mut node = loaders(&["g0"]);
    node.sample.workloads.get_mut(&id("a")).unwrap().gpus.insert("g0".into(), None);
    node.gpu("g0").used = Some(mib(1000));
    node.look();
    node.ask("a", Call::Reserve(wants("a", 100, &[("g0", 10_000)])));
    node.look();
    node.gpu("g0").used = Some(mib(1200));
    node.look();
    assert_eq!(reserved(&node, "g0"), 10_000, "that may be anybody's");
    node.gpu("g0").used = Some(mib(7000));
    node.look();
    assert_eq!(reserved(&node, "g0"), 4000);
}

#[test]
fn who_ran_out_of_a_gpus_memory_is_promised_more_of_it() {
    let mut node = loaders(&["g0", "g1"]);
    node.hold("a", "g0", 1000);
    node.look();
    node.ask("a", Call::CudaOutOfMemory { cgroup: id("a"), gpu: None });
    node.ask("a", Call::CudaOutOfMemory { cgroup: id("a"), gpu: Some("g0".into()) });
    node.ask("a", Call::CudaOutOfMemory { cgroup: id("b"), gpu: Some("g0".into()) });
    let pass = node.look();
    let learned = |percent| Reply::Learned { margin: Share::percent(percent) };
    assert_eq!(answers(&pass)[..2], [&learned(8), &learned(16)]);
    assert_eq!(refused(answers(&pass)[2]).reason, Reason::Stranger, "nobody speaks for somebody else");
    node.ask("a", Call::Reserve(wants("a", 100, &[("g0", 10_000), ("g1", 1000)])));
    assert_eq!(granted(answers(&node.look())[0]), [("g0", 11_600), ("g1", 1000)]);
    assert_eq!(node.state.admission.reserved(), mib(100), "of the host it knows what it needs");
}

#[test]
fn whoever_waits_for_a_gpu_contests_it_and_is_served_first() {
    let mut node = loaders(&["g0", "g1"]);
    node.hold("b", "g0", 20_000);
    node.looks(70);
    let waits = Reserve { wait: Span::secs(60), ..wants("a", 100, &[("g0", 10_000)]) };
    node.ask("a", Call::Reserve(waits));
    node.look();
    let pass = node.look();
    assert_eq!((of(&pass, "g0").contested, of(&pass, "g1").contested), (true, false));
    node.ask("b", Call::Reserve(wants("b", 0, &[("g0", 2000)])));
    assert_eq!(refused(answers(&node.look())[0]).reason, Reason::Behind);
    node.ask("b", Call::Headroom);
    assert_eq!(room(&node.look()).gpus[&GpuId::from("g0")].admissible, Bytes::ZERO);
    node.hold("b", "g0", 2000);
    assert_eq!(granted(answers(&node.look())[0]), [("g0", 10_000)]);
    assert!(!of(&node.look(), "g0").contested);
}

#[test]
fn nothing_is_granted_on_a_gpu_that_is_critical_or_can_not_be_read() {
    let mut node = loaders(&["g0", "g1"]);
    node.hold("b", "g0", 22_900);
    node.looks(5);
    node.gpu("g1").used = None;
    node.ask("a", Call::Reserve(wants("a", 0, &[("g0", 100)])));
    node.ask("a", Call::Reserve(wants("a", 0, &[("g1", 100)])));
    node.ask("a", Call::Headroom);
    let pass = node.look();
    let all = answers(&pass);
    let tier = "on gpu:g0: nothing is granted at tier critical (1GiB available); try again in 10.0s";
    assert_eq!(refused(all[0]).to_string(), tier);
    let unread = "on gpu:g1: there is no such device, or it can't be read; try again in 10.0s";
    assert_eq!(refused(all[1]).to_string(), unread);
    let Reply::Headroom(room) = all[2] else { panic!("{all:?}") };
    assert_eq!(room.gpus[&GpuId::from("g0")].admissible, Bytes::ZERO);
    assert_eq!(room.gpus[&GpuId::from("g1")].available, None);
}
