//! Every kind of damage is named with its line, and reading goes on.

use std::fs;

use super::*;

const HEAD: &str = r#"{"v":2,"config":{}}"#;
const PASS: &str = r#"{"v":2,"sample":{"at":1,"trigger":"timer","host":{},"workloads":{}},"findings":[]}"#;

/// `head`, `pass`, or the damage of each line.
fn told(text: &[u8], longest: u64) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    fs::write(&path, text).unwrap();
    let mut journal = Journal::of([path]);
    journal.longest = longest;
    let word = |entry: Entry| if matches!(entry, Entry::Head(_)) { "head" } else { "pass" };
    journal
        .map(|read| {
            let (place, read) = read.unwrap();
            let what = match read {
                Read::Whole(entry) => word(entry).into(),
                Read::Salvaged(entry, damage) => format!("{} without: {damage}", word(entry)),
                Read::Damaged(damage) => damage.to_string(),
            };
            format!("{} {what}", place.line)
        })
        .collect()
}

fn check(line: &str, expected: &str) {
    let text = format!("{HEAD}\n{line}\n{PASS}\n");
    assert_eq!(told(text.as_bytes(), LONGEST), ["1 head", &format!("2 {expected}"), "3 pass"], "{line}");
}

#[test]
fn each_damage_has_its_word() {
    check(PASS, "pass");
    check("", "cut off after 0 bytes");
    check("{\"v\":2,\"sam", "cut off after 11 bytes");
    check("hello", "not JSON: expected value, column 1");
    check(
        "{\"v\":2,\"n\u{0}\":",
        "not JSON: control character (\\u0000-\\u001F) found while parsing a string, column 10",
    );
    check("{\"v\":1,\"at\":3}", "the format is version 1, this program reads version 2");
    check("{\"v\":3,\"config\":7}", "the format is version 3, this program reads version 2");
    check("{\"v\":2}", "neither `config` nor `sample` is there");
    check("{\"n\":2}", "missing field `v`, column 7");
    check("7", "invalid type: integer `7`, expected a line of a journal, column 1");
    let deep = format!("{{\"v\":2,\"colours\":{}", "[".repeat(100_000));
    check(&deep, "cut off after 100017 bytes");
}

#[test]
fn what_was_seen_is_salvaged() {
    let line = PASS.replace("[]", "[{\"colour\":1}]");
    check(&line, "pass without: missing field `invariant`, column 92");
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let long = "x".repeat(5000);
    let text = format!("{HEAD}\n{long}\n{PASS}\n{long}");
    let expected = ["1 head", "2 longer than 200 bytes", "3 pass", "4 longer than 200 bytes"];
    assert_eq!(told(text.as_bytes(), 200), expected);
}

#[test]
fn bytes_that_are_no_text_are_damage() {
    let said = told(b"\xff\xfe\n{\"v\":2,\"program\":\"\xff\",\"config\":{}}\n", LONGEST);
    assert!(said[0].starts_with("1 not JSON") && said[1].starts_with("2 not JSON"), "{said:?}");
}

#[test]
fn files_are_read_in_the_order_given() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("j.1"), dir.path().join("j"));
    fs::write(&old, format!("{HEAD}\n{PASS}\n")).unwrap();
    fs::write(&new, format!("{HEAD}\n")).unwrap();
    let mut journal = Journal::of([old.clone(), dir.path().join("gone"), new.clone()]);
    let mut places = Vec::new();
    let mut errors = Vec::new();
    for read in journal.by_ref() {
        match read {
            Ok((place, _)) => places.push(place.to_string()),
            Err(error) => errors.push(error.path),
        }
    }
    let (old, new) = (old.display(), new.display());
    assert_eq!(places, [format!("{old}:1"), format!("{old}:2"), format!("{new}:1")]);
    assert_eq!((errors, journal.percent()), (vec![dir.path().join("gone")], 100));
}
