//! Journals for tests: the scenarios' samples, journalled as the daemon would.

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_policy::config::Config;
use plimsoll_policy::journal::Entry;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::sample::Sample;
use plimsoll_policy::state::State;
use plimsoll_policy::units::Bytes;

use super::read::{Journal, Read};
use crate::report::{Record, journal_by_hand, journal_files};

/// Every scenario's file.
pub(super) fn scenarios() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|it| it == "jsonl")).collect()
}

/// One of them by its name.
pub(super) fn scenario(name: &str) -> PathBuf {
    scenarios().into_iter().find(|path| path.file_stem().is_some_and(|it| it == name)).unwrap()
}

/// Configuration and samples of a scenario.
pub(super) fn story(path: &Path) -> (Config, Vec<Sample>) {
    let (mut config, mut samples) = (Config::default(), Vec::new());
    for read in Journal::of([path.to_owned()]) {
        match read.unwrap().1 {
            Read::Whole(Entry::Head(head)) => config = head.config,
            Read::Whole(Entry::Line(line)) => samples.push(line.sample.into_owned()),
            other => panic!("{}: {other:?}", path.display()),
        }
    }
    (config, samples)
}

/// Journals a story as the daemon would, but for the passes in `lost`, and gives the files, oldest first.
pub(super) fn journalled(dir: &Path, config: &Config, samples: &[Sample], lost: &[usize]) -> Vec<PathBuf> {
    let path = dir.join("journal.jsonl");
    let mut config = config.clone();
    config.daemon.journal = Some(path.to_str().unwrap().to_owned());
    config.daemon.journal_size = Bytes(200 << 10);
    config.daemon.journal_files = 100;
    let mut state = State::default();
    journal_by_hand(&config, lost, samples, |sample, keyframe| {
        let before = keyframe.then(|| state.clone());
        let Pass { state: after, assessment, plan, findings } =
            step(&config, std::mem::take(&mut state), sample);
        state = after;
        Record { before, sample: sample.clone(), assessment, plan, findings, ..Record::default() }
    });
    journal_files(&config.daemon)
}
