//! Admission as clients meet it: whole passes on a machine of 16 GiB.

use super::*;
use crate::pass::step;
use crate::plan::{Plan, Tier};
use crate::sample::{Events, Meminfo, MemoryStat, Spec, Workload, WorkloadId};
use crate::state::State;
use crate::units::{Monotonic, Share, Span};

const GIB: u64 = 1024;

fn gib(n: u64) -> Bytes {
    Bytes::mib(n * GIB)
}

fn id(name: &str) -> WorkloadId {
    WorkloadId { path: format!("models/{name}").into(), inode: name.bytes().map(u64::from).sum() }
}

/// A machine on which 1 GiB is in use by nobody in particular.
struct World {
    config: Config,
    state: State,
    at: Monotonic,
    free: Bytes,
    workloads: Vec<(&'static str, i32, Bytes)>,
    ooms: u64,
    ticket: u64,
    requests: Vec<Request>,
}

impl World {
    fn new() -> Self {
        Self {
            config: Config::default(),
            state: State::default(),
            at: Monotonic(1_000_000_000_000),
            free: gib(15),
            workloads: vec![("a", 0, Bytes::ZERO), ("b", 0, Bytes::ZERO), ("vip", 500, Bytes::ZERO)],
            ooms: 0,
            ticket: 0,
            requests: Vec::new(),
        }
    }

    fn ask_as(&mut self, caller: Caller, call: Call) -> u64 {
        self.ticket += 1;
        self.requests.push(Request { ticket: self.ticket, caller, call });
        self.ticket
    }

    fn ask(&mut self, who: &str, call: Call) -> u64 {
        self.ask_as(Caller::Cgroup(id(who)), call)
    }

    fn reserve(&mut self, who: &str, sizes: &[Bytes]) -> u64 {
        let wants = Reserve { holder: id(who), sizes: sizes.to_vec(), ..Reserve::default() };
        self.ask(who, Call::Reserve(wants))
    }

    fn wait_for(&mut self, who: &str, size: Bytes) -> u64 {
        let wait = Span::secs(30);
        let wants = Reserve { holder: id(who), sizes: vec![size], wait, ..Reserve::default() };
        self.ask(who, Call::Reserve(wants))
    }

    /// Somebody takes memory.
    fn grow(&mut self, who: &str, by: Bytes) {
        self.free = self.free.saturating_sub(by);
        for (name, _, anon) in &mut self.workloads {
            if *name == who {
                *anon = *anon + by;
            }
        }
    }

    fn sample(&mut self) -> Sample {
        let (at, ooms) = (self.at, self.ooms);
        let workload = |(name, priority, anon): &(&str, i32, Bytes)| {
            let workload = Workload {
                spec: Spec { priority: *priority, ..Spec::default() },
                current: Some(*anon),
                stat: Some(MemoryStat { anon: *anon, ..MemoryStat::default() }),
                stat_at: at,
                events: Some(Events { oom_kill: ooms, ..Events::default() }),
                populated: Some(true),
                ..Workload::default()
            };
            (id(name), workload)
        };
        let meminfo = Meminfo { total: gib(16), free: self.free, available: self.free, ..Meminfo::default() };
        let mut sample = Sample {
            at,
            workloads: self.workloads.iter().map(workload).collect(),
            requests: std::mem::take(&mut self.requests),
            ..Sample::default()
        };
        sample.host.meminfo = Some(meminfo);
        sample
    }

    fn pass_after(&mut self, span: Span) -> Plan {
        self.at = self.at + span;
        let sample = self.sample();
        let pass = step(&self.config, std::mem::take(&mut self.state), &sample);
        self.state = pass.state;
        pass.plan
    }

    fn pass(&mut self) -> Plan {
        self.pass_after(Span::millis(500))
    }

    fn calm(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.pass_after(Span::secs(1));
        }
    }

    fn reserved(&self) -> Bytes {
        self.state.admission.reserved()
    }
}

fn granted(plan: &Plan, ticket: u64) -> Option<(u64, Bytes)> {
    plan.answers.iter().find(|a| a.ticket == ticket).and_then(|a| match a.reply {
        Reply::Granted { id, bytes, .. } => Some((id, bytes)),
        _ => None,
    })
}

fn refused(plan: &Plan, ticket: u64) -> Option<Refusal> {
    plan.answers.iter().find(|a| a.ticket == ticket).and_then(|a| match &a.reply {
        Reply::Refused(refusal) => Some(refusal.clone()),
        _ => None,
    })
}

#[test]
fn of_two_racing_loaders_the_first_is_granted() {
    let mut world = World::new();
    let (first, second) = (world.reserve("a", &[gib(8)]), world.reserve("b", &[gib(8)]));
    let plan = world.pass();
    assert_eq!(granted(&plan, first), Some((1, gib(8))));
    let refusal = refused(&plan, second).expect("only one fits");
    assert_eq!((refusal.reason, refusal.asked, refusal.available), (Reason::NoRoom, gib(8), gib(7)));
    assert_eq!(plan.answers.len(), 2);
}

#[test]
fn promises_count_as_used_and_freeze_nobody() {
    let mut world = World::new();
    world.reserve("a", &[gib(12)]);
    world.pass();
    let state = std::mem::take(&mut world.state);
    let sample = world.sample();
    let pass = step(&world.config, state, &sample);
    assert_eq!(pass.assessment.used, Share::of(13, 16));
    assert_eq!(pass.assessment.headroom, Some(gib(15)), "nothing is used yet");
    world.state = pass.state;
    // Others take what was kept back: the promise alone does not make the tier critical.
    world.grow("b", gib(3));
    for _ in 0..20 {
        world.pass();
        assert!(world.state.tier.tier < Tier::Critical);
    }
}

#[test]
fn it_settles_as_the_holder_grows_and_no_byte_counts_twice() {
    let mut world = World::new();
    world.grow("a", gib(1));
    world.reserve("a", &[gib(6)]);
    world.pass();
    for step in 1..=6 {
        world.grow("a", gib(1));
        world.pass();
        assert_eq!(world.reserved(), gib(6 - step));
    }
    world.grow("a", gib(1));
    world.pass();
    assert_eq!(world.reserved(), Bytes::ZERO);
    let plan = world.pass_after(Span::secs(121));
    assert_eq!(plan.reservations[0].stage, Stage::Settled);
    assert!(world.pass().reservations.is_empty());
}

#[test]
fn two_reservations_of_one_holder_settle_one_after_the_other() {
    let mut world = World::new();
    world.reserve("a", &[gib(2)]);
    world.reserve("a", &[gib(3)]);
    world.pass();
    world.grow("a", gib(3));
    let plan = world.pass();
    let unsettled: Vec<_> = plan.reservations.iter().map(Reservation::unsettled).collect();
    assert_eq!(unsettled, [Bytes::ZERO, gib(2)]);
}

#[test]
fn a_file_that_is_read_on_the_way_settles_nothing() {
    let mut world = World::new();
    world.reserve("a", &[gib(4)]);
    world.pass();
    let mut sample = world.sample();
    let workload = sample.workloads.get_mut(&id("a")).expect("it is there");
    workload.current = Some(gib(4));
    workload.stat = Some(MemoryStat { file: gib(4), inactive_file: gib(4), ..MemoryStat::default() });
    let pass = step(&world.config, world.state, &sample);
    assert_eq!(pass.state.admission.reserved(), gib(4));
}

#[test]
fn the_first_size_that_fits_is_granted() {
    let mut world = World::new();
    world.grow("b", gib(9));
    let ticket = world.reserve("a", &[gib(6), gib(4), gib(3)]);
    let plan = world.pass();
    assert_eq!(granted(&plan, ticket).map(|g| g.1), Some(gib(4)), "6 GiB are free, 1.6 of it kept back");
}

#[test]
fn whoever_waits_is_granted_in_order_and_not_overtaken() {
    let mut world = World::new();
    let held = world.reserve("b", &[gib(10)]);
    let plan = world.pass();
    let (reservation, _) = granted(&plan, held).expect("there is room");
    let low = world.wait_for("a", gib(5));
    world.pass();
    let high = world.wait_for("vip", gib(6));
    let small = world.reserve("a", &[gib(2)]);
    let plan = world.pass();
    assert_eq!(refused(&plan, small).map(|r| r.reason), Some(Reason::Behind));
    assert_eq!(plan.waiting.iter().map(|w| w.ticket).collect::<Vec<_>>(), [high, low]);
    world.ask("b", Call::Release { id: reservation });
    let plan = world.pass();
    assert!(granted(&plan, high).is_some() && granted(&plan, low).is_some());
    assert!(plan.answers[1].ticket == high, "after the release itself: {:?}", plan.answers);
}

#[test]
fn whoever_waits_in_vain_is_told_the_numbers() {
    let mut world = World::new();
    world.grow("b", gib(12));
    let ticket = world.wait_for("a", gib(6));
    assert!(world.pass().answers.is_empty());
    let plan = world.pass_after(Span::secs(31));
    assert_eq!(refused(&plan, ticket).map(|r| (r.reason, r.available)), Some((Reason::NoRoom, gib(3))));
}

#[test]
fn nothing_is_granted_at_critical() {
    let mut world = World::new();
    world.free = Bytes::mib(700);
    world.calm(2);
    let ticket = world.reserve("a", &[Bytes::mib(1)]);
    assert_eq!(refused(&world.pass(), ticket).map(|r| r.reason), Some(Reason::Tier));
}

#[test]
fn what_can_never_fit_does_not_wait() {
    let mut world = World::new();
    let ticket = world.wait_for("a", gib(15));
    let refusal = refused(&world.pass(), ticket).expect("it is told at once");
    assert_eq!((refusal.reason, refusal.retry), (Reason::TooLarge, None));
}

#[test]
fn heartbeats_keep_it_and_silence_ends_it() {
    let mut world = World::new();
    let ticket = world.reserve("a", &[gib(4)]);
    let (reservation, _) = granted(&world.pass(), ticket).expect("there is room");
    for _ in 0..3 {
        world.ask("a", Call::Heartbeat { id: reservation });
        world.pass_after(Span::secs(100));
        assert_eq!(world.reserved(), gib(4));
    }
    let plan = world.pass_after(Span::secs(121));
    assert_eq!((plan.reservations[0].stage, world.reserved()), (Stage::Expired, Bytes::ZERO));
}

#[test]
fn a_commit_only_ends_it_sooner() {
    let mut world = World::new();
    let ticket = world.reserve("a", &[gib(6)]);
    let (reservation, _) = granted(&world.pass(), ticket).expect("there is room");
    world.grow("a", gib(3));
    world.pass();
    world.ask("a", Call::Commit { id: reservation, measured: gib(4) });
    let plan = world.pass();
    assert!(matches!(plan.answers[0].reply, Reply::Done { unsettled, .. } if unsettled == gib(1)));
    // Whoever asked may go now; what was not seen of it expires all the same.
    world.ask("a", Call::Withdraw { ticket });
    world.pass();
    assert_eq!(world.reserved(), gib(1));
    world.ask("a", Call::Heartbeat { id: reservation });
    world.pass_after(Span::secs(130));
    assert_eq!(world.reserved(), Bytes::ZERO);
}

#[test]
fn the_bytes_of_a_loader_that_died_are_free_again() {
    let mut world = World::new();
    let ticket = world.reserve("a", &[gib(6)]);
    world.pass();
    world.ask("a", Call::Withdraw { ticket });
    let next = world.reserve("b", &[gib(10)]);
    let plan = world.pass();
    assert!(granted(&plan, next).is_some(), "{:?}", plan.answers);
    assert_eq!(plan.reservations[0].stage, Stage::Released);
}

#[test]
fn a_cgroup_is_the_heartbeat_of_what_is_detached() {
    let mut world = World::new();
    let wants = Reserve { holder: id("a"), sizes: vec![gib(6)], detached: true, ..Reserve::default() };
    world.ask_as(Caller::Root, Call::Reserve(wants));
    world.calm(590);
    assert_eq!(world.reserved(), gib(6), "it is still loading");
    world.grow("a", gib(1));
    world.calm(115);
    assert_eq!(world.reserved(), gib(5), "it grew within its ttl");
    world.calm(200);
    assert_eq!(world.reserved(), Bytes::ZERO, "it has not grown for long: it is loaded");
}

#[test]
fn a_holder_without_processes_holds_nothing() {
    let mut world = World::new();
    let wants = Reserve { holder: id("a"), sizes: vec![gib(6)], detached: true, ..Reserve::default() };
    world.ask_as(Caller::Root, Call::Reserve(wants));
    world.pass();
    world.pass();
    let mut sample = world.sample();
    sample.workloads.get_mut(&id("a")).expect("it is there").populated = Some(false);
    let pass = step(&world.config, world.state, &sample);
    assert_eq!(pass.plan.reservations[0].stage, Stage::Released);
}

#[test]
fn an_oom_makes_the_next_promise_larger() {
    let mut world = World::new();
    world.pass();
    world.ooms = 1;
    world.pass();
    let ticket = world.ask("a", Call::ReportOom { cgroup: id("a") });
    assert_eq!(
        world.pass().answers,
        [Answer { ticket, reply: Reply::Learned { margin: Share::percent(16) } }]
    );
    let ticket = world.reserve("a", &[Bytes(1_000_000)]);
    let plan = world.pass();
    let reply = &plan.answers[0].reply;
    assert!(matches!(reply, Reply::Granted { promised, .. } if *promised == Bytes(1_160_000)), "{reply:?}");
    assert_eq!(plan.answers[0].ticket, ticket);
}

#[test]
fn nobody_speaks_for_others() {
    let mut world = World::new();
    let ticket = world.reserve("a", &[gib(6)]);
    let (reservation, _) = granted(&world.pass(), ticket).expect("there is room");
    world.ask("b", Call::Release { id: reservation });
    assert_eq!(world.pass().answers[0].reply, Reply::NoSuchReservation);
    let child = WorkloadId { path: "models/a/worker".into(), inode: 5 };
    world.ask_as(Caller::Cgroup(child), Call::Release { id: reservation });
    assert_eq!(world.pass().answers[0].reply, Reply::Released, "a child speaks for its workload");
}

#[test]
fn only_workloads_reserve() {
    let mut world = World::new();
    let ticket = world.reserve("stranger", &[gib(1)]);
    assert_eq!(refused(&world.pass(), ticket).map(|r| r.reason), Some(Reason::Stranger));
    let ticket = world.wait_for("late", gib(1));
    world.pass();
    world.workloads.push(("late", 0, Bytes::ZERO));
    assert!(granted(&world.pass(), ticket).is_some(), "it was found meanwhile");
}

#[test]
fn headroom_is_what_would_be_granted() {
    let mut world = World::new();
    world.reserve("a", &[gib(6)]);
    let ticket = world.ask("b", Call::Headroom);
    let plan = world.pass();
    let Some(Reply::Headroom(room)) =
        plan.answers.iter().find(|a| a.ticket == ticket).map(|a| a.reply.clone())
    else {
        panic!("{:?}", plan.answers)
    };
    assert_eq!((room.available, room.reserved), (Some(gib(9)), gib(6)));
    let ticket = world.reserve("b", &[room.admissible + Bytes(1), room.admissible]);
    assert_eq!(granted(&world.pass(), ticket).map(|g| g.1), Some(room.admissible), "to the byte");
}

#[test]
fn more_is_decided_anew_and_less_is_free() {
    let mut world = World::new();
    let ticket = world.reserve("a", &[gib(6)]);
    let (reservation, _) = granted(&world.pass(), ticket).expect("there is room");
    world.ask("a", Call::Amend { id: reservation, bytes: gib(14) });
    assert!(matches!(world.pass().answers[0].reply, Reply::Refused(_)));
    world.ask("a", Call::Amend { id: reservation, bytes: gib(8) });
    world.pass();
    assert_eq!(world.reserved(), gib(8));
    world.ask("a", Call::Amend { id: reservation, bytes: gib(2) });
    world.pass();
    assert_eq!(world.reserved(), gib(2));
}

#[test]
fn nobody_fills_the_desk() {
    let mut world = World::new();
    for _ in 0..40 {
        world.reserve("a", &[Bytes::mib(1)]);
        world.wait_for("a", gib(13));
    }
    let plan = world.pass();
    assert!(
        plan.reservations.len() + plan.waiting.len() <= 16,
        "{} {}",
        plan.reservations.len(),
        plan.waiting.len()
    );
    assert_eq!(plan.answers.len() + plan.waiting.len(), 80, "the others are told");
}

#[test]
fn at_the_end_everybody_is_sent_away() {
    let mut world = World::new();
    let (waiting, asking) = (world.wait_for("a", gib(14)), 2);
    world.grow("b", gib(8));
    world.pass();
    assert_eq!(world.reserve("b", &[gib(1)]), asking);
    let mut sample = world.sample();
    sample.trigger = Trigger::Shutdown;
    let plan = step(&world.config, world.state, &sample).plan;
    for ticket in [waiting, asking] {
        assert_eq!(refused(&plan, ticket).map(|r| r.reason), Some(Reason::Stopping));
    }
}
