//! Lines arrive whole, the file makes room for itself, and a disk that is full or gone never stops anybody.

use std::time::Instant;

use plimsoll_policy::sample::{Gap, Sample};
use plimsoll_policy::units::Span;

use super::*;

fn record(at: u64, padding: usize) -> Record {
    let gap = Gap { what: "x".repeat(padding), why: String::new() };
    Record {
        sample: Sample { at: Monotonic(at), gaps: vec![gap], ..Sample::default() },
        assessment: Assessment::default(),
        plan: Plan::default(),
        findings: Vec::new(),
        took: Span::ZERO,
    }
}

fn moments(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    let parse = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(parse).map(|line| line["at"].as_u64().unwrap()).collect()
}

fn pen(path: &Path) -> Pen {
    Pen { file: LogFile::new(path, Bytes(4096)), counts: Arc::default(), failing: None }
}

#[test]
fn a_line_is_a_scenario() {
    let line = line(&record(7, 1)).unwrap();
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(line["v"], 1);
    let sample: Sample = serde_json::from_value(line["sample"].clone()).unwrap();
    assert_eq!(sample, record(7, 1).sample);
    let _: Assessment = serde_json::from_value(line["assessment"].clone()).unwrap();
    let _: Plan = serde_json::from_value(line["plan"].clone()).unwrap();
}

#[test]
fn a_drained_journal_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/journal.jsonl");
    let journal = Journal::start(&path, Bytes::mib(1)).unwrap();
    let counts = journal.counts();
    (0..20).for_each(|at| journal.write(Arc::new(record(at, 1))));
    journal.drain(Duration::from_secs(10));
    assert_eq!(moments(&path), (0..20).collect::<Vec<_>>());
    assert_eq!((counts.written(), counts.dropped()), (20, 0));
}

#[test]
fn it_makes_room_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut pen = pen(&path);
    (0..4).for_each(|at| pen.write(&record(at, 1500)));
    assert_eq!((moments(&dir.path().join("journal.jsonl.1")), moments(&path)), (vec![0, 1], vec![2, 3]));
}

#[test]
fn a_line_that_a_predecessor_began_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    fs::write(&path, "{\"v\":1,\"at").unwrap();
    pen(&path).write(&record(1, 1));
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\"v\":1,\"at\n{\"v\":1,\"at\":1,"));
}

/// `/dev/full` answers every write with ENOSPC.
#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let journal = Journal::start(Path::new("/dev/full"), Bytes::mib(1)).unwrap();
    let counts = journal.counts();
    let begun = Instant::now();
    (0..10).for_each(|at| journal.write(Arc::new(record(at, 1))));
    assert!(begun.elapsed() < Duration::from_millis(500), "a pass never waits");
    journal.drain(Duration::from_secs(10));
    assert_eq!((counts.written(), counts.dropped()), (0, 10));
}

#[test]
fn it_recovers_when_the_disk_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/journal.jsonl");
    fs::write(dir.path().join("sub"), "in the way").unwrap();
    let mut pen = pen(&path);
    pen.write(&record(0, 1));
    pen.write(&record(1, 1));
    assert_eq!(pen.failing, Some(2));
    fs::remove_file(dir.path().join("sub")).unwrap();
    pen.write(&record(2, 1));
    assert_eq!((pen.failing, moments(&path)), (None, vec![2]));
}

#[test]
fn a_queue_that_is_full_drops() {
    let (queue, _records) = sync_channel(1);
    let (_ended, done) = sync_channel(1);
    let journal = Journal { queue, done, counts: Arc::default() };
    (0..3).for_each(|at| journal.write(Arc::new(record(at, 1))));
    assert_eq!(journal.counts().dropped(), 2);
}
