//! GPUs of a driver that behaves as the test says: what is seen of them, and what is done when they are full.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nvidia_ml::{Gpu, NAME, State, state_of, steer};
use plimsoll_tests::guest;
use serde_json::Value;

use crate::world::{Daemon, Group, Workload, get, wait};

const MIB: u64 = 1 << 20;
/// Memory of each GPU: what is moved to the host has to find room in a small guest.
const TOTAL: u64 = 1000;

/// Two GPUs, and the library that knows them.
struct Gpus(tempfile::TempDir);

impl Gpus {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/").unwrap();
        fs::copy(guest::nvml(), dir.path().join(NAME)).unwrap();
        let this = Self(dir);
        let gpu = |number: u32| Gpu {
            uuid: format!("GPU-{number}"),
            name: "Fake".into(),
            bus_id: format!("00000000:{number:02X}:00.0"),
            total: TOTAL * MIB,
            ..Gpu::default()
        };
        this.steer(|state| state.gpus = vec![gpu(0), gpu(1)]);
        this
    }

    fn library(&self) -> PathBuf {
        self.0.path().join(NAME)
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn steer<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        steer(&state_of(&self.library()), change).unwrap()
    }

    /// MiB of a GPU that are in use.
    fn used(&self, gpu: usize) -> u64 {
        self.steer(|state| state.gpus[gpu].processes.iter().map(|process| process.bytes).sum::<u64>()) / MIB
    }

    /// Starts a model server that holds this much of each GPU.
    fn server(&self, group: &Group, mib: [u64; 2], more: &[&str]) -> Workload {
        let library = self.library().display().to_string();
        let shares = [0, 1].map(|gpu| format!("GPU-{gpu}={}", mib[gpu]));
        let [one, two] = &shares;
        let arguments = [&["gpu-server", "--library", &library, "--gpu", one, "--gpu", two], more].concat();
        let before = [self.used(0), self.used(1)];
        let server = group.workload(&arguments);
        wait("the server has its GPU memory", || (0..2).all(|gpu| self.used(gpu) >= before[gpu] + mib[gpu]));
        server
    }
}

/// The newest sample of the journal.
fn sample(daemon: &Daemon) -> Value {
    daemon.journal().pop().map(|mut line| line["sample"].take()).unwrap_or_default()
}

/// MiB that a workload holds of a GPU, as the newest sample has it.
fn held(sample: &Value, path: &str, gpu: &str) -> Option<u64> {
    let all = sample["workloads"].as_object()?;
    let (_, workload) = all.iter().find(|(id, _)| id.starts_with(path))?;
    Some(workload["gpus"][gpu].as_u64()? / MIB)
}

const CONFIG: &str = "\
pace: { gpu: 50ms }
workloads:
  - { name: chat, cgroup: t-chat, priority: 2000 }
  - { name: batch, cgroup: t-batch, priority: -10 }
";

#[test]
fn gpus_and_their_users_are_seen_lost_and_found() {
    let gpus = Gpus::new();
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let _chat = gpus.server(&chat, [300, 0], &[]);
    let mut batch = gpus.server(&batch, [100, 200], &[]);
    let daemon = Daemon::start_with_libraries(gpus.dir(), CONFIG);
    wait("everybody is seen", || {
        let now = sample(&daemon);
        held(&now, "t-chat", "GPU-0") == Some(300)
            && held(&now, "t-batch", "GPU-0") == Some(100)
            && held(&now, "t-batch", "GPU-1") == Some(200)
            && now["gpus"]["GPU-0"]["used"] == 400 * MIB
    });
    let metrics = get("/metrics").unwrap();
    for line in [
        "plimsoll_gpu_memory_bytes{gpu=\"GPU-0\",kind=\"used\"} 419430400",
        "plimsoll_workload_gpu_memory_bytes{workload=\"batch\",gpu=\"GPU-1\"} 209715200",
        "plimsoll_gpu_lost{gpu=\"GPU-1\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\nis not in\n{metrics}");
    }

    batch.kill().unwrap();
    batch.wait().unwrap();
    wait("the dead hold nothing", || {
        let now = sample(&daemon);
        now["gpus"]["GPU-1"]["used"] == 0 && held(&now, "t-batch", "GPU-1").is_none()
    });

    gpus.steer(|state| state.gpus[1].error = Some("gpu_is_lost".into()));
    wait("one is lost", || sample(&daemon)["gpus"]["GPU-1"]["lost"] == true);
    assert_eq!(held(&sample(&daemon), "t-chat", "GPU-0"), Some(300), "the other is not blinded");
    gpus.steer(|state| state.error = Some("lib_rm_version_mismatch".into()));
    wait("the driver is gone", || sample(&daemon)["gpus"]["GPU-0"]["lost"] == true);
    let unknown = sample(&daemon)["workloads"].to_string();
    assert!(unknown.contains("\"GPU-0\":null"), "what nobody knows is not nothing: {unknown}");
    gpus.steer(|state| {
        state.error = None;
        state.gpus[1].error = None;
    });
    wait("all is well again", || {
        let now = sample(&daemon);
        held(&now, "t-chat", "GPU-0") == Some(300) && now["gpus"]["GPU-1"]["used"] == 0
    });
    assert!(daemon.log().contains("a GPU is lost") && daemon.log().contains("driver is back"));
    assert_eq!(daemon.finish().0, Some(0));
}

const SIGNALS: &str = "ask: { signal: { gc: SIGUSR1, aggressive: SIGUSR2, offload: SIGHUP, unload: SIGURG, restore: SIGWINCH } }";

/// What is used decides alone: these GPUs are so small that every step of a test would be a rate that fills them within a second.
const BY_USE: &str =
    "constrained: { forecast: none }, critical: { forecast: none }, emergency: { forecast: none }";

/// Those that yield, lowest first, and one that matters more and wants the room.
fn ladder(more: &str) -> String {
    format!(
        "pace: {{ gpu: 50ms }}\n\
         gpu: {{ dwell: 100ms, dwell_down: 500ms, {BY_USE} }}\n\
         ask: {{ poll: 500ms, verify_for: 2s }}\n\
         workloads:\n\
         \x20 - {{ name: chat, cgroup: t-chat, priority: 2000 }}\n\
         \x20 - {{ name: embed, cgroup: t-embed, priority: 100, {SIGNALS} }}\n\
         \x20 - {{ name: batch, cgroup: t-batch, priority: -10, {SIGNALS} }}\n{more}"
    )
}

/// The levels that were wanted of a workload so far, without repetitions.
fn levels(daemon: &Daemon, path: &str) -> Vec<String> {
    let one = |line: &Value| {
        let all = line["plan"]["workloads"].as_object()?;
        let (_, wanted) = all.iter().find(|(id, _)| id.starts_with(path))?;
        Some(wanted["wish"]["level"].as_str()?.to_owned())
    };
    let mut all: Vec<String> = daemon.journal().iter().filter_map(one).collect();
    all.dedup();
    all
}

#[test]
fn a_gpu_fills_and_those_that_matter_least_make_room_and_get_it_back() {
    let gpus = Gpus::new();
    let (chat, embed, batch) = (Group::new("t-chat"), Group::new("t-embed"), Group::new("t-batch"));
    let chat_server = gpus.server(&chat, [300, 0], &[]);
    let _embed = gpus.server(&embed, [150, 50], &[]);
    let _batch = gpus.server(&batch, [200, 100], &[]);
    let daemon = Daemon::start_with_libraries(gpus.dir(), &ladder(""));
    wait("they can be asked", || sample(&daemon)["workloads"].to_string().contains("\"offload\""));
    let grow = |mib: u64| gpus.steer(|state| state.gpus[0].hold(chat_server.id(), mib * MIB));
    // By what it holds, so much is in use that the GPU is this full.
    let fill = |percent: u64| {
        let own = gpus.steer(|state| state.gpus[0].held_by(chat_server.id())) / MIB;
        grow((TOTAL * percent / 100 + own).saturating_sub(gpus.used(0)));
    };
    let asked = |path: &str, level: &str| levels(&daemon, path).iter().any(|one| one == level);
    for (percent, level) in [(83, "gc"), (92, "aggressive"), (96, "offload")] {
        wait(level, || {
            // What they gave is taken at once, so that the tier stays.
            fill(percent);
            sleep(Duration::from_millis(100));
            asked("t-batch", level) || asked("t-embed", level)
        });
    }
    // More than the first of them can give.
    wait("both are out", || {
        fill(96);
        sleep(Duration::from_millis(100));
        let now = sample(&daemon);
        // What is left of a sleeping engine, or nothing once that was asked for as well.
        ["t-batch", "t-embed"].iter().all(|path| held(&now, path, "GPU-0").unwrap_or(0) <= 10)
    });
    assert!(chat.is_populated() && embed.is_populated() && batch.is_populated());
    assert!(!daemon.saw("kill", "done"), "{:?}", daemon.outcomes());
    grow(300);
    wait("all have their memory back", || gpus.used(0) == 650 && gpus.used(1) == 150);
    let back = |path: &str| {
        let at = |line: &Value| {
            line["sample"]["conceded"].as_array()?.iter().find_map(|one| {
                let id = one["workload"].as_str()?;
                (id.starts_with(path) && one["level"] == "nothing").then(|| line["sample"]["at"].as_u64())?
            })
        };
        daemon.journal().iter().rev().find_map(at)
    };
    wait("it is on the record", || back("t-batch").is_some() && back("t-embed").is_some());
    assert!(back("t-embed") < back("t-batch"), "the one that matters more is back first");
    assert_eq!(daemon.finish().0, Some(0));
}

#[test]
fn one_that_does_not_listen_is_killed_for_one_that_matters_more() {
    let gpus = Gpus::new();
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let chat_server = gpus.server(&chat, [0, 300], &[]);
    let _batch = gpus.server(&batch, [0, 250], &["--deaf"]);
    let daemon = Daemon::start_with_libraries(gpus.dir(), &ladder(""));
    wait("it can be asked", || sample(&daemon)["workloads"].to_string().contains("\"offload\""));
    for mib in (300..=745).step_by(15) {
        gpus.steer(|state| state.gpus[1].hold(chat_server.id(), mib * MIB));
        sleep(Duration::from_millis(50));
    }
    wait("the one that gives nothing is gone", || !batch.is_populated());
    assert!(chat.is_populated() && !levels(&daemon, "t-batch").is_empty());
    wait("it is on the record", || daemon.saw("kill", "done"));
    assert_eq!(daemon.finish().0, Some(0));
}
