//! Programs that register, are told and are asked.

use plimsoll_policy::concession::{Gains, Level, Offer};
use plimsoll_policy::plan::{Assessment, GpuAssessment, Plan, Tier};

use super::*;
use crate::ask::way::{Answered, Asking, Way, WayError};

/// A program with its two connections: one that hears, one that speaks.
struct Program {
    hears: Client,
    speaks: Client,
    session: u64,
}

impl Program {
    fn start(desk: &Desk16, offers: &Value) -> Self {
        let (mut hears, speaks) = (desk.client(), desk.client());
        let registered = hears.control("Register", &json!({ "offers": offers }));
        let session = registered["parameters"]["session"].as_u64().unwrap_or_else(|| panic!("{registered}"));
        hears.subscribe();
        Self { hears, speaks, session }
    }

    /// The next request, whatever is told before it.
    fn request(&mut self) -> Value {
        std::iter::from_fn(|| Some(self.hears.notice())).find(|n| n["kind"] == "request").unwrap()["request"]
            .clone()
    }

    fn acknowledge(&mut self, request: u64, outcome: &str, more: &Value) -> Value {
        let mut all = json!({ "session": self.session, "request": request, "outcome": outcome });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.speaks.control("Acknowledge", &all)
    }
}

impl Client {
    fn subscribe(&mut self) {
        self.send(&json!({ "method": "dev.plimsoll.Control.Subscribe", "more": true }));
    }

    fn notice(&mut self) -> Value {
        self.receive().unwrap()["parameters"]["notice"].clone()
    }
}

pub(super) fn asking(number: u64, level: Level) -> Asking {
    let (deadline, reason) = (Duration::from_secs(20), "host memory is short".into());
    Asking { number, level, gpus: vec![], wanted: 5 << 20, deadline, reason }
}

pub(super) fn ask(desk: &Desk16, asking: Asking) -> JoinHandle<Result<Answered, WayError>> {
    let way = desk.way();
    desk.spawn(async move { way.ask(&asking).await })
}

pub(super) fn offer(desk: &Desk16) -> Offer {
    let way = desk.way();
    desk.wait(desk.spawn(async move { way.offer().await })).unwrap()
}

pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(std::time::Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const EVERYTHING: &str = r#"[{ "level": "gc" }, { "level": "unload", "gains": { "host": 1000, "gpus": { "GPU-a": 7 } }, "takesMilliseconds": 900 }]"#;

fn everything() -> Value {
    serde_json::from_str(EVERYTHING).unwrap()
}

#[test]
fn a_program_is_told_how_it_stands_and_what_changes() {
    let desk = Desk16::start();
    let mut program = Program::start(&desk, &json!([]));
    let first = [program.hears.notice(), program.hears.notice()];
    assert_eq!(
        first[0],
        json!({ "kind": "thrash", "thrash": { "state": "healthy", "previous": "healthy" } })
    );
    assert_eq!(first[1]["tier"], json!({ "resource": "host", "tier": "normal", "previous": "normal" }));
    let gpu = GpuAssessment { tier: Tier::Critical, ..GpuAssessment::default() };
    let short = Assessment { gpus: [("GPU-a".into(), gpu)].into(), ..Assessment::default() };
    desk.herald.pass(&short, &Plan::default());
    let answer = program.hears.receive().unwrap();
    assert_eq!(answer["continues"], json!(true));
    let tier = &answer["parameters"]["notice"]["tier"];
    assert_eq!(*tier, json!({ "resource": "gpu:GPU-a", "tier": "critical", "previous": "critical" }));
    desk.herald.stop();
    let last = std::iter::from_fn(|| program.hears.receive()).last().unwrap();
    assert_eq!(last["parameters"]["notice"]["shutdown"], json!({ "seconds": 0, "reason": "plimsoll stops" }));
    assert_eq!(last.get("continues"), None, "the stream is over");
}

#[test]
fn a_program_is_asked_and_answers_on_another_connection() {
    let desk = Desk16::start();
    assert_eq!(offer(&desk), Offer::default());
    let mut program = Program::start(&desk, &everything());
    until("it listens", || !offer(&desk).levels.is_empty());
    let offered = offer(&desk);
    let unload = &offered.levels[&Level::Unload];
    assert_eq!(unload.gains, Some(Gains { host: 1000, gpus: [("GPU-a".into(), Bytes(7))].into() }));
    assert_eq!(
        (unload.takes, offered.level, offered.gated),
        (Some(Span::millis(900)), Some(Level::Nothing), false)
    );
    let asked = ask(&desk, asking(4, Level::Unload));
    let request = program.request();
    let ms = request["deadlineMilliseconds"].as_u64().unwrap();
    assert!((10_000..=20_000).contains(&ms), "{request}");
    let told =
        [&request["id"], &request["level"], &request["resources"], &request["bytes"], &request["reason"]];
    let expected =
        [json!(4), json!("unload"), json!(["host"]), json!(5 << 20), json!("host memory is short")];
    assert_eq!(told, expected.each_ref());
    assert_eq!(offer(&desk).busy, Some(4));
    let done = program.acknowledge(4, "done", &json!({ "freed": { "host": 900 } }));
    assert_eq!(done, json!({ "parameters": {} }));
    assert_eq!(desk.wait(asked), Ok(Answered { claimed: Some(Gains { host: 900, ..Gains::default() }) }));
    assert_eq!((offer(&desk).level, offer(&desk).busy), (Some(Level::Unload), None));
    assert_eq!(error(&program.acknowledge(4, "done", &json!({}))), "dev.plimsoll.Control.NoSuchRequest");
    // The same number is the same asking: it is answered already.
    assert!(desk.wait(ask(&desk, asking(4, Level::Unload))).is_ok());
    let restored = ask(&desk, asking(5, Level::Nothing));
    assert_eq!(program.request()["level"], "restore");
    program.acknowledge(5, "done", &json!({}));
    assert!(desk.wait(restored).is_ok());
    assert_eq!(offer(&desk).level, Some(Level::Nothing));
}

#[test]
fn all_programs_of_a_workload_are_asked_and_their_answers_joined() {
    let desk = Desk16::start();
    let (mut one, mut two) = (Program::start(&desk, &everything()), Program::start(&desk, &everything()));
    let mut idle = Program::start(&desk, &json!([{ "level": "gc" }]));
    until("they listen", || {
        offer(&desk)
            .levels
            .get(&Level::Unload)
            .is_some_and(|p| p.gains.as_ref().is_some_and(|gains| gains.host == 2000))
    });
    for (program, requests) in [(&mut one, 3), (&mut two, 4)] {
        let parameters = json!({ "session": program.session, "requests": requests });
        program.speaks.control("Inflight", &parameters);
    }
    assert_eq!(offer(&desk).inflight, Some(7));
    let asked = ask(&desk, asking(1, Level::Unload));
    assert_eq!(
        (one.request()["level"].clone(), two.request()["level"].clone()),
        (json!("unload"), json!("unload"))
    );
    assert_eq!(idle.request()["level"], "gc", "the most that it has to offer");
    one.acknowledge(1, "done", &json!({ "freed": { "host": 100, "gpus": { "a": 5 } } }));
    two.acknowledge(1, "partial", &json!({ "freed": { "host": 10, "gpus": { "a": 6, "b": 1 } } }));
    idle.acknowledge(1, "done", &json!({}));
    let gpus = [("a".into(), Bytes(11)), ("b".into(), Bytes(1))].into();
    assert_eq!(desk.wait(asked), Ok(Answered { claimed: Some(Gains { host: 110, gpus }) }));
    let asked = ask(&desk, asking(2, Level::Gc));
    for program in [&mut one, &mut two, &mut idle] {
        program.request();
    }
    one.acknowledge(2, "done", &json!({}));
    two.acknowledge(2, "failed", &json!({ "message": "no such cache" }));
    idle.acknowledge(2, "done", &json!({}));
    assert_eq!(desk.wait(asked), Err(WayError::Refused("failed: no such cache".into())));
    let asked = ask(&desk, asking(3, Level::Gc));
    one.request();
    drop((one, two, idle));
    assert!(matches!(desk.wait(asked), Err(WayError::Unreachable(_))));
    until("they are gone", || desk.sessions.count(&desk.id()) == 0);
    assert_eq!(desk.wait(ask(&desk, asking(4, Level::Gc))), Err(WayError::NotOffered(Level::Gc)));
}

#[test]
fn what_nobody_waits_for_any_more_is_withdrawn() {
    let desk = Desk16::start();
    let mut program = Program::start(&desk, &everything());
    until("it listens", || !offer(&desk).levels.is_empty());
    let asked = ask(&desk, asking(9, Level::Gc));
    program.request();
    asked.abort();
    let notice = std::iter::from_fn(|| Some(program.hears.notice())).find(|n| n["kind"] != "tier").unwrap();
    assert_eq!(notice, json!({ "kind": "withdrawn", "withdrawn": 9 }));
    assert_eq!(error(&program.acknowledge(9, "done", &json!({}))), "dev.plimsoll.Control.NoSuchRequest");
}

#[test]
fn one_that_registered_and_does_not_listen_can_t_be_asked() {
    let desk = Desk16::start();
    let mut client = desk.client();
    let registered = client.control("Register", &json!({ "offers": everything() }));
    let expected = json!({ "session": 1, "workload": "chat", "priority": 7, "protected": false });
    assert_eq!(registered["parameters"], expected);
    let asked = desk.wait(ask(&desk, asking(1, Level::Gc)));
    assert!(matches!(asked, Err(WayError::Unreachable(_))), "{asked:?}");
    // Another offer on the same connection is the same program.
    let again = client.control("Register", &json!({ "offers": [], "gated": true }));
    assert_eq!(again["parameters"]["session"], 1);
    let how = client.control("Self", &json!({}));
    let expected = json!({
        "workload": "chat", "cgroup": own(), "priority": 7, "protected": false, "rung": "free", "level": "nothing",
        "sessions": 1, "tiers": { "host": "normal" }, "thrash": "healthy",
    });
    assert_eq!(how["parameters"], expected);
    assert_eq!(error(&client.control("Subscribe", &json!({}))), "org.varlink.service.ExpectedMore");
}

#[test]
fn a_server_that_was_just_started_is_waited_for_and_a_stranger_told_how_to_become_one() {
    let desk = Desk16::without_workloads();
    let mut early = desk.client();
    early.send(&json!({ "method": "dev.plimsoll.Control.Register", "parameters": { "offers": [] } }));
    std::thread::sleep(Duration::from_millis(300));
    desk.find();
    assert_eq!(early.receive().unwrap()["parameters"]["workload"], "chat");
    let desk = Desk16::without_workloads();
    let refused = desk.client().control("Register", &json!({ "offers": [] }));
    assert_eq!(error(&refused), "dev.plimsoll.Control.NotAWorkload");
    let message = refused["parameters"]["message"].as_str().unwrap();
    assert!(message.contains("plimsoll exec") && message.contains("rule"), "{message}");
    let mut stranger = desk.client();
    stranger.subscribe();
    assert_eq!(stranger.notice()["kind"], "thrash", "everybody may know how it stands");
}

#[test]
fn a_slow_reader_is_told_how_it_stands_now_and_nobody_waits_for_it() {
    let desk = Desk16::start();
    let mut slow = Program::start(&desk, &json!([]));
    let tiers = [Tier::Critical, Tier::Normal];
    for tier in tiers.iter().cycle().take(200_000) {
        desk.herald.pass(&Assessment { tier: *tier, ..Assessment::default() }, &Plan::default());
    }
    desk.herald.stop();
    let all: Vec<Value> = std::iter::from_fn(|| slow.hears.receive()).collect();
    assert_eq!(all.last().unwrap()["parameters"]["notice"]["kind"], "shutdown");
    assert!(all.len() < 20_000, "{} notices were kept for it", all.len());
}

#[test]
fn a_program_speaks_for_its_own_workload_only() {
    let desk = Desk16::start();
    let program = Program::start(&desk, &everything());
    let other = WorkloadId { path: "other".into(), inode: 1 };
    let of_other = desk.sessions.acknowledge(program.session, &other, 1, Ok(Answered::default()));
    assert_eq!(of_other, Err(ControlRefusal::NoSuchSession { session: program.session }));
    let mut none = desk.client();
    let wrong = none.control("Inflight", &json!({ "session": 77, "requests": 1 }));
    assert_eq!(
        (error(&wrong), &wrong["parameters"]),
        ("dev.plimsoll.Control.NoSuchSession", &json!({ "session": 77 }))
    );
}

#[test]
fn a_failed_cuda_call_is_counted_and_advised_on() {
    let desk = Desk16::start();
    let mut client = desk.client();
    let mut check = |parameters: Value, advice: &str| {
        let answer = client.control("ReportCudaError", &parameters);
        assert_eq!(answer["parameters"]["advice"], advice, "{parameters} {answer}");
    };
    check(json!({ "error": "cudaErrorMemoryAllocation", "outOfMemory": true }), "retry");
    check(json!({ "error": "x", "outOfMemory": true, "strikes": 3, "device": "GPU-a" }), "fallback");
    check(json!({ "error": "x", "outOfMemory": true, "sticky": true }), "fallback");
    check(json!({ "error": "x", "outOfMemory": false }), "retry");
    let counted = counts::CudaError::ALL.map(|kind| desk.counts.cuda(kind));
    assert_eq!(counted, [2, 1, 1]);
}

#[test]
fn a_mistake_in_an_offer_or_an_answer_is_called_by_its_name() {
    let desk = Desk16::start();
    let mut client = desk.client();
    let mut check = |method: &str, parameters: Value, parameter: &str| {
        let answer = client.control(method, &parameters);
        assert_eq!(error(&answer), "dev.plimsoll.Control.BadParameter", "{parameters} {answer}");
        assert_eq!(answer["parameters"]["parameter"], parameter, "{parameters} {answer}");
    };
    check("Register", json!({}), "offers");
    check("Register", json!({ "offers": 5 }), "offers");
    check("Register", json!({ "offers": [{ "level": "nothing" }] }), "offers");
    check("Register", json!({ "offers": [{ "level": "gc" }, { "level": "gc" }] }), "offers");
    check("Register", json!({ "offers": [{ "level": "gc", "gains": { "gpus": { "a": -1 } } }] }), "offers");
    check("Register", json!({ "offers": [{ "level": "gc", "more": 1 }] }), "offers");
    check("Register", json!({ "offers": [], "gated": 1 }), "gated");
    check("Acknowledge", json!({ "session": 1, "request": 1, "outcome": "great" }), "outcome");
    check("Acknowledge", json!({ "session": 1, "request": 1, "outcome": "done", "freed": 5 }), "freed");
    check("Inflight", json!({ "session": 1, "requests": -1 }), "requests");
    check("ReportCudaError", json!({ "error": "x" }), "outOfMemory");
    check("Reserve", json!({ "sizes": [1], "gpus": { "a": 0 } }), "gpus");
}
