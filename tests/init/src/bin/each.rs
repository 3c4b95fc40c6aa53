//! Runs each test of a libtest binary in a process of its own, and clears away what it leaves behind.
//!
//! A test that crashes, hangs or freezes itself must not take the others with it, and a cgroup or process that it
//! forgot must not weigh on the next one.
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use plimsoll_init::outcome::{Outcome, SKIP_MARK, TestLine};
use plimsoll_init::survivors;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Where a test's output is collected: a file, because a survivor that holds a pipe would keep us waiting.
const OUTPUT: &str = "/run/plimsoll-each.log";
/// How long survivors may take to die: on a busy host the memory of a large one goes slowly, and what still lives weighs on the
/// next test.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("plimsoll-each: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// `each BINARY SECONDS [FILTER]`: whether all that ran passed.
fn run(arguments: &[String]) -> Result<bool> {
    let [binary, seconds, filters @ ..] = arguments else { bail!("usage: each BINARY SECONDS [FILTER]...") };
    let limit = Duration::from_secs(seconds.parse().context("SECONDS")?);
    let wanted =
        |name: &String| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let names: Vec<_> = list(binary)?.into_iter().filter(wanted).collect();
    println!("plimsoll-tests: {}", names.len());
    let mut all_passed = true;
    for name in names {
        let line = one(binary, name, limit)?;
        println!("{line}");
        if line.outcome == Outcome::Fail {
            all_passed = false;
            io::stdout().write_all(&fs::read(OUTPUT)?)?;
            println!();
        }
    }
    Ok(all_passed)
}

fn list(binary: &str) -> Result<Vec<String>> {
    let output =
        Command::new(binary).args(["--list", "--format", "terse"]).output().context("listing the tests")?;
    ensure!(output.status.success(), "listing the tests: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn one(binary: &str, name: String, limit: Duration) -> Result<TestLine> {
    let output = File::create(OUTPUT)?;
    let start = Instant::now();
    let mut child = Command::new(binary)
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("starting a test")?;
    let status = wait(&mut child, limit)?;
    let seconds = start.elapsed().as_secs_f64();
    survivors::kill_all(GRACE);
    survivors::remove_cgroups(Path::new("/sys/fs/cgroup"));
    let (outcome, reason) = judge(status, &String::from_utf8_lossy(&fs::read(OUTPUT)?), limit);
    Ok(TestLine { outcome, name, seconds, reason })
}

/// The status of a test that ended within the limit.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec::try_from(limit)?;
    if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? == 0 {
        // Killed with its children afterwards; waiting for it could be waiting for ever.
        return Ok(None);
    }
    Ok(Some(child.wait()?))
}

fn judge(status: Option<ExitStatus>, output: &str, limit: Duration) -> (Outcome, String) {
    let skip = output.lines().find_map(|line| line.split_once(SKIP_MARK)).map(|(_, reason)| reason);
    match status {
        None => (Outcome::Fail, format!("did not end within {} s", limit.as_secs())),
        Some(status) if !status.success() => (Outcome::Fail, status.to_string()),
        Some(_) if skip.is_some() => (Outcome::Skip, skip.unwrap_or_default().to_owned()),
        Some(_) if output.contains("1 ignored") => (Outcome::Skip, "marked #[ignore]".to_owned()),
        Some(_) => (Outcome::Pass, String::new()),
    }
}
