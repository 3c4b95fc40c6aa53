//! Whatever was journalled comes out the same, across rotation and losses; what was tampered with is found; damage is
//! named, and never a panic.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::incident::fixture::{journalled, scenario, scenarios, story};

fn run(files: impl IntoIterator<Item = PathBuf>) -> (Verdict, Vec<String>) {
    let mut said = Vec::new();
    let say = |place: &Place, remark: Remark| said.push(format!("{} {remark:?}", place.line));
    let verdict = replay(&mut Journal::of(files), say, |_| {}).unwrap();
    (verdict, said)
}

#[test]
fn a_journal_replays_without_differences_across_files() {
    let mut rotated = 0;
    for path in scenarios() {
        let (config, samples) = story(&path);
        let dir = tempfile::tempdir().unwrap();
        let files = journalled(dir.path(), &config, &samples, &[]);
        let (verdict, said) = run(files.clone());
        assert_eq!(said, [""; 0], "{}", path.display());
        let passes = samples.len() as u64;
        assert_eq!((verdict.passes, verdict.decided, verdict.agrees()), (passes, passes, true));
        rotated += files.len() - 1;
    }
    assert!(rotated > 5, "{rotated}");
}

#[test]
fn losses_cost_only_what_is_up_to_the_next_keyframe() {
    for path in scenarios() {
        let (config, samples) = story(&path);
        let dir = tempfile::tempdir().unwrap();
        let lost: Vec<usize> = (0..samples.len()).filter(|n| n % 37 == 11 || n % 41 == 0).collect();
        let (verdict, said) = run(journalled(dir.path(), &config, &samples, &lost));
        assert!(verdict.agrees(), "{}: {said:?}", path.display());
        assert!(said.iter().all(|it| it.contains("Adrift")), "{said:?}");
        assert_eq!(verdict.passes, (samples.len() - lost.len()) as u64);
        assert!(verdict.decided * 10 > verdict.passes * 9, "{verdict:?}");
    }
}

/// A head and this many passes, the first of them a keyframe.
fn small(passes: usize) -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let (config, samples) = story(&scenario("story_a_noswap"));
    let files = journalled(dir.path(), &config, &samples[..passes], &[]);
    let text = fs::read_to_string(&files[0]).unwrap();
    (dir, files[0].clone(), text)
}

#[test]
fn a_journal_cut_anywhere_is_told_of_and_never_a_panic() {
    let (_dir, path, text) = small(2);
    let lines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    for end in 0..text.len() {
        fs::write(&path, &text[..end]).unwrap();
        let (verdict, said) = run([path.clone()]);
        let whole = end == 0 || lines.contains(&end) || lines.contains(&(end - 1));
        let line = 1 + lines.iter().filter(|at| **at < end).count();
        assert_eq!(verdict.damaged, u64::from(!whole), "cut at {end}");
        let told = said.iter().any(|it| it.starts_with(&format!("{line} Damaged(CutOff(")));
        assert!(whole || told, "cut at {end}: {said:?}");
        assert!(verdict.agrees());
    }
}

#[test]
fn a_byte_that_flips_is_never_a_panic() {
    let (_dir, path, text) = small(3);
    for at in (0..text.len()).step_by(17) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 0x15;
        fs::write(&path, bytes).unwrap();
        let (verdict, _) = run([path.clone()]);
        assert!(verdict.passes <= 3 && verdict.damaged <= 2, "at {at}: {verdict:?}");
    }
}

#[test]
fn a_decision_that_was_another_is_found() {
    let (_dir, path, text) = small(3);
    let forged = text.replacen("\"deficit\":", "\"deficit\":1", 1);
    assert_ne!(forged, text);
    fs::write(&path, forged).unwrap();
    let (verdict, said) = run([path]);
    assert_eq!((verdict.different, verdict.agrees()), (1, false));
    assert!(said[0].starts_with("2 Different") && said[0].contains("deficit"), "{said:?}");
}

#[test]
fn a_state_that_strayed_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (config, samples) = story(&scenario("flap_guard"));
    let files = journalled(dir.path(), &config, &samples, &[]);
    let later = fs::read_to_string(&files[1]).unwrap();
    fs::write(&files[1], later.replacen("\"state\":{\"action\":", "\"state\":{\"action\":1", 1)).unwrap();
    let (verdict, _) = run(files);
    assert!(verdict.strayed >= 1 && !verdict.agrees(), "{verdict:?}");
}

#[test]
fn the_head_of_a_story_is_needed() {
    let (_dir, path, text) = small(3);
    let (_, headless) = text.split_once('\n').unwrap();
    fs::write(&path, headless).unwrap();
    let (verdict, said) = run([path]);
    assert_eq!((verdict.decided, verdict.adrift), (0, 3));
    assert_eq!(said, ["1 Adrift(NoHead)"]);
}
