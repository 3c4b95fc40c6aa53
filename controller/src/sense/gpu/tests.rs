//! How a look becomes part of a sample.

use plimsoll_policy::sample::{Workload, WorkloadId};

use super::*;

fn id(inode: u64) -> WorkloadId {
    WorkloadId { path: "models/a".into(), inode }
}

fn snapshot() -> Snapshot {
    let gpu = Gpu { total: Some(Bytes::mib(80_000)), used: Some(Bytes::mib(60_000)), ..Gpu::default() };
    Snapshot {
        at: Monotonic(5_000_000_000),
        gpus: [("GPU-0".into(), gpu)].into(),
        held: [(7, [("GPU-0".into(), Some(Bytes::mib(50_000)))].into())].into(),
        ..Snapshot::default()
    }
}

fn merged(after: Span) -> Sample {
    let feed = Feed { shared: Arc::default(), thread: std::thread::current() };
    feed.shared.publish(Arc::new(snapshot()));
    let workloads = [(id(7), Workload::default()), (id(8), Workload::default())].into();
    let mut sample = Sample { at: snapshot().at + after, workloads, ..Sample::default() };
    feed.merge(&mut sample);
    sample
}

#[test]
fn a_workload_has_what_its_processes_hold() {
    let sample = merged(Span::millis(900));
    assert_eq!(sample.workloads[&id(7)].gpus, snapshot().held[&7]);
    assert!(sample.workloads[&id(8)].gpus.is_empty(), "the same path, but another cgroup");
    assert!(sample.gaps.is_empty());
}

#[test]
fn an_old_look_is_a_gap_and_no_amount() {
    let sample = merged(Span::millis(2600));
    let gpu = &sample.gpus[&"GPU-0".into()];
    assert_eq!((gpu.used, gpu.total), (None, Some(Bytes::mib(80_000))));
    assert_eq!(sample.workloads[&id(7)].gpus, [("GPU-0".into(), None)].into());
    assert_eq!(sample.gaps[0].what, "gpu");
}
