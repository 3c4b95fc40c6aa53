//! The program as people meet it: every kind of bad configuration, and what is not there.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn plimsoll(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plimsoll")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Validates a file with this text: exit status 2, and these lines after the first.
fn refuses(text: &str, mistakes: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, text.as_bytes());
    let output = plimsoll(&["config", "validate", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let said = stderr(&output);
    let (first, rest) = said.split_once('\n').unwrap();
    let count = if mistakes.len() == 1 { "a mistake".into() } else { format!("{} mistakes", mistakes.len()) };
    assert_eq!(first, format!("plimsoll: configuration {} has {count}:", path.display()));
    assert_eq!(rest.lines().map(str::trim).collect::<Vec<_>>(), mistakes);
    assert!(output.stdout.is_empty());
}

fn file(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("plimsoll.yaml");
    fs::write(&path, bytes).unwrap();
    path
}

fn unreadable(path: &Path, sentence: &str) {
    let output = plimsoll(&["config", "validate", path.to_str().unwrap()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(sentence), "{said}");
}

#[test]
fn the_default_is_valid() {
    let output = plimsoll(&["config", "default"]);
    assert_eq!(output.status.code(), Some(0));
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, &output.stdout);
    let output = plimsoll(&["config", "validate", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("{} is valid\nnote: there are no rules", path.display())), "{said}");
}

#[test]
fn every_mistake_is_named_at_once() {
    refuses(
        "host:\n  critical: { used: 300%, leave: 0.9 }\n  criticl: {}\nladder:\n  hold: 5\n  rungs: [trm]\npace: fast\n",
        &[
            "host.critical.used: is \"300%\", expected a share from 1% to 100%, written like 80%",
            "host.critical.leave: is 0.9, expected a share from 1% to 100%, written like 80%",
            "host.criticl: unknown key, did you mean `critical`?",
            "ladder.rungs[0]: is \"trm\", expected trim or throttle or offload or freeze or kill",
            "ladder.hold: is 5, expected a time from 100ms to 10m, written like 250ms, 5s or 2m",
            "pace: is \"fast\", expected a section with keys",
        ],
    );
}

#[test]
fn contradictions_are_named() {
    refuses(
        "host:\n  critical: { used: 95%, leave: 96% }\n",
        &["host.critical.leave: is 96%, which has to be below `used`, 95%"],
    );
    refuses(
        "workloads:\n  - { name: a, cgroup: x }\n  - { name: a, unit: x.service }\n",
        &["workloads[1].name: is \"a\", as is that of workloads[0]"],
    );
}

#[test]
fn a_repeated_key_is_named() {
    refuses("protect_priority: 1\nprotect_priority: 2\n", &["protect_priority: is given twice"]);
}

#[test]
fn bad_rules_are_named() {
    refuses(
        "workloads:\n  - { cgroup: /x }\n",
        &[
            "workloads[0].name: is missing, expected 1 to 63 letters, digits, '-', '_' or '.'",
            "workloads[0].cgroup: is \"/x\", expected a cgroup path below the root, without a leading slash; \
         '*' and '?' stay in a component",
        ],
    );
}

#[test]
fn a_bad_address_is_named() {
    refuses(
        "daemon:\n  listen: localhost:80\n",
        &["daemon.listen: is \"localhost:80\", expected none, or an IP address and a port from 1 to 65535, \
         like 127.0.0.1:9478 or [::]:9478"],
    );
}

#[test]
fn bad_yaml_is_shown_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    unreadable(&file(&dir, b"host:\n  reserve: [1\npace: 2\n"), "is not valid YAML: line 3 column");
    unreadable(&file(&dir, b"a: &a [*a]\n"), "is not valid YAML");
    let bomb = "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: &g [*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g]\n";
    unreadable(&file(&dir, bomb.as_bytes()), "is not valid YAML");
    unreadable(&file(&dir, "[".repeat(100_000).as_bytes()), "is not valid YAML");
}

#[test]
fn a_file_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    unreadable(&dir.path().join("gone.yaml"), "gone.yaml: No such file or directory");
    unreadable(dir.path(), "Is a directory");
    unreadable(Path::new("/dev/zero"), "/dev/zero is larger than 1 MiB");
    unreadable(&file(&dir, b"host: \xff\xfe\n"), "is not UTF-8 text: invalid byte at offset 6");
}

#[test]
fn run_and_exec_say_the_same_of_a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, b"colour: blue\n");
    let path = path.to_str().unwrap();
    for arguments in
        [&["run", "--config", path] as &[&str], &["exec", "--config", path, "--name", "x", "--", "true"]]
    {
        let output = plimsoll(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            stderr(&output).contains("colour: unknown key, known here are preset, host,"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn what_results_on_a_host_is_shown_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, b"preset: aggressive\nhost:\n  critical: { used: 93.5% }\n");
    let effective = |size| plimsoll(&["config", "effective", path.to_str().unwrap(), "--memory", size]);
    let output = effective("32GiB");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("# 2GiB left\n  critical: { used: 93.5%, leave: 89%,"), "{said}");
    let output = effective("512GiB");
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(
        said.contains(
            "has a mistake on hosts of 256GiB and more:\n  host.critical.leave: is 95%, which has to be below"
        ),
        "{said}"
    );
    assert_eq!(effective("much").status.code(), Some(2));
    let output = plimsoll(&["config", "validate", path.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("note: on hosts of 256GiB and more it is refused: host.critical.leave: is 95%"),
        "{said}"
    );
}

#[test]
fn wrong_arguments_are_status_2() {
    for arguments in [&["fly"] as &[&str], &["exec", "--name", "x"], &["status", "--colour"], &[]] {
        assert_eq!(plimsoll(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_daemon_that_is_not_there_is_status_4() {
    let output = plimsoll(&["status", "--url", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(4));
    let said = stderr(&output);
    assert!(
        said.starts_with("plimsoll: no daemon answers at http://127.0.0.1:1; is `plimsoll run` running"),
        "{said}"
    );
    let said = stderr(&plimsoll(&["status", "--url", "localhost"]));
    assert!(said.contains("not a URL of a daemon (expected http://HOST:PORT): localhost"), "{said}");
}

#[test]
fn check_explains_and_agrees_with_itself() {
    let table = plimsoll(&["check"]);
    let text = String::from_utf8(table.stdout.clone()).unwrap();
    let expected = if text.contains("\nmode: refused") { 3 } else { 0 };
    assert_eq!(table.status.code(), Some(expected), "{text}");
    let json = plimsoll(&["check", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    for capability in found.as_array().unwrap() {
        assert!(text.contains(capability["name"].as_str().unwrap()), "{capability} is not in\n{text}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = plimsoll(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("validate") && script.contains("dry-run"), "{shell}");
    }
}

#[test]
fn help_tells_the_exit_status() {
    let text = String::from_utf8(plimsoll(&["--help"]).stdout).unwrap();
    assert!(text.contains("Exit status:") && text.contains("release"), "{text}");
    assert!(!text.contains("guardian"), "that one is not for people: {text}");
}

/// `head` closes the pipe early.
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["config", "default"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
