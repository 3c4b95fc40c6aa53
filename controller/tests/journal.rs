//! `replay`, `explain` and `events` on files: answers on stdout, what is damaged on stderr, and the exit status.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn plimsoll(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plimsoll")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A scenario is a journal; this one has a freeze or a kill in it.
fn scenario() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios/story_b_noswap.jsonl")
}

fn forged(dir: &tempfile::TempDir, change: impl Fn(usize, &str) -> String) -> String {
    let lines = fs::read_to_string(scenario()).unwrap();
    let path = dir.path().join("journal.jsonl");
    let changed: Vec<_> = lines.lines().enumerate().map(|(at, line)| change(at + 1, line)).collect();
    fs::write(&path, changed.join("\n") + "\n").unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_was_decided_is_decided_again() {
    let output = plimsoll(&["replay", scenario().to_str().unwrap()]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    assert!(text(&output.stdout).ends_with("passes decided again: no differences\n"));
}

#[test]
fn stdin_is_a_journal_too() {
    let child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["replay", "-"])
        .stdin(fs::File::open(scenario()).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("no differences"));
}

#[test]
fn a_difference_is_named_and_has_a_status() {
    let dir = tempfile::tempdir().unwrap();
    let path = forged(&dir, |_, line| line.replace("\"rung\":\"kill\"", "\"rung\":\"trim\""));
    let output = plimsoll(&["replay", &path]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("rung: was \"trim\", is \"kill\""), "{said}");
    assert_eq!(text(&output.stderr), "plimsoll: the journal comes out differently\n");
    let output = plimsoll(&["replay", "--json", &path]);
    assert_eq!(output.status.code(), Some(6));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["different"], json["differences"].as_array().unwrap().len());
    assert_eq!(json["differences"][0]["changes"][0]["now"], "kill");
}

#[test]
fn damage_is_named_with_its_line_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = forged(&dir, |at, line| match at {
        30 => line[..40].to_owned(),
        40 => "\u{0}\u{0}".to_owned(),
        50 => "{\"v\":7}".to_owned(),
        _ => line.to_owned(),
    });
    let output = plimsoll(&["replay", &path]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stderr);
    for expected in [
        ":30: cut off after 40 bytes",
        ":31: no keyframe came before it: not decided again up to the next keyframe",
        ":40: not JSON: expected value, column 1",
        ":50: the format is version 7, this program reads version 2",
    ] {
        assert!(said.contains(&format!("{path}{expected}\n")), "{expected} is not in\n{said}");
    }
    assert!(text(&output.stdout).contains("\n3 lines that can't be read\n"), "{}", text(&output.stdout));
}

#[test]
fn what_is_no_journal_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let check = |path: &str, sentence: &str| {
        let output = plimsoll(&["replay", path]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(sentence), "{said}");
    };
    check("/nowhere/j", "cannot read journal /nowhere/j: No such file or directory");
    check(dir.path().to_str().unwrap(), "Is a directory");
    check("/dev/null", "there is no pass in the journal");
}

#[test]
fn an_action_is_listed_and_explained() {
    let journal = scenario();
    let journal = journal.to_str().unwrap();
    let listed = text(&plimsoll(&["events", "--journal", journal]).stdout);
    let kill = listed.lines().find(|line| line.contains("  kill  ")).unwrap();
    let id = kill.split_whitespace().find(|word| word.parse::<u64>().is_ok()).unwrap();
    let told = text(&plimsoll(&["explain", id, "--journal", journal]).stdout);
    assert!(told.starts_with(&format!("action {id}: kill of ")) && told.contains("\n  because   "), "{told}");
    let json = plimsoll(&["explain", id, "--journal", journal, "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["rung"], json["action"].to_string()), (&"kill".into(), id.to_owned()));
    let output = plimsoll(&["explain", "999", "--journal", journal]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("plimsoll: no action 999 in the journal, which has actions "));
}

#[test]
fn the_configured_journal_is_read_with_what_was_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let path = forged(&dir, |_, line| line.to_owned());
    let lines = fs::read_to_string(&path).unwrap();
    let (old, new) = lines.split_at(lines.match_indices('\n').nth(40).unwrap().0 + 1);
    fs::write(format!("{path}.1"), old).unwrap();
    fs::write(&path, new).unwrap();
    let config = dir.path().join("plimsoll.yaml");
    fs::write(&config, format!("daemon: {{ journal: {path} }}\n")).unwrap();
    let config = config.to_str().unwrap();
    let output = plimsoll(&["replay", "--config", config]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("no differences"), "{}", text(&output.stdout));
    fs::remove_file(format!("{path}.1")).unwrap();
    fs::remove_file(&path).unwrap();
    let output = plimsoll(&["explain", "1", "--config", config]);
    assert_eq!(text(&output.stderr), format!("plimsoll: there is no journal at {path}\n"));
}

#[test]
fn another_policy_is_compared_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, plot) = (dir.path().join("other.yaml"), dir.path().join("incident.svg"));
    fs::write(&policy, "ladder: { rungs: [trim] }\n").unwrap();
    let (policy, plot) = (policy.to_str().unwrap(), plot.to_str().unwrap());
    let output = plimsoll(&["replay", scenario().to_str().unwrap(), "--policy", policy, "--plot", plot]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(said.contains("workloads killed") && said.contains("*1 "), "{said}");
    assert_eq!(said.matches("The samples are what happened").count(), 1, "{said}");
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("models/batch") && svg.contains("the other policy"));
    fs::write(policy, "colour: blue\n").unwrap();
    let output = plimsoll(&["replay", scenario().to_str().unwrap(), "--policy", policy]);
    assert_eq!(output.status.code(), Some(2));
}
