//! A real kernel in an emulator: boot it with some files, run one command, take the results home.
//!
//! ```ignore
//! let kernel = setup::kernel("6.12")?;
//! let mut boot = Boot::new(kernel, ["/hello", "world"], "target/vm/hello.log");
//! boot.add_file("target/vm/hello", "/hello");
//! let report = boot.run(&mut |line| println!("{line}"))?;
//! assert!(report.passed());
//! ```
pub(crate) mod accel;
mod channel;
mod disk;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod qemu;
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

pub(crate) use accel::Timing;
pub(crate) use kernel::Kernel;
pub(crate) use machine::Machine;
pub(crate) use qemu::PROGRAM;

/// One boot of the guest, from power-on to the end of one command.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    /// What to boot.
    pub(crate) kernel: Kernel,
    /// Guest RAM. The initramfs is a part of it that can't be evicted.
    pub(crate) memory_mib: u32,
    /// Guest CPUs.
    pub(crate) smp: u32,
    /// What guest time means.
    pub(crate) timing: Timing,
    /// Swap space.
    pub(crate) swap: Swap,
    /// Size of a disk with an ext4 filesystem at `/data`; files whose guest path is below `/data` lie on it.
    pub(crate) data_mib: Option<u32>,
    /// Program and arguments, guest paths.
    pub(crate) command: Vec<String>,
    /// Added to the command's environment, which is otherwise PATH, HOME, TERM and `RUST_BACKTRACE`.
    pub(crate) env: BTreeMap<String, String>,
    /// Host path and guest path. Programs bring the libraries that they are linked with.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// Directories of the host, and where they lie below `/data`. Their programs bring their libraries as well.
    pub(crate) trees: Vec<(PathBuf, PathBuf)>,
    /// Links in the guest: place and target.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// Console and output of the command. Results lie beside it, in a directory of the same name and `.d`.
    pub(crate) log: PathBuf,
    /// Wall-clock limit for the whole boot.
    pub(crate) timeout: Duration,
    /// The console is this terminal.
    pub(crate) interactive: bool,
    /// Image of an operating system that is booted instead of running a command. It is not written to.
    pub(crate) system: Option<PathBuf>,
}

/// Swap space of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swap {
    /// None at all.
    None,
    /// Compressed memory.
    Zram {
        /// Uncompressed size.
        mib: u32,
    },
    /// A disk.
    Disk {
        /// Size.
        mib: u32,
        /// Limit on its throughput, in host time.
        bytes_per_second: Option<u64>,
    },
}

/// What came of a boot.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// Exit code of the command; 128 + signal when a signal ended it.
    pub(crate) code: i32,
    /// `uname -r`.
    pub(crate) release: String,
    /// WARNING, BUG, Oops and panic lines of the guest's kernel log: the guest is in doubt, not only the command.
    pub(crate) warnings: Vec<String>,
    /// Guest seconds from boot to the end of the command.
    pub(crate) seconds: f64,
    /// What the command wrote to its standard output and standard error.
    pub(crate) stdout: String,
    /// Copy of all that the guest left below `/out`.
    pub(crate) out: PathBuf,
    /// Boots that died in the emulator before this one.
    pub(crate) retried: u32,
    /// Wall time of the last boot.
    pub(crate) wall: Duration,
}

impl Report {
    /// Whether the command succeeded.
    pub(crate) fn passed(&self) -> bool {
        self.code == 0
    }
}

impl Boot {
    /// A boot with 1 GiB of RAM, two CPUs, no swap, no disk and a limit of ten minutes.
    pub(crate) fn new<S: Into<String>>(
        kernel: Kernel,
        command: impl IntoIterator<Item = S>,
        log: impl Into<PathBuf>,
    ) -> Self {
        Self {
            kernel,
            memory_mib: 1024,
            smp: 2,
            timing: Timing::Threads,
            swap: Swap::None,
            data_mib: None,
            command: command.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            files: Vec::new(),
            trees: Vec::new(),
            links: Vec::new(),
            log: log.into(),
            timeout: Duration::from_secs(600),
            interactive: false,
            system: None,
        }
    }

    /// Puts a file of the host into the guest.
    pub(crate) fn add_file(&mut self, host: impl AsRef<Path>, guest: impl AsRef<Path>) {
        self.files.push((host.as_ref().to_owned(), guest.as_ref().to_owned()));
    }

    /// Boots, and hands every line that the command prints to `on_line` as it comes.
    ///
    /// A boot that the emulator loses (dead before init's first word, or by its known Oops on a half-patched
    /// instruction) is repeated, and its lines come again from the first; whatever the command does is not.
    pub(crate) fn run(&self, on_line: &mut dyn FnMut(&str)) -> Result<Report> {
        ensure!(
            !(self.kernel.starts_cpus_one_by_one() && self.timing == Timing::Icount && self.smp > 1),
            "kernel {} does not come up under icount with more than one CPU: use 6.5 or newer, or smp 1",
            self.kernel.release
        );
        session::run(self, on_line)
    }

    /// Where the results are unpacked.
    fn results(&self) -> PathBuf {
        self.log.with_extension("d")
    }
}
