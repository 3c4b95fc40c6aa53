//! A guest with an operating system of its own, which runs until it is let go; scripts are run in it meanwhile.
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use plimsoll_init::shell::Shell;
use tempfile::TempDir;

use super::session::{Running, clear, lost_by_emulator, tail};
use super::{Boot, initramfs, qemu};

/// An emulated system takes half a minute to start its services, a crowded machine several times as long.
const UP_LIMIT: Duration = Duration::from_secs(300);
/// Boots that the emulator may lose before we give up.
const RETRIES: u32 = 3;
/// How long one script may be silent.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a machine that is booting is asked whether it is there. Each time costs it a process once it is.
const TICK: Duration = Duration::from_millis(500);

/// A machine that is up. Dropped, it is switched off.
pub(crate) struct Machine {
    running: Running,
    shell: Shell,
    _work: TempDir,
}

impl Machine {
    /// Boots the system, and waits until scripts can be run in it. A boot that the emulator loses is repeated.
    pub(crate) fn start(boot: &Boot) -> Result<Self> {
        for _ in 0..RETRIES {
            let mut machine = Self::power_on(boot)?;
            match machine.wait() {
                Ok(()) => return Ok(machine),
                Err(_) if lost_by_emulator(&boot.log) => {}
                Err(error) => bail!("{error:#}; {}", tail(&boot.log)),
            }
        }
        bail!("the emulator lost {RETRIES} boots; {}", tail(&boot.log))
    }

    fn power_on(boot: &Boot) -> Result<Self> {
        ensure!(boot.system.is_some(), "there is no system to boot");
        let init = crate::build::init()?;
        let work = tempfile::Builder::new().prefix("plimsoll-vm-").tempdir()?;
        clear(boot)?;
        initramfs::write(boot, &init, &work.path().join(qemu::INITRAMFS)).context("making the initramfs")?;
        let port = free_port()?;
        let mut command = qemu::command(boot, work.path())?;
        qemu::network(&mut command, port);
        qemu::journal(&mut command, &boot.log.with_extension("journal"));
        let log = OpenOptions::new().append(true).open(&boot.log)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", qemu::PROGRAM))?;
        let shell = Shell::at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE);
        Ok(Self { running: Running(child), shell, _work: work })
    }

    /// The emulator takes connections from the first moment on: only an answer shows that somebody is there.
    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while !self.shell.run("true").is_ok_and(|ended| ended.passed()) {
            ensure!(self.running.0.try_wait()?.is_none(), "the guest went down while it was starting");
            ensure!(start.elapsed() < UP_LIMIT, "the guest did not come up within {} s", UP_LIMIT.as_secs());
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Its root shell.
    pub(crate) fn shell(&self) -> Shell {
        self.shell
    }
}

/// A port that nobody listens at. Somebody else may take it before the emulator does, which then says so and ends.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
