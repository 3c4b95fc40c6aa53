//! How the guest's CPUs are run: by the hardware where that works, else by emulation.
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Kernel;
use crate::setup;

/// What time means in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Timing {
    /// As fast as the host goes: KVM where it works, else one emulating thread per CPU.
    Threads,
    /// Like threads, but emulated CPUs take turns on one thread. Slower with more than one CPU, and safe for a kernel
    /// that patches its own code under load, as it does when a tracepoint is attached: emulating threads then run
    /// half-patched instructions.
    Turns,
    /// Guest time counts instructions, so figures repeat on a busy host. Always emulated.
    Icount,
}

/// A KVM guest says something within this time, or KVM does not work here (it may also hang).
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// A CPU without AVX: emulated, a model that multiplies its matrices with AVX2 takes 25 times as long as with SSE. And without erms
/// and fsrm, or the kernel clears and copies pages byte by byte: 4096 emulated steps each, and on a busy host a guest that fills
/// its memory has been seen to take 20 s for 2 MiB.
const SSE: &str = "max,-avx,-avx2,-fma,-f16c,-erms,-fsrm";

impl Timing {
    /// The emulator's arguments.
    pub(super) fn arguments(self, kernel: &Kernel) -> Vec<&'static str> {
        match self {
            Self::Threads | Self::Turns if kvm_works(kernel) => vec!["-accel", "kvm", "-cpu", "host"],
            Self::Threads => vec!["-accel", "tcg,thread=multi", "-cpu", SSE],
            Self::Turns => vec!["-accel", "tcg,thread=single", "-cpu", SSE],
            // Without erms and fsrm, clearing a page is not 4096 emulated steps; cmpxchg16b under icount has
            // corrupted flags.
            Self::Icount => vec![
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=2,sleep=on",
                "-cpu",
                "max,-erms,-fsrm,-cx16",
            ],
        }
    }
}

/// Whether a kernel really comes up under KVM: /dev/kvm may exist and fail, above all in nested machines.
pub(crate) fn kvm_works(kernel: &Kernel) -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| Path::new("/dev/kvm").exists() && remembered(kernel).unwrap_or(false))
}

/// Probes once per boot of this machine: a KVM that hangs costs the whole limit.
fn remembered(kernel: &Kernel) -> Result<bool> {
    let machine = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let file = setup::cache()?.join(format!("kvm-{}", machine.trim()));
    if let Ok(answer) = std::fs::read_to_string(&file) {
        return Ok(answer == "works");
    }
    let works = boots_under_kvm(kernel)?;
    std::fs::write(&file, if works { "works" } else { "fails" })?;
    Ok(works)
}

/// Boots the kernel without a root filesystem: it panics and, by panic=-1, ends the emulator.
fn boots_under_kvm(kernel: &Kernel) -> Result<bool> {
    let log = tempfile::NamedTempFile::new()?;
    let said = || std::fs::read(log.path()).map(|text| String::from_utf8_lossy(&text).into_owned());
    let mut child = Command::new(super::qemu::PROGRAM)
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(&kernel.image)
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(append(log.path())?)
        .stderr(append(log.path())?)
        .spawn()?;
    let deadline = Instant::now() + PROBE_LIMIT;
    // After an internal error of KVM, the emulator stays and waits for a debugger.
    while Instant::now() < deadline && child.try_wait()?.is_none() && !said()?.contains("KVM internal error")
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    // It may have ended by itself; either way nothing is left running.
    let _ = child.kill();
    child.wait()?;
    Ok(said()?.contains("Kernel panic"))
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).open(path)
}
