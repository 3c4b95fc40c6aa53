//! The control socket with real clients on a real socket; behind it stands the policy on a machine of 16 GiB.

mod hostile;
mod operators;
mod programs;
mod python;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_policy::config::Config;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::sample::{Meminfo, Sample, Spec, Trigger, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Span};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use zlink::idl::Interface;

use super::way::ClientWay;
use super::*;
use crate::report::{About, Record, Reporter};
use crate::sense::discover::cgroup_of;

const GIB: u64 = 1 << 30;

/// The cgroup of this process, below the root.
fn own() -> String {
    cgroup_of(std::process::id().cast_signed()).unwrap_or_default()
}

/// A daemon without anything but the socket and the policy.
struct Desk16 {
    dir: tempfile::TempDir,
    runtime: Option<Runtime>,
    herald: Arc<Herald>,
    sessions: Arc<Sessions>,
    counts: Arc<Counts>,
}

impl Desk16 {
    /// The process that this runs in is in a workload that is called chat.
    fn start() -> Self {
        let this = Self::without_workloads();
        this.find();
        this
    }

    fn without_workloads() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.daemon.cgroup_root = dir.path().join("cgroup").display().to_string();
        config.daemon.journal = Some(dir.path().join("journal.jsonl").display().to_string());
        config.daemon.listen = None;
        config.pace.discover = Span::millis(200);
        std::fs::create_dir_all(dir.path().join("cgroup").join(own())).unwrap();
        let runtime = Runtime::new().unwrap();
        let (desk, asked) = desk();
        let (herald, sessions, counts) = (Arc::new(Herald::default()), Arc::default(), Arc::default());
        let about = About { control: Arc::clone(&counts), ..About::default() };
        let reporter = Reporter::start(&config, about).unwrap();
        let parts = (herald.listen(), Arc::clone(&sessions), Arc::clone(&counts), reporter.showing());
        let control = Control::new(&config, desk, parts.0, parts.1, parts.2, parts.3);
        let (path, told) = (dir.path().join("control.sock"), Arc::clone(&herald));
        let id = peer::cgroup_at(&dir.path().join("cgroup"), &own()).unwrap();
        runtime.block_on(async {
            let listening = listen(&path, control).unwrap();
            tokio::spawn(async move {
                passes(asked, reporter, &told, id).await;
                drop(listening);
            });
        });
        Self { dir, runtime: Some(runtime), herald, sessions, counts }
    }

    /// Finds the workload.
    fn find(&self) {
        let spec = Spec { name: "chat".into(), priority: 7, ..Spec::default() };
        self.herald.workloads([(&self.id(), &spec)].into_iter(), 100);
    }

    fn id(&self) -> WorkloadId {
        peer::cgroup_at(&self.dir.path().join("cgroup"), &own()).unwrap()
    }

    fn way(&self) -> ClientWay {
        ClientWay { sessions: Arc::clone(&self.sessions), workload: self.id() }
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.as_ref().unwrap().spawn(task)
    }

    fn wait<T>(&self, task: JoinHandle<T>) -> T {
        self.runtime.as_ref().unwrap().block_on(task).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn client(&self) -> Client {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(stream)
    }
}

impl Drop for Desk16 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// A pass for every call, and one every 20 ms for those who wait.
async fn passes(mut asked: mpsc::Receiver<Asked>, mut reporter: Reporter, herald: &Herald, id: WorkloadId) {
    let (config, mut state, mut open, mut at) = (Config::default(), State::default(), BTreeMap::new(), 1);
    loop {
        let call = tokio::time::timeout(Duration::from_millis(20), asked.recv()).await;
        if matches!(call, Ok(None)) {
            return;
        }
        let mut sample = Sample { at: Monotonic(at), trigger: Trigger::Request, ..Sample::default() };
        at += Span::millis(20).0;
        if let Ok(Some(Asked { request, answer })) = call {
            open.insert(request.ticket, answer);
            sample.requests.push(request);
        }
        sample.workloads.insert(id.clone(), Workload::default());
        let all = Bytes(15 * GIB);
        sample.host.meminfo =
            Some(Meminfo { total: Bytes(16 * GIB), free: all, available: all, ..Meminfo::default() });
        let Pass { state: after, assessment, plan, findings } = step(&config, state, &sample);
        state = after;
        herald.pass(&assessment, &plan);
        for answer in plan.answers.clone() {
            if let Some(caller) = open.remove(&answer.ticket) {
                let _ = caller.send(answer.reply);
            }
        }
        reporter.pass(Record { sample, assessment, plan, findings, ..Record::default() });
    }
}

struct Client(UnixStream);

impl Client {
    fn send(&mut self, message: &Value) {
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.0.write_all(&text).unwrap();
    }

    /// `None` where the daemon hung up.
    fn receive(&mut self) -> Option<Value> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while self.0.read(&mut byte).unwrap_or(0) == 1 {
            if byte[0] == 0 {
                return Some(serde_json::from_slice(&text).unwrap());
            }
            text.push(byte[0]);
        }
        None
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.send(&json!({ "method": method, "parameters": parameters }));
        self.receive().expect("an answer")
    }

    fn control(&mut self, method: &str, parameters: &Value) -> Value {
        self.call(&format!("dev.plimsoll.Control.{method}"), parameters)
    }

    fn reserve(&mut self, sizes: &[u64]) -> Value {
        self.control("Reserve", &json!({ "sizes": sizes }))
    }
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_default()
}

#[test]
fn a_model_is_reserved_loaded_committed_and_released() {
    let desk = Desk16::start();
    let mut client = desk.client();
    let granted = client.reserve(&[8 * GIB])["parameters"].clone();
    assert_eq!(granted, json!({ "id": 1, "size": 8 * GIB, "promised": 8 * GIB, "ttlSeconds": 120 }));
    let room = client.control("Headroom", &json!({}))["parameters"].clone();
    assert_eq!((&room["reserved"], &room["available"]), (&json!(8 * GIB), &json!(7 * GIB)));
    let beat = client.control("Heartbeat", &json!({ "id": 1 }));
    assert_eq!(beat["parameters"], json!({ "unsettled": 8 * GIB, "ttlSeconds": 120 }));
    let amended = client.control("Amend", &json!({ "id": 1, "size": 6 * GIB }));
    assert_eq!(amended["parameters"]["unsettled"], json!(6 * GIB));
    let committed = client.control("Commit", &json!({ "id": 1, "measured": 5 * GIB }));
    assert_eq!(committed["parameters"]["unsettled"], json!(5 * GIB));
    assert_eq!(client.control("Release", &json!({ "id": 1 })), json!({ "parameters": {} }));
    let gone = client.control("Release", &json!({ "id": 1 }));
    assert_eq!(
        (error(&gone), &gone["parameters"]),
        ("dev.plimsoll.Control.NoSuchReservation", &json!({ "id": 1 }))
    );
    let learned = client.control("ReportOom", &json!({}));
    assert_eq!(learned["parameters"], json!({ "marginPercent": 8 }));
}

#[test]
fn of_two_racing_loaders_exactly_one_is_granted() {
    let desk = Desk16::start();
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let mut client = desk.client();
                scope.spawn(move || {
                    let answer = client.reserve(&[8 * GIB]);
                    // Whoever has it keeps it until all were answered.
                    std::thread::sleep(Duration::from_millis(500));
                    answer
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|a| error(a) == "dev.plimsoll.Control.Refused").collect();
    assert_eq!(refused.len(), 7, "{answers:?}");
    let why = &refused[0]["parameters"];
    assert_eq!(
        (&why["reason"], &why["asked"], &why["available"]),
        (&json!("no_room"), &json!(8 * GIB), &json!(7 * GIB))
    );
    assert!(why["message"].as_str().unwrap().starts_with("8GiB asked for, 7GiB available"), "{why}");
}

#[test]
fn who_hangs_up_holds_nothing_unless_it_is_detached() {
    let desk = Desk16::start();
    let mut held = desk.client();
    held.control("Reserve", &json!({ "sizes": [2 * GIB], "detached": true }));
    held.reserve(&[6 * GIB]);
    let mut waiting = desk.client();
    waiting.send(&json!({
        "method": "dev.plimsoll.Control.Reserve", "parameters": { "sizes": [10 * GIB], "waitSeconds": 15 },
    }));
    std::thread::sleep(Duration::from_millis(100));
    drop(held);
    let granted = waiting.receive().unwrap();
    assert_eq!(granted["parameters"]["size"], json!(10 * GIB), "{granted}");
    let room = desk.client().control("Headroom", &json!({}));
    assert_eq!(room["parameters"]["reserved"], json!(12 * GIB), "the detached one stays");
}

#[test]
fn who_waits_and_hangs_up_waits_no_longer() {
    let desk = Desk16::start();
    let mut holder = desk.client();
    holder.reserve(&[8 * GIB]);
    let mut waiting = desk.client();
    waiting.send(&json!({
        "method": "dev.plimsoll.Control.Reserve", "parameters": { "sizes": [10 * GIB], "waitSeconds": 3600 },
    }));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(holder.reserve(&[GIB])["parameters"]["reason"], json!("behind"));
    drop(waiting);
    // It might have shut down its writing half only, and is given a second.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(holder.reserve(&[GIB])["parameters"]["size"], json!(GIB));
}

#[test]
fn a_mistake_is_called_by_its_name() {
    let desk = Desk16::start();
    let mut client = desk.client();
    let mut check = |method: &str, parameters: Value, parameter: &str, message: &str| {
        let answer = client.control(method, &parameters);
        let expected = json!({ "parameter": parameter, "message": message });
        assert_eq!((error(&answer), &answer["parameters"]), ("dev.plimsoll.Control.BadParameter", &expected));
    };
    let list = "has to be a list of 1 to 16 whole numbers";
    let size = "has to be a whole number from 1 to 9223372036854775807";
    check("Reserve", json!({}), "sizes", "is missing");
    check("Reserve", json!({ "sizes": [] }), "sizes", list);
    check("Reserve", json!({ "sizes": 5 }), "sizes", list);
    check("Reserve", json!({ "sizes": [0] }), "sizes", size);
    check("Reserve", json!({ "sizes": [1.5] }), "sizes", size);
    check("Reserve", json!({ "sizes": [-1] }), "sizes", size);
    check("Reserve", json!({ "sizes": [1], "wait": 3 }), "wait", "is not known");
    check(
        "Reserve",
        json!({ "sizes": [1], "ttlSeconds": 0 }),
        "ttlSeconds",
        "has to be a whole number from 1 to 3600",
    );
    check("Reserve", json!({ "sizes": [1], "detached": "yes" }), "detached", "has to be true or false");
    check(
        "Reserve",
        json!({ "sizes": [1], "cgroup": "no/such" }),
        "cgroup",
        "names no cgroup below the root of the tree",
    );
    check(
        "Reserve",
        json!({ "sizes": [1], "cgroup": "a/../../etc" }),
        "cgroup",
        "names no cgroup below the root of the tree",
    );
    check("Commit", json!({ "id": 1 }), "measured", "is missing");
    check("Heartbeat", json!({ "id": "1" }), "id", "has to be a whole number from 0 to 9223372036854775807");
    check("Headroom", json!({ "x": 1 }), "x", "is not known");
    let unknown = client.control("Explode", &json!({}));
    assert_eq!(error(&unknown), "org.varlink.service.MethodNotFound");
    assert_eq!(unknown["parameters"], json!({ "method": "dev.plimsoll.Control.Explode" }));
    assert_eq!(error(&client.call("com.example.X", &json!({}))), "org.varlink.service.InterfaceNotFound");
}

#[test]
fn it_describes_itself() {
    let desk = Desk16::start();
    let mut client = desk.client();
    let info = client.call("org.varlink.service.GetInfo", &json!({}));
    let interfaces = info["parameters"]["interfaces"].as_array().unwrap().clone();
    for name in interfaces {
        let text = client.call("org.varlink.service.GetInterfaceDescription", &json!({ "interface": name }));
        let text = text["parameters"]["description"].as_str().unwrap().to_owned();
        let interface = Interface::try_from(text.as_str()).unwrap();
        assert_eq!(json!(interface.name()), name);
    }
    for (text, prefix) in [(INTERFACE, "dev.plimsoll.Control"), (OPERATOR, "dev.plimsoll.Operator")] {
        let methods = Interface::try_from(text).unwrap();
        let methods: Vec<_> = methods.methods().map(zlink::idl::Method::name).collect();
        assert!(methods.len() >= 5, "{methods:?}");
        for method in methods {
            let answer = client.call(&format!("{prefix}.{method}"), &json!({ "nonsense": 1 }));
            assert_eq!(error(&answer), "dev.plimsoll.Control.BadParameter", "{method} is there");
        }
    }
}

#[test]
fn the_client_of_exec_understands_it() {
    let desk = Desk16::start();
    let ask = |sizes: &[u64]| client::block_on(client::reserve(&desk.path(), sizes, Duration::ZERO)).unwrap();
    let grant = ask(&[20 * GIB, 8 * GIB]).unwrap();
    assert_eq!((grant.id, grant.size), (1, 8 * GIB));
    let client::AskError::Refused(refusal) = ask(&[9 * GIB]).unwrap_err() else { panic!() };
    assert!(refusal.to_string().contains("9GiB asked for, 7GiB available"), "{refusal}");
    let nobody = desk.dir.path().join("none.sock");
    let error = client::block_on(client::reserve(&nobody, &[1], Duration::ZERO)).unwrap().unwrap_err();
    assert!(matches!(error, client::AskError::Unreachable { .. }), "{error}");
}

#[test]
fn a_oneway_call_is_not_answered() {
    let desk = Desk16::start();
    let mut client = desk.client();
    client.send(&json!({ "method": "dev.plimsoll.Control.Headroom", "oneway": true }));
    let answer = client.call("org.varlink.service.GetInfo", &json!({}));
    assert_eq!(answer["parameters"]["product"], json!("plimsoll"));
}
