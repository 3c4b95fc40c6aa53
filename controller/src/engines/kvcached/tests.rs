//! Segments as kvcached lays them out, in a directory of their own.

use plimsoll_policy::units::{Bytes, Share};

use super::*;
use crate::ask::way::{Asking, Way};
use crate::engines::way::EngineWay;

fn segment(path: &Path, numbers: [i64; 3]) {
    std::fs::write(path, numbers.map(i64::to_ne_bytes).concat()).unwrap();
}

fn limit(path: &Path) -> i64 {
    let bytes = std::fs::read(path).unwrap();
    i64::from_ne_bytes(bytes[..8].try_into().unwrap())
}

fn way(directory: &Path) -> EngineWay<Kvcached> {
    let at = EngineAt { models: vec!["VLLM".into()], kv_limit: Some(Bytes(1000)), ..EngineAt::default() };
    EngineWay::new(Kvcached::below(directory, &at).unwrap(), Share::percent(50))
}

fn asking(number: u64, level: Level) -> Asking {
    let deadline = Duration::from_millis(200);
    Asking { number, level, gpus: Vec::new(), wanted: 0, deadline, reason: String::new() }
}

#[tokio::test]
async fn the_limit_goes_down_to_what_is_used_and_up_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("VLLM");
    segment(&path, [1000, 300, 50]);
    let way = way(directory.path());
    let offer = way.offer().await.unwrap();
    assert_eq!(offer.levels.into_keys().collect::<Vec<_>>(), [Level::Aggressive]);
    way.ask(&asking(1, Level::Aggressive)).await.unwrap();
    assert_eq!(limit(&path), 300);
    assert_eq!(way.offer().await.unwrap().level, Some(Level::Aggressive));
    way.ask(&asking(2, Level::Nothing)).await.unwrap();
    assert_eq!(limit(&path), 1000);
}

#[tokio::test]
async fn what_is_no_segment_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("VLLM");
    let way = way(directory.path());
    assert!(matches!(way.offer().await, Err(WayError::Unreachable(_))));
    assert!(!path.exists(), "a segment is never created");
    std::fs::write(&path, "short").unwrap();
    assert!(matches!(way.offer().await, Err(WayError::Garbled(_))));
    segment(&path, [-1, 0, 0]);
    assert!(matches!(way.offer().await, Err(WayError::Garbled(_))));
}

#[tokio::test]
async fn a_lock_that_is_held_costs_no_more_than_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("VLLM");
    segment(&path, [1000, 300, 50]);
    let holder = File::open(&path).unwrap();
    rustix::fs::flock(&holder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let begun = Clock::now();
    let error = way(directory.path()).ask(&asking(1, Level::Aggressive)).await.unwrap_err();
    assert!(matches!(error, WayError::Busy(_) | WayError::Late(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(limit(&path), 1000);
}

#[test]
fn segments_are_found_by_plain_names_only() {
    for name in ["../etc/passwd", "", "/dev/null", ".x"] {
        let at = EngineAt { models: vec![name.into()], kv_limit: Some(Bytes(1)), ..EngineAt::default() };
        assert!(matches!(Kvcached::new(&at), Err(WayError::Misconfigured(_))), "{name:?}");
    }
}
