//! One guest from power-on to power-off: follows its output, takes its results, repeats a boot that the emulator lost.
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use plimsoll_init::{HELLO, VERDICT_ENTRY, Verdict};

use super::channel::{Channels, Event};
use super::{Boot, Report, initramfs, qemu};

/// Boots that the emulator may lose before we give up.
const RETRIES: u32 = 3;
/// A guest that works says hello within this time even on a crowded machine; a quiet one takes 2 s.
const HELLO_LIMIT: Duration = Duration::from_secs(120);
/// How long we wait for output before we look whether the guest still lives.
const TICK: Duration = Duration::from_millis(50);
/// Lines of the log that an error shows.
const TAIL: usize = 25;

/// How a boot ended.
enum Ending {
    /// The verdict arrived.
    Verdict(Verdict),
    /// The guest is gone, or was ended, without one.
    Died(anyhow::Error),
}

pub(super) fn run(boot: &Boot, on_line: &mut dyn FnMut(&str)) -> Result<Report> {
    let init = crate::build::init()?;
    let mut retried = 0;
    loop {
        let start = Instant::now();
        let work = tempfile::Builder::new().prefix("plimsoll-vm-").tempdir()?;
        clear(boot)?;
        initramfs::write(boot, &init, &work.path().join(qemu::INITRAMFS)).context("making the initramfs")?;
        let mut stdout = String::new();
        let mut take = |line: &str| {
            stdout.push_str(line);
            stdout.push('\n');
            on_line(line);
        };
        match attempt(boot, work.path(), &mut take)? {
            Ending::Verdict(verdict) => return Ok(report(boot, verdict, stdout, retried, start.elapsed())),
            Ending::Died(_) if retried < RETRIES && lost_by_emulator(&boot.log) => {
                fs::rename(&boot.log, boot.log.with_extension(format!("lost-{retried}.log")))?;
                retried += 1;
            }
            Ending::Died(error) if retried == 0 => bail!("{error:#}; {}", tail(&boot.log)),
            Ending::Died(error) => bail!("{error:#}, nor did {retried} boots before it; {}", tail(&boot.log)),
        }
    }
}

fn report(boot: &Boot, verdict: Verdict, stdout: String, retried: u32, wall: Duration) -> Report {
    let Verdict { code, kernel, warnings, seconds } = verdict;
    Report {
        code,
        release: kernel,
        warnings,
        seconds,
        stdout,
        out: boot.results().join("out"),
        retried,
        wall,
    }
}

pub(super) fn clear(boot: &Boot) -> Result<()> {
    if let Some(dir) = boot.log.parent() {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    match fs::remove_dir_all(boot.results()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("old results"),
        _ => fs::write(&boot.log, "").with_context(|| boot.log.display().to_string()),
    }
}

/// Ends the emulator however we leave.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has most likely ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn attempt(boot: &Boot, work: &Path, on_line: &mut dyn FnMut(&str)) -> Result<Ending> {
    let results = boot.results();
    let channels = Channels::open(work, &results)?;
    let mut command = qemu::command(boot, work)?;
    if !boot.interactive {
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    let mut log = OpenOptions::new().append(true).open(&boot.log)?;
    command.stderr(log.try_clone()?);
    let child = command.spawn().with_context(|| format!("starting {}", qemu::PROGRAM))?;
    let mut running = Running(child);
    let mut take = |event| match event {
        Event::Line(line) => {
            on_line(&line);
            writeln!(log, "{line}").context("log")
        }
        Event::Results(taken) => taken.context("taking the guest's results"),
    };
    let followed = follow(boot, &mut running.0, channels.events(), &mut take);
    drop(running);
    let rest = channels.finish().into_iter().try_for_each(&mut take);
    if let Err(error) = followed {
        return Ok(Ending::Died(error));
    }
    match fs::read(results.join(VERDICT_ENTRY)) {
        Ok(verdict) => {
            rest.and(Ok(Ending::Verdict(serde_json::from_slice(&verdict).context(VERDICT_ENTRY)?)))
        }
        Err(_) => Ok(Ending::Died(anyhow!("the guest did not reach its end"))),
    }
}

/// Passes on what comes from the guest until it is off. An error is the reason to give up on it.
fn follow(
    boot: &Boot,
    child: &mut Child,
    events: &Receiver<Event>,
    take: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    let mut hello = false;
    while child.try_wait()?.is_none() {
        if let Ok(event) = events.recv_timeout(TICK) {
            take(event)?;
        }
        hello = hello || said_hello(&boot.log);
        let limit = if hello { boot.timeout } else { HELLO_LIMIT.min(boot.timeout) };
        let what = if hello { "end" } else { "come up" };
        ensure!(start.elapsed() < limit, "the guest did not {what} within {} s", limit.as_secs());
    }
    Ok(())
}

/// Whether the emulator, not the guest, is to blame: no sign of init, or an Oops on a half-patched instruction,
/// which emulated CPUs run into about once in 35 boots.
pub(super) fn lost_by_emulator(log: &Path) -> bool {
    let text = read(log);
    !text.contains(HELLO) || (text.contains("Oops: int3") || text.contains("text_poke"))
}

fn said_hello(log: &Path) -> bool {
    read(log).contains(HELLO)
}

fn read(log: &Path) -> String {
    // A log that can't be read says nothing.
    fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The end of the log, for an error message.
pub(super) fn tail(log: &Path) -> String {
    let text = read(log);
    let lines: Vec<_> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(TAIL)..].join("\n  ");
    format!("the end of {}:\n  {shown}", log.display())
}
