//! What the host tells the guest's init, and what init tells the host.
pub mod outcome;
pub mod shell;
pub mod survivors;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the host puts the [`Spec`] in the initramfs.
pub const SPEC_PATH: &str = "/plimsoll-init.json";
/// Modules are loaded from here, in the order of their file names.
pub const MODULES_DIR: &str = "/modules";
/// First thing that init prints on the console: the boot itself worked.
pub const HELLO: &str = "plimsoll-vm: hello";
/// Name of the virtio-serial port that takes the command's output.
pub const STDOUT_PORT: &str = "plimsoll.stdout";
/// Name of the virtio-serial port that takes the results, as a tar stream; the host answers with one byte.
pub const RESULT_PORT: &str = "plimsoll.result";
/// Last entry of the result stream: the [`Verdict`] as JSON. Without it the stream is incomplete.
pub const VERDICT_ENTRY: &str = "verdict.json";
/// Entry of the result stream that holds the guest's kernel log.
pub const DMESG_ENTRY: &str = "dmesg";
/// Serial number of the disk that holds the `/data` filesystem.
pub const DATA_SERIAL: &str = "data";
/// Serial number of the disk that is swap space.
pub const SWAP_SERIAL: &str = "swap";
/// Serial number of the disk that holds a whole operating system.
pub const SYSTEM_SERIAL: &str = "system";

/// What the guest does between boot and power-off.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment of the command, in full.
    pub env: BTreeMap<String, String>,
    /// Swap space, if any.
    pub swap: Swap,
    /// Mount the disk with [`DATA_SERIAL`] at `/data`.
    pub data: bool,
    /// The command talks to a person on the console.
    pub interactive: bool,
    /// There is no command: the disk with [`SYSTEM_SERIAL`] takes over, with an init of its own.
    pub system: bool,
}

/// Where the guest swaps to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    /// No swap space.
    #[default]
    None,
    /// Compressed memory, by uncompressed size.
    Zram {
        /// Uncompressed size.
        bytes: u64,
    },
    /// The disk with [`SWAP_SERIAL`], which the host has formatted.
    Disk,
}

/// How the command ended, and on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Exit code; 128 + signal when a signal ended it (as a shell says it).
    pub code: i32,
    /// `uname -r`.
    pub kernel: String,
    /// WARNING, BUG, Oops and panic lines of the kernel log.
    pub warnings: Vec<String>,
    /// Guest time from boot to the end of the command.
    pub seconds: f64,
}

impl Verdict {
    /// The line on the console.
    #[must_use]
    pub fn line(&self) -> String {
        let word = if self.code == 0 { "pass" } else { "fail" };
        format!(
            "plimsoll-vm: verdict={word} code={} kernel={} warnings={} seconds={:.2}",
            self.code,
            self.kernel,
            self.warnings.len(),
            self.seconds
        )
    }
}

/// The first page of a swap area of that size, as mkswap(8) writes it (`union swap_header` in linux/swap.h).
#[must_use]
pub fn swap_header(bytes: u64) -> Vec<u8> {
    const PAGE: usize = 4096;
    let last_page = u32::try_from(bytes / PAGE as u64).unwrap_or(u32::MAX).saturating_sub(1);
    let mut header = vec![0; PAGE];
    header[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    header[1028..1032].copy_from_slice(&last_page.to_le_bytes());
    header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    header
}

/// The lines of a kernel log that say that the kernel itself is in trouble.
///
/// An OOM kill is no such line: it is what many tests provoke.
#[must_use]
pub fn kernel_warnings(log: &str) -> Vec<String> {
    const MARKS: [&str; 7] = [
        "WARNING: ",
        "BUG: ",
        "Oops",
        "Kernel panic",
        "general protection fault",
        "blocked for more than",
        "detected stall",
    ];
    let trouble = |line: &&str| MARKS.iter().any(|mark| line.contains(mark));
    log.lines().filter(trouble).map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_warning_is_found_and_an_oom_kill_is_not_one() {
        let log = "[1.0] Out of memory: Killed process 7 (hog)\n[2.0] WARNING: CPU: 0 PID: 1 at mm/memcontrol.c:1\n";
        assert_eq!(kernel_warnings(log), ["[2.0] WARNING: CPU: 0 PID: 1 at mm/memcontrol.c:1"]);
    }

    #[test]
    fn the_verdict_line_names_the_exit_code() {
        let verdict = Verdict { code: 3, kernel: "6.12.1".into(), warnings: vec![], seconds: 1.5 };
        assert_eq!(verdict.line(), "plimsoll-vm: verdict=fail code=3 kernel=6.12.1 warnings=0 seconds=1.50");
    }
}
