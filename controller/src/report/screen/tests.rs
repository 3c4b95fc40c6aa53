//! The status as people see it.

use plimsoll_policy::admission::Stage;
use plimsoll_policy::assess::thrashing::ThrashState;
use plimsoll_policy::config::DryRun;
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::{Preference, Rung};

use super::*;
use crate::check::Capability;
use crate::report::status::{GpuStatus, ReservationStatus, WaitingStatus, WouldStatus};

fn workload(name: &str, priority: i32, rung: Rung) -> WorkloadStatus {
    WorkloadStatus {
        name: name.into(),
        cgroup: format!("models.slice/{name}"),
        pod: None,
        priority,
        preference: Preference::None,
        rung,
        leash: false,
        evidence: Vec::new(),
        would: None,
        held_off_seconds: None,
        asking: None,
        memory_bytes: Some(400 << 20),
        swap_bytes: Some(0),
        high_bytes: None,
        low_bytes: None,
        foreign: Vec::new(),
        frozen: Some(rung == Rung::Freeze),
        growth_bytes_per_second: None,
    }
}

fn status() -> Status {
    let batch = WorkloadStatus {
        evidence: vec!["the tier is critical and 120MiB are wanted".into()],
        growth_bytes_per_second: Some(200 << 20),
        high_bytes: Some(360 << 20),
        ..workload("batch", -10, Rung::Freeze)
    };
    Status {
        version: "0.1.0".into(),
        uptime_seconds: 3723.0,
        dry_run: DryRun::default(),
        paused_seconds: None,
        guardian_pid: Some(812),
        host: Some(HostStatus {
            age_seconds: 0.02,
            tier: Tier::Critical,
            because: Some("96.1% used, threshold 95%".into()),
            used_ratio: Some(0.961),
            headroom_bytes: Some(40 << 20),
            forecast_seconds: Some(2.5),
            forecast: Some("MemAvailable".into()),
            stall_ratio: Some(0.0),
            thrash: ThrashState::Thrashing,
            gaps: vec!["memory.stat: EIO".into()],
        }),
        gpus: Vec::new(),
        workloads: vec![
            batch,
            WorkloadStatus { low_bytes: Some(300 << 20), ..workload("chat", 2000, Rung::Free) },
        ],
        admission: AdmissionStatus::default(),
        capabilities: vec![
            Capability::there("btf", "/sys/kernel/btf/vmlinux"),
            Capability::there("swap", "none").lost("freezing frees no anonymous memory", "set up zram"),
        ],
        totals: TotalsStatus { passes: 7400, actions: 3, freed_bytes: 96 << 20, ..TotalsStatus::default() },
    }
}

const EXPECTED: &str = "\
plimsoll   0.1.0, protecting, up 1h 2m, guardian 812
host       critical (96.1% used, threshold 95%)
           96.1% used, 40MiB headroom, exhausted in 2.5s by MemAvailable, protected wait 0% of the time, protected fault: thrashing
           not read: memory.stat: EIO
so far     7400 passes, 0 changes of tier, 3 actions, 96MiB freed, 0 kills

WORKLOAD  PRIORITY  RUNG             MEMORY  SWAP    HIGH     LOW     GROWTH
batch          -10  freeze (frozen)  400MiB    0B  360MiB       -  +200MiB/s
  because the tier is critical and 120MiB are wanted
chat          2000  free             400MiB    0B       -  300MiB          -

missing    swap: none
           lost: freezing frees no anonymous memory
           to mend it: set up zram
";

#[test]
fn it_reads_well() {
    let text = render(&status());
    assert_eq!(text, EXPECTED, "\n{text}");
}

#[test]
fn a_pause_comes_before_everything() {
    let text = render(&Status { paused_seconds: Some(125.0), ..status() });
    assert!(text.contains("paused for another 2m 5s: nothing is done, up "), "{text}");
}

#[test]
fn a_dry_run_says_what_would_be_done() {
    let would = Some(WouldStatus {
        rung: Rung::Kill,
        action: 9,
        evidence: vec!["gentler rungs would free 10MiB of the 100MiB needed".into()],
    });
    let batch =
        WorkloadStatus { would, held_off_seconds: Some(200.0), ..workload("batch", -10, Rung::Freeze) };
    let dry_run = DryRun::Rungs(vec![Rung::Kill]);
    let text = render(&Status { dry_run, workloads: vec![batch], ..status() });
    assert!(text.contains("protecting, but dry run of kill, up"), "{text}");
    let told = "\
  not let go for another 3m 20s
  dry run: would be on kill
    because gentler rungs would free 10MiB of the 100MiB needed
";
    assert!(text.contains(told), "{text}");
    assert!(
        render(&Status { dry_run: DryRun::Whole(true), ..status() }).contains("dry run: nothing is touched")
    );
}

#[test]
fn before_the_first_pass_and_without_workloads() {
    let text = render(&Status { host: None, workloads: Vec::new(), ..status() });
    assert!(text.contains("the first pass is not done yet"), "{text}");
    assert!(text.contains("no workloads"), "{text}");
}

#[test]
fn a_control_loop_that_stands_still_is_seen() {
    let mut status = status();
    status.host.as_mut().unwrap().age_seconds = 90.0;
    assert!(render(&status).contains("seen 1m 30s ago: the control loop stands still"));
}

#[test]
fn what_is_sent_is_what_arrives() {
    let json = serde_json::to_string(&status()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());
}

#[test]
fn a_workload_that_is_not_there_is_named_with_those_that_are() {
    assert_eq!(status().only("chat").unwrap().workloads.len(), 1);
    let error = status().only("chatt").unwrap_err().to_string();
    assert_eq!(error, "no workload is named \"chatt\"; there are batch, chat");
    let none = Status { workloads: Vec::new(), ..status() };
    assert_eq!(none.only("x").unwrap_err().to_string(), "no workload is named \"x\"; there are none");
}

#[test]
fn promises_are_shown_where_somebody_asked() {
    assert!(!render(&status()).contains("admission"));
    let admission = AdmissionStatus {
        reserved_bytes: 5 << 30,
        reservations: vec![ReservationStatus {
            id: 7,
            cgroup: "plimsoll.slice/models/chat".into(),
            stage: Stage::Granted,
            size_bytes: 6 << 30,
            unsettled_bytes: 5 << 30,
            expires_seconds: 110.0,
        }],
        waiting: vec![WaitingStatus {
            cgroup: "plimsoll.slice/models/batch".into(),
            size_bytes: 4 << 30,
            since_seconds: 2.0,
            left_seconds: 28.0,
        }],
        granted: 1,
        refused: [("no_room".to_owned(), 2)].into(),
    };
    let text = render(&Status { admission, ..status() });
    assert!(text.contains("admission  5GiB promised and not used yet, 1 granted, 2 refused\n"), "{text}");
    assert!(text.contains("5GiB of 6GiB for plimsoll.slice/models/chat, expires in 1m 50s\n"), "{text}");
    assert!(text.contains("plimsoll.slice/models/batch waits for 4GiB, for another 28.0s\n"), "{text}");
}

#[test]
fn gpus_have_a_block() {
    let full = GpuStatus {
        id: "GPU-7".into(),
        name: "NVIDIA L4".into(),
        tier: Some(Tier::Critical),
        because: Some("95.8% used, threshold 95%".into()),
        total_bytes: Some(24_000 << 20),
        used_bytes: Some(23_000 << 20),
        reserved_bytes: 512 << 20,
        forecast_seconds: Some(2.5),
        contested: true,
        holders: [("batch".into(), None), ("chat".into(), Some(20_480 << 20))].into(),
        ..GpuStatus::default()
    };
    let merely = GpuStatus { contested: false, forecast_seconds: None, ..full.clone() };
    let unified = GpuStatus { id: "GPU-8".into(), unified: true, ..GpuStatus::default() };
    let lost = GpuStatus { id: "GPU-9".into(), lost: true, ..GpuStatus::default() };
    let text = render(&Status { gpus: vec![full, unified, lost], ..status() });
    let told = "\
gpu        critical (95.8% used, threshold 95%): gpu:GPU-7, NVIDIA L4
           95.8% used, 22.4GiB of 23.4GiB, 512MiB promised, full in 2.5s, contested: somebody wants more of it
           held by batch nobody knows how much, chat 20GiB
gpu        unified: its memory is the host's: gpu:GPU-8
gpu        lost: it fell off the bus, or its driver is gone: gpu:GPU-9
";
    assert!(text.contains(told), "{text}");
    assert!(render(&Status { gpus: vec![merely], ..status() }).contains("nobody has to make room"));
}

#[test]
fn what_came_of_asking_is_told() {
    use plimsoll_policy::concession::Gains;
    let last = ConcededStatus {
        level: "unload".into(),
        by: "client+signal".into(),
        result: "failed".into(),
        why: Some("signal: refused".into()),
        ago_seconds: 63.0,
        took_seconds: 2.5,
        freed: Gains { host: 5 << 20, gpus: [("GPU-1".into(), Bytes(7 << 20))].into() },
        claimed: None,
    };
    let asking = AskingStatus {
        offers: vec!["gc".into()],
        level: Some("gc".into()),
        inflight: None,
        gated: false,
        wanted: Some("offload".into()),
        busy: true,
        last: Some(last),
    };
    let mut text = String::new();
    super::asking(&asking, &mut text).unwrap();
    assert_eq!(
        text,
        "  being asked for offload\n  in force by its own word: gc\n  \
         asked for unload by client+signal, failed in 2.5s, 1m 3s ago: signal: refused; 5MiB of host came back; \
         7MiB of gpu:GPU-1 came back\n"
    );
}
