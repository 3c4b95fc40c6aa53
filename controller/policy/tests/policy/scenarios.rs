//! `tests/scenarios/*.jsonl`: the configuration, then a journal. A line holds a sample and, where it is to be checked, the
//! assessment, plan and findings that it gave; those on which anything changed have them. The `.txt` beside it
//! tells the same for people. A journal of an incident, with its configuration in front, is a scenario too.
//!
//! `BLESS=1` writes the expectations anew; `BLESS=record` records the stories of the modelled machine anew as well.

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_policy::config::Config;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::{Assessment, Finding, Plan};
use plimsoll_policy::sample::Sample;
use plimsoll_policy::state::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::stories::STORIES;
use crate::transcript;

#[derive(Serialize, Deserialize)]
struct Head {
    v: u8,
    config: Config,
}

#[derive(Deserialize)]
struct Line {
    v: u8,
    sample: Sample,
    assessment: Option<Assessment>,
    plan: Option<Plan>,
    findings: Option<Vec<Finding>>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios")
}

/// A scenario's configuration and lines.
fn read(path: &Path) -> (Config, Vec<Line>) {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().expect("a first line")).unwrap();
    assert_eq!(head.v, 1);
    (head.config, lines.map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Runs the samples; gives every pass, and whether anything changed with it.
fn replay<'a>(config: &'a Config, samples: impl Iterator<Item = &'a Sample>) -> Vec<(Pass, bool)> {
    let mut state = State::default();
    let mut former = String::new();
    let mut passes = Vec::new();
    for sample in samples {
        let pass = step(config, state, sample);
        state = pass.state.clone();
        let standing = transcript::standing(&pass);
        let changed = standing != former || !pass.findings.is_empty();
        former = standing;
        passes.push((pass, changed));
    }
    passes
}

/// Nulls say nothing, and neither do the zeros of counters.
fn strip(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(strip);
        map.retain(|key, v| !v.is_null() && (v != &json!(0) || key == "at" || key == "priority"));
        map.retain(|key, v| !(matches!(key.as_str(), "stat" | "events") && v == &json!({})));
    }
}

fn write(path: &Path, config: &Config, samples: &[Sample]) {
    let mut jsonl = serde_json::to_string(&Head { v: 1, config: config.clone() }).unwrap() + "\n";
    let mut text = String::new();
    for (sample, (pass, changed)) in samples.iter().zip(replay(config, samples.iter())) {
        let mut line = json!({ "v": 1, "sample": slim(sample) });
        if changed {
            line["assessment"] = serde_json::to_value(&pass.assessment).unwrap();
            line["plan"] = serde_json::to_value(&pass.plan).unwrap();
            line["findings"] = serde_json::to_value(&pass.findings).unwrap();
            text += &transcript::line(samples[0].at, sample, &pass);
        }
        jsonl += &(line.to_string() + "\n");
    }
    fs::write(path, jsonl).unwrap();
    fs::write(path.with_extension("txt"), text).unwrap();
}

fn slim(sample: &Sample) -> Value {
    let mut value = serde_json::to_value(sample).unwrap();
    for workload in value["workloads"].as_object_mut().unwrap().values_mut() {
        for part in ["stat", "events"] {
            strip(&mut workload[part]);
        }
        workload.as_object_mut().unwrap().retain(|_, v| !v.is_null());
    }
    value
}

fn check(path: &Path) {
    let name = path.display();
    let (config, lines) = read(path);
    let passes = replay(&config, lines.iter().map(|l| &l.sample));
    let mut text = String::new();
    for (n, (line, (pass, changed))) in lines.iter().zip(passes).enumerate() {
        assert_eq!(line.v, 1);
        let number = n + 2;
        if let Some(expected) = &line.assessment {
            assert_eq!(&pass.assessment, expected, "{name}:{number}: the assessment");
        }
        if let Some(expected) = &line.plan {
            assert_eq!(&pass.plan, expected, "{name}:{number}: the plan");
        }
        if let Some(expected) = &line.findings {
            assert_eq!(&pass.findings, expected, "{name}:{number}: the findings");
        }
        if changed {
            text += &transcript::line(lines[0].sample.at, &line.sample, &pass);
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
            write(&directory().join(name).with_extension("jsonl"), &story.machine.config, &story.samples);
        }
    }
    let mut seen = 0;
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            if bless == "1" {
                let (config, lines) = read(&path);
                let samples: Vec<_> = lines.into_iter().map(|l| l.sample).collect();
                write(&path, &config, &samples);
            }
            check(&path);
            seen += 1;
        }
    }
    assert!(seen >= STORIES.len(), "scenario files are missing from {}", directory().display());
}
