//! PID 1 of the test machine: mounts, loads modules, runs one command, reports, powers off.
mod children;
mod link;
mod mounts;
mod ports;
mod result;
mod swap;
mod system;

use std::fs;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use plimsoll_init::{HELLO, MODULES_DIR, SPEC_PATH, Spec, Verdict, kernel_warnings};
use rustix::system::{RebootCommand, finit_module, reboot, sethostname};

fn main() {
    say(HELLO);
    if let Err(error) = live() {
        say(&format!("plimsoll-vm: init failed: {error:#}"));
    }
    rustix::fs::sync();
    let refused = reboot(RebootCommand::PowerOff);
    say(&format!("plimsoll-vm: power off failed: {refused:?}"));
}

/// The whole life of the guest but its end.
fn live() -> Result<()> {
    let spec: Spec = serde_json::from_slice(&fs::read(SPEC_PATH).context("spec")?).context("spec")?;
    if spec.system {
        mounts::mount_devices().context("mounts")?;
        load_modules().context("modules")?;
        return system::hand_over(&spec).context("the system on the disk");
    }
    mounts::mount_all().context("mounts")?;
    load_modules().context("modules")?;
    sethostname(b"plimsoll").context("host name")?;
    link::loopback_up().context("loopback")?;
    swap::enable(spec.swap).context("swap")?;
    if spec.data {
        mounts::mount_data().context("/data")?;
    }
    let code = children::run(&spec).with_context(|| format!("command {:?}", spec.command))?;
    children::end_the_rest();
    report(code)
}

/// Says how it went, on the console and to the host.
fn report(code: i32) -> Result<()> {
    let dmesg = result::kernel_log().context("kernel log")?;
    let verdict = Verdict {
        code,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        warnings: kernel_warnings(&dmesg),
        seconds: result::uptime().context("uptime")?,
    };
    say(&verdict.line());
    result::send(&verdict, &dmesg).context("results")
}

/// Writes a line to the console, which is there before anything is mounted.
fn say(line: &str) {
    let mut stdout = std::io::stdout();
    // A console that can't be written to leaves nobody to tell.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn load_modules() -> Result<()> {
    let Ok(dir) = fs::read_dir(MODULES_DIR) else { return Ok(()) };
    let mut files: Vec<_> = dir.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    for path in files {
        let file = fs::File::open(&path)?;
        finit_module(&file, c"", 0).with_context(|| path.display().to_string())?;
        // The image is of no use any more, and the initramfs is memory.
        fs::remove_file(&path)?;
    }
    Ok(())
}
