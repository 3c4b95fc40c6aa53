//! `tests/scenarios/*.jsonl`: journals. A line holds a sample and, where it is to be checked, the assessment, plan and findings
//! that it gave; of a recorded story, those on which anything changed have them. The `.txt` beside it tells the same for
//! people. A journal of an incident is a scenario as it is.
//!
//! `BLESS=1` writes the expectations anew; `BLESS=record` records the stories of the modelled machine anew as well.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_policy::config::Config;
use plimsoll_policy::journal::{Entry, Head, Line, VERSION};
use plimsoll_policy::replay::{Redone, Replay};
use plimsoll_policy::sample::Sample;

use crate::stories::STORIES;
use crate::transcript;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios")
}

fn read(path: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(path).unwrap();
    let parse = |(n, line)| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), n + 1))
    };
    text.lines().enumerate().map(parse).collect()
}

/// A line decided anew, and whether anything changed with it.
fn redo(replay: &mut Replay, line: &Line<'_>, former: &mut String) -> (Redone, bool) {
    let redone = replay.line(line).unwrap();
    let standing = transcript::standing(&redone);
    let changed = standing != *former || !redone.findings.is_empty();
    *former = standing;
    (redone, changed)
}

/// A story's journal, still without expectations.
fn recorded(config: &Config, samples: &[Sample]) -> Vec<Entry> {
    let head = Head { v: VERSION, program: None, boot: None, clock: None, config: config.clone() };
    let line = |sample: &Sample| Line {
        v: VERSION,
        n: None,
        sample: Cow::Owned(sample.clone()),
        assessment: None,
        plan: None,
        findings: None,
        state: None,
    };
    let lines = samples.iter().map(|sample| Entry::Line(Box::new(line(sample))));
    std::iter::once(Entry::Head(Box::new(head))).chain(lines).collect()
}

/// Writes a scenario with what the policy makes of it today. Of an incident's keyframes only those stay that are needed:
/// the others would only say that the state has another shape by now.
fn write(path: &Path, entries: &[Entry]) {
    let (mut jsonl, mut text) = (String::new(), String::new());
    let (mut replay, mut former, mut begun) = (Replay::default(), String::new(), None);
    for entry in entries {
        let written = match entry {
            Entry::Head(head) => {
                replay.head(head.as_ref().clone());
                serde_json::to_string(head).unwrap()
            }
            Entry::Line(line) => {
                let known = replay.follows(line);
                let line =
                    if known { Line { state: None, ..line.as_ref().clone() } } else { line.as_ref().clone() };
                let (redone, changed) = redo(&mut replay, &line, &mut former);
                let begun = *begun.get_or_insert(line.sample.at);
                let (mut assessment, mut plan, mut findings) = (None, None, None);
                if changed {
                    text += &transcript::line(begun, &line.sample, &redone);
                    assessment = Some(Cow::Owned(redone.assessment));
                    plan = Some(Cow::Owned(redone.plan));
                    findings = Some(Cow::Owned(redone.findings));
                }
                serde_json::to_string(&Line { assessment, plan, findings, ..line }).unwrap()
            }
        };
        jsonl += &(written + "\n");
    }
    fs::write(path, jsonl).unwrap();
    fs::write(path.with_extension("txt"), text).unwrap();
}

fn check(path: &Path) {
    let name = path.display();
    let mut text = String::new();
    let (mut replay, mut former, mut begun) = (Replay::default(), String::new(), None);
    for (n, entry) in read(path).into_iter().enumerate() {
        let number = n + 1;
        let line = match entry {
            Entry::Head(head) => {
                replay.head(*head);
                continue;
            }
            Entry::Line(line) => line,
        };
        let (redone, changed) = redo(&mut replay, &line, &mut former);
        assert_eq!(redone.strayed, None, "{name}:{number}: the state before it");
        if let Some(expected) = &line.assessment {
            assert_eq!(&redone.assessment, &**expected, "{name}:{number}: the assessment");
        }
        if let Some(expected) = &line.plan {
            assert_eq!(&redone.plan, &**expected, "{name}:{number}: the plan");
        }
        if let Some(expected) = &line.findings {
            assert_eq!(&redone.findings, &**expected, "{name}:{number}: the findings");
        }
        let begun = *begun.get_or_insert(line.sample.at);
        if changed {
            text += &transcript::line(begun, &line.sample, &redone);
        }
    }
    let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
    assert_eq!(text, expected, "{name}: what changed when");
}

#[test]
fn every_scenario_gives_what_it_gave() {
    let bless = std::env::var("BLESS").unwrap_or_default();
    if bless == "record" {
        fs::create_dir_all(directory()).unwrap();
        for (name, story) in STORIES {
            let story = story();
            let entries = recorded(&story.machine.config, &story.samples);
            write(&directory().join(name).with_extension("jsonl"), &entries);
        }
    }
    let mut seen = 0;
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            if bless == "1" {
                write(&path, &read(&path));
            }
            check(&path);
            seen += 1;
        }
    }
    assert!(seen >= STORIES.len(), "scenario files are missing from {}", directory().display());
}
