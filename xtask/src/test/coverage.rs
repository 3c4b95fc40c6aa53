//! Coverage of the policy by lines, from its own tests: what decides has to have been decided once in a test.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::tally::Tally;
use crate::{build, setup};

/// Share of the lines, in per cent, below which the step fails.
const LEAST: f64 = 95.0;
/// Files that are shown: the worst.
const SHOWN: usize = 8;
/// What is measured.
const SOURCES: &str = "controller/policy/src";

/// Lines of a file, without those of its tests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lines {
    file: String,
    all: usize,
    covered: usize,
    /// The first ones that no test has been to.
    missed: Vec<usize>,
}

/// Runs the policy's tests with counters in the code. Counts as one test.
pub(super) fn policy() -> Result<Tally> {
    let tools = setup::llvm()?;
    let work = build::root().join("target/coverage");
    let profiles = work.join("profiles");
    let _ = fs::remove_dir_all(&profiles);
    let programs = programs(&work)?;
    for program in &programs {
        run(program, &profiles)?;
    }
    let files = read(&export(&tools, &work, &profiles, &programs)?)?;
    Ok(judge(files))
}

fn cargo(work: &Path) -> Command {
    let mut command = build::cargo();
    command
        .env("CARGO_TARGET_DIR", work)
        .env("RUSTFLAGS", "-C instrument-coverage")
        // The properties run thousands of passes: without optimisation that takes minutes.
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Build scripts and macros are compiled with counters too, and would write them where they are run.
        .env("LLVM_PROFILE_FILE", "/dev/null");
    command
}

/// The test programs, built with counters.
fn programs(work: &Path) -> Result<Vec<PathBuf>> {
    let arguments = ["test", "--no-run", "-p", "plimsoll-policy", "--lib", "--tests"];
    let mut command = cargo(work);
    command.args(arguments).args(build::silence("--quiet")).arg("--message-format=json-render-diagnostics");
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("running cargo")?;
    ensure!(output.status.success(), "the instrumented tests do not build");
    let programs: Vec<_> =
        build::artifacts(&output.stdout).into_iter().map(|artifact| artifact.path).collect();
    ensure!(!programs.is_empty(), "cargo built no tests");
    Ok(programs)
}

fn run(program: &Path, profiles: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("--quiet").current_dir(build::root().join("controller/policy"));
    command.env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
    let output = command.stdin(Stdio::null()).output().context("running the instrumented tests")?;
    if !output.status.success() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    ensure!(output.status.success(), "{} failed", program.display());
    Ok(())
}

/// The counts of all programs together, in the format of lcov.
fn export(tools: &Path, work: &Path, profiles: &Path, programs: &[PathBuf]) -> Result<String> {
    let merged = work.join("policy.profdata");
    let raw = fs::read_dir(profiles).context("no profiles were written")?;
    let raw: Vec<PathBuf> = raw.flatten().map(|entry| entry.path()).collect();
    let mut merge = Command::new(tools.join("llvm-profdata"));
    said(merge.args(["merge", "-sparse", "-o"]).arg(&merged).args(raw))?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export.args(["export", "-format=lcov"]).arg("-instr-profile").arg(&merged);
    // The first program is named without the option.
    let objects = programs.iter().skip(1).flat_map(|program| [Path::new("-object"), program]);
    export.args(programs.first()).args(objects);
    export.arg("-sources").arg(build::root().join(SOURCES));
    said(&mut export)
}

fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {name}"))?;
    ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The files of a report, each without its tests.
fn read(report: &str) -> Result<Vec<Lines>> {
    let mut files = Vec::new();
    for record in report.split("end_of_record") {
        let Some(path) = record.lines().find_map(|line| line.strip_prefix("SF:")) else { continue };
        let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
        if !is_test(path) {
            let name = path.split_once(SOURCES).map_or(path, |(_, name)| name.trim_start_matches('/'));
            files.push(count(name, record, &text));
        }
    }
    ensure!(!files.is_empty(), "the report names no file of {SOURCES}");
    Ok(files)
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Tests are the last thing in a file.
fn count(name: &str, record: &str, text: &str) -> Lines {
    let end = text.lines().position(|line| line == "#[cfg(test)]").unwrap_or(usize::MAX);
    let counts = record.lines().filter_map(|line| {
        let (line, count) = line.strip_prefix("DA:")?.split_once(',')?;
        Some((line.parse::<usize>().ok()?, count.parse::<u64>().ok()?))
    });
    let mut lines = Lines { file: name.to_owned(), all: 0, covered: 0, missed: Vec::new() };
    for (line, count) in counts.filter(|(line, _)| *line <= end) {
        lines.all += 1;
        lines.covered += usize::from(count > 0);
        lines.missed.extend((count == 0).then_some(line));
    }
    lines
}

fn judge(mut files: Vec<Lines>) -> Tally {
    let (all, covered) = files.iter().fold((0, 0), |(a, c), f| (a + f.all, c + f.covered));
    files.sort_by_key(|file| std::cmp::Reverse(file.missed.len()));
    for file in files.iter().take(SHOWN).filter(|file| !file.missed.is_empty()) {
        let missed: Vec<_> = file.missed.iter().take(10).map(usize::to_string).collect();
        let more = if file.missed.len() > missed.len() { " ..." } else { "" };
        println!("{:>6.1} %  {:<28} {}{more}", percent(file.covered, file.all), file.file, missed.join(" "));
    }
    let total = percent(covered, all);
    println!("{total:>6.1} %  {covered} of {all} lines in {} files; {LEAST} % are asked for", files.len());
    let passed = total >= LEAST;
    Tally { passed: usize::from(passed), failed: usize::from(!passed), skipped: 0 }
}

#[expect(clippy::cast_precision_loss, reason = "some thousands of lines")]
fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_do_not_count() {
        let text = "fn a() {}\nfn b() {}\n#[cfg(test)]\nmod tests {}\n";
        let lines = count("x.rs", "SF:x.rs\nDA:1,7\nDA:2,0\nDA:4,9\n", text);
        assert_eq!(lines, Lines { file: "x.rs".into(), all: 2, covered: 1, missed: vec![2] });
        assert_eq!(judge(vec![lines]).failed, 1);
    }
}
