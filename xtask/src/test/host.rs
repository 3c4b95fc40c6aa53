//! The steps that cargo does on this machine.
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::tally::Tally;
use crate::{build, setup};

/// A command that passes or not.
pub(super) fn quiet(command: &mut Command) -> Result<Tally> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("running {}", words(command)))?;
    ensure!(status.success(), "{} ended with {status}", words(command));
    Ok(Tally::default())
}

/// Clippy on everything, with the tests of the kernel and of the control plane.
pub(super) fn clippy() -> Result<Tally> {
    let arguments = ["clippy", "--keep-going", "--workspace", "--all-targets", "--features"];
    let features = "plimsoll-tests/kernel,plimsoll-tests/cluster";
    quiet(
        build::cargo()
            .args(arguments)
            .arg(features)
            .args(build::silence("--quiet"))
            .args(["--", "-D", "warnings"]),
    )
}

/// Licences, advisories and sources of the dependencies.
pub(super) fn deny() -> Result<Tally> {
    quiet(build::cargo().args(["deny", "--all-features", "check"]))
}

/// Unit, property and scenario tests.
pub(super) fn tests() -> Result<Tally> {
    let mut command = Command::new(setup::nextest()?);
    command.current_dir(build::root()).args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    command.args(build::silence("--cargo-quiet")).args([
        "--status-level",
        "fail",
        "--final-status-level",
        "fail",
    ]);
    counted(&mut command, Show::Always, nextest_summary)
}

/// Real engines, asked as the daemon asks them.
pub(super) fn engines() -> Result<Tally> {
    // Of the workspace, as all tests on the host: with features of its own, much would be built once more.
    let arguments = ["test", "--quiet", "--workspace", "--test", "engines", "--", "--ignored"];
    let mut command = build::cargo();
    command.args(arguments).arg("--test-threads=1").env("PLIMSOLL_ENGINES", setup::engines()?);
    counted(&mut command, Show::WhenFailed, libtest_summary)
}

/// What is said to an API server, and what it says, with a real one.
pub(super) fn cluster() -> Result<Tally> {
    // Of the workspace: see above.
    let features = "plimsoll-tests/cluster";
    let arguments = ["test", "--quiet", "--workspace", "--features", features, "--test", "cluster"];
    let mut command = build::cargo();
    command.args(arguments).env("PLIMSOLL_KUBERNETES", setup::kubernetes()?);
    counted(&mut command, Show::WhenFailed, libtest_summary)
}

/// Examples in the documentation.
pub(super) fn doc_tests() -> Result<Tally> {
    let arguments = ["test", "--quiet", "--workspace", "--doc", "--no-fail-fast"];
    // Of each crate it says that it has none: nobody wants to read that.
    counted(build::cargo().args(arguments), Show::WhenFailed, libtest_summary)
}

/// When a command's output is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// As it comes.
    Always,
    /// All of it, when it is known that something failed.
    WhenFailed,
}

/// Runs a command, and adds up the counts that `summary` finds in it.
pub(super) fn counted(
    command: &mut Command,
    show: Show,
    summary: fn(&str) -> Option<Tally>,
) -> Result<Tally> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("running {}", words(command)))?;
    // The command holds the pipe's other end: without this, reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tally = None::<Tally>;
    let mut kept = String::new();
    for line in BufReader::new(reader).lines() {
        let line = line?;
        match show {
            Show::Always => println!("{line}"),
            Show::WhenFailed => kept.extend([&line, "\n"]),
        }
        if let Some(counts) = summary(&line) {
            *tally.get_or_insert_default() += counts;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        print!("{kept}");
    }
    match tally {
        // What fails without a failed test did not compile, for instance.
        Some(tally) if status.success() || tally.failed > 0 => Ok(tally),
        None if status.success() => Ok(Tally::default()),
        _ => bail!("{} ended with {status}", words(command)),
    }
}

/// `Summary [ 1.2s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 2 skipped`
fn nextest_summary(line: &str) -> Option<Tally> {
    let counts = line.trim_start().strip_prefix("Summary [")?.split_once("run: ")?.1;
    Some(sum(counts.split(',')))
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s`
pub(super) fn libtest_summary(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    Some(sum(counts.split(';')))
}

fn sum<'a>(counts: impl Iterator<Item = &'a str>) -> Tally {
    let mut tally = Tally::default();
    for count in counts {
        let mut words = count.split_whitespace();
        let Some(number) = words.next().and_then(|number| number.parse::<usize>().ok()) else { continue };
        match words.next() {
            Some("passed") => tally.passed += number,
            Some("failed" | "timed" | "exec") => tally.failed += number,
            Some("skipped" | "ignored") => tally.skipped += number,
            _ => {}
        }
    }
    tally
}

/// The command as somebody would type it.
fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted() {
        let nextest =
            "     Summary [   0.4s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(nextest_summary(nextest), Some(Tally { passed: 9, failed: 3, skipped: 4 }));
        let doc =
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(libtest_summary(doc), Some(Tally { passed: 3, failed: 0, skipped: 1 }));
        assert_eq!(libtest_summary("running 3 tests"), None);
    }
}
