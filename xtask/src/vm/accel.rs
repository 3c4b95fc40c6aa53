//! How the guest's CPUs are run: by the hardware where that works, else by emulation.
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::Kernel;

/// What time means in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Timing {
    /// As fast as the host goes: KVM where it works, else one emulating thread per CPU.
    Threads,
    /// Guest time counts instructions, so figures repeat on a busy host. Always emulated.
    Icount,
}

/// A KVM guest says something within this time, or KVM does not work here (it may also hang).
const PROBE_LIMIT: Duration = Duration::from_secs(10);

impl Timing {
    /// The emulator's arguments.
    pub(super) fn arguments(self, kernel: &Kernel) -> Vec<&'static str> {
        match self {
            Self::Threads if kvm_works(kernel) => vec!["-accel", "kvm", "-cpu", "host"],
            Self::Threads => vec!["-accel", "tcg,thread=multi", "-cpu", "max"],
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
    *WORKS.get_or_init(|| Path::new("/dev/kvm").exists() && boots_under_kvm(kernel).unwrap_or(false))
}

/// Boots the kernel without a root filesystem: it panics and, by panic=-1, ends the emulator.
fn boots_under_kvm(kernel: &Kernel) -> std::io::Result<bool> {
    let log = tempfile::NamedTempFile::new()?;
    let mut child = Command::new(super::qemu::PROGRAM)
        .args(["-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(&kernel.image)
        .arg("-serial")
        .arg(format!("file:{}", log.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + PROBE_LIMIT;
    while Instant::now() < deadline && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(50));
    }
    // It may have ended by itself; either way nothing is left running.
    let _ = child.kill();
    child.wait()?;
    Ok(String::from_utf8_lossy(&std::fs::read(log.path())?).contains("Kernel panic"))
}
