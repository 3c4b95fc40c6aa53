//! Lines arrive whole, files make room for themselves, keyframes come when they are due, and a disk that is full or gone
//! never stops anybody.

use std::fs;
use std::time::Instant;

use plimsoll_policy::journal::Entry;
use plimsoll_policy::sample::{Gap, Sample};
use plimsoll_policy::state::State;
use plimsoll_policy::units::Bytes;

use super::*;

fn record(at: u64, padding: usize) -> Record {
    let gap = Gap { what: "x".repeat(padding), why: String::new() };
    Record { sample: Sample { at: Monotonic(at), gaps: vec![gap], ..Sample::default() }, ..Record::default() }
}

fn keyframe(at: u64, padding: usize) -> Record {
    Record { before: Some(State { action: at, ..State::default() }), ..record(at, padding) }
}

fn config(path: &Path) -> Config {
    let mut config = Config::default().resolve(Bytes::mib(1000)).unwrap();
    config.daemon.journal = Some(path.to_str().unwrap().to_owned());
    config.daemon.journal_size = Bytes::mib(1);
    config
}

fn journal(path: &Path) -> Journal {
    Journal::start(&config(path)).unwrap().unwrap()
}

fn entries(path: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `head`, or the moments of passes, those of keyframes marked.
fn told(path: &Path) -> String {
    let words = entries(path).into_iter().map(|entry| match entry {
        Entry::Head(_) => "head".to_owned(),
        Entry::Line(line) => {
            format!("{}{}", line.sample.at.0, if line.state.is_some() { "*" } else { "" })
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn pen(path: &Path, files: u32) -> Pen {
    Pen::new(LogFile::new(path, Bytes(16 << 10), files), head(&config(path)), Arc::default())
}

#[test]
fn a_line_says_all_of_a_pass() {
    let record = keyframe(7, 1);
    let entry: Entry = serde_json::from_slice(&text(&line(3, &record)).unwrap()).unwrap();
    let Entry::Line(line) = entry else { panic!("{entry:?}") };
    assert_eq!((line.v, line.n), (VERSION, Some(3)));
    assert_eq!(*line.sample, record.sample);
    assert_eq!(line.assessment.as_deref(), Some(&record.assessment));
    assert_eq!(line.plan.as_deref(), Some(&record.plan));
    assert_eq!(line.findings.as_deref(), Some(&[][..]));
    assert_eq!(line.state.as_deref(), record.before.as_ref());
}

#[test]
fn a_head_says_how_it_was_decided_and_when() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    pen(&path, 2).write(1, &keyframe(1, 1));
    let Some(Entry::Head(head)) = entries(&path).into_iter().next() else { panic!("no head") };
    assert_eq!(head.config, config(&path));
    assert_eq!((head.program.as_deref(), head.boot.unwrap().len()), (Some(env!("CARGO_PKG_VERSION")), 36));
    assert!(head.clock.unwrap().unix_ms > 1_700_000_000_000);
}

#[test]
fn a_drained_journal_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/journal.jsonl");
    let mut journal = journal(&path);
    let counts = journal.counts();
    (0..5).for_each(|at| journal.write(Arc::new(record(at, 1))));
    journal.drain(Duration::from_secs(10));
    assert_eq!(told(&path), "head 0 1 2 3 4");
    assert_eq!((counts.written(), counts.dropped()), (5, 0));
}

#[test]
fn a_keyframe_is_due_at_the_start_and_each_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = journal(&dir.path().join("journal.jsonl"));
    let at = |seconds| Monotonic(0) + Span::secs(seconds);
    assert!(journal.wants_state(at(100)));
    journal.write(Arc::new(keyframe(at(100).0, 1)));
    assert!(!journal.wants_state(at(159)) && journal.wants_state(at(160)));
}

#[test]
fn it_makes_room_for_itself_at_a_keyframe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut pen = pen(&path, 2);
    pen.write(0, &keyframe(0, 10_000));
    pen.write(1, &record(1, 500));
    assert!(!pen.counts.wanted.load(Ordering::Relaxed));
    pen.write(2, &record(2, 1800));
    assert!(pen.counts.wanted.load(Ordering::Relaxed), "the file is nearly full");
    pen.write(3, &keyframe(3, 1));
    pen.write(4, &record(4, 1));
    assert_eq!((told(&file::rotated(&path, 1)), told(&path)), ("head 0* 1 2".into(), "head 3* 4".into()));
}

#[test]
fn without_a_keyframe_it_makes_room_all_the_same_and_asks_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    let mut pen = pen(&path, 2);
    pen.write(0, &keyframe(0, 12_000));
    pen.write(1, &record(1, 12_000));
    assert_eq!(told(&path), "head 1");
    assert!(pen.counts.wanted.load(Ordering::Relaxed));
}

#[test]
fn as_many_files_are_kept_as_are_asked_for() {
    for files in [1, 2, 4] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut pen = pen(&path, files);
        (0..9).for_each(|at| pen.write(at, &record(at, 12_000)));
        assert_eq!(told(&path), "head 8");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), files as usize);
        for age in 1..files {
            assert_eq!(told(&file::rotated(&path, age)), format!("head {}", 8 - age));
        }
    }
}

#[test]
fn a_line_that_a_predecessor_began_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    fs::write(&path, "{\"v\":2,\"n").unwrap();
    pen(&path, 2).write(1, &record(1, 1));
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\"v\":2,\"n\n{\"v\":2,\"program\":"));
}

#[test]
fn a_successor_goes_on_in_the_same_file_with_a_head_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    pen(&path, 2).write(1, &keyframe(1, 1));
    pen(&path, 2).write(1, &keyframe(9, 1));
    assert_eq!(told(&path), "head 1* head 9*");
}

/// `/dev/full` answers every write with ENOSPC.
#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let mut journal = journal(Path::new("/dev/full"));
    let counts = journal.counts();
    let begun = Instant::now();
    (0..10).for_each(|at| journal.write(Arc::new(keyframe(at, 1))));
    assert!(begun.elapsed() < Duration::from_millis(500), "a pass never waits");
    assert!(!journal.wants_state(Monotonic(9)), "nobody copies states for a full disk");
    journal.drain(Duration::from_secs(10));
    assert_eq!((counts.written(), counts.dropped()), (0, 10));
}

#[test]
fn it_recovers_when_the_disk_does_and_asks_for_a_keyframe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/journal.jsonl");
    fs::write(dir.path().join("sub"), "in the way").unwrap();
    let mut pen = pen(&path, 2);
    pen.write(1, &keyframe(0, 1));
    pen.write(2, &record(1, 1));
    assert_eq!((pen.failing, pen.counts.wanted.load(Ordering::Relaxed)), (Some(2), false));
    fs::remove_file(dir.path().join("sub")).unwrap();
    pen.write(3, &record(2, 1));
    assert_eq!((pen.failing, told(&path)), (None, "head 2".into()));
    assert!(pen.counts.wanted.load(Ordering::Relaxed));
}

#[test]
fn a_queue_that_is_full_drops() {
    let (queue, _records) = sync_channel(1);
    let (_ended, done) = sync_channel(1);
    let mut journal = Journal { queue, done, counts: Arc::default(), passes: 0, keyframe: None };
    (0..3).for_each(|at| journal.write(Arc::new(record(at, 1))));
    assert_eq!(journal.counts().dropped(), 2);
}
