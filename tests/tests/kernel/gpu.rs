//! GPUs of a driver that behaves as the test says: what is seen of them, and what is done when they are full.

use std::fs;
use std::path::{Path, PathBuf};

use nvidia_ml::{Gpu, NAME, State, state_of, steer};
use plimsoll_tests::guest;
use serde_json::Value;

use crate::world::{Daemon, Group, Workload, get, wait};

const MIB: u64 = 1 << 20;
/// Memory of each GPU.
const TOTAL: u64 = 10_000;

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
    let _chat = gpus.server(&chat, [3000, 0], &[]);
    let mut batch = gpus.server(&batch, [1000, 2000], &[]);
    let daemon = Daemon::start_with_libraries(gpus.dir(), CONFIG);
    wait("everybody is seen", || {
        let now = sample(&daemon);
        held(&now, "t-chat", "GPU-0") == Some(3000)
            && held(&now, "t-batch", "GPU-0") == Some(1000)
            && held(&now, "t-batch", "GPU-1") == Some(2000)
            && now["gpus"]["GPU-0"]["used"] == 4000 * MIB
    });
    let metrics = get("/metrics").unwrap();
    for line in [
        "plimsoll_gpu_memory_bytes{gpu=\"GPU-0\",kind=\"used\"} 4194304000",
        "plimsoll_workload_gpu_memory_bytes{workload=\"batch\",gpu=\"GPU-1\"} 2097152000",
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
    assert_eq!(held(&sample(&daemon), "t-chat", "GPU-0"), Some(3000), "the other is not blinded");
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
        held(&now, "t-chat", "GPU-0") == Some(3000) && now["gpus"]["GPU-1"]["used"] == 0
    });
    assert!(daemon.log().contains("a GPU is lost") && daemon.log().contains("driver is back"));
    assert_eq!(daemon.finish().0, Some(0));
}
