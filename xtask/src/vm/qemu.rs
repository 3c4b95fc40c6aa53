//! The emulator's command line.
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use plimsoll_init::{DATA_SERIAL, RESULT_PORT, STDOUT_PORT, SWAP_SERIAL, SYSTEM_SERIAL, shell};

use super::{Boot, Swap, disk};

/// The emulator.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// Names of the files of one boot, below its working directory.
pub(super) const STDOUT_SOCKET: &str = "stdout.sock";
pub(super) const RESULT_SOCKET: &str = "result.sock";
pub(super) const INITRAMFS: &str = "initramfs.cpio";

/// Makes the disks and puts the command line together.
pub(super) fn command(boot: &Boot, work: &Path) -> Result<Command> {
    let mut command = Command::new(PROGRAM);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(boot.timing.arguments(&boot.kernel));
    command.args(["-m", &boot.memory_mib.to_string(), "-smp", &boot.smp.to_string()]);
    command.arg("-kernel").arg(&boot.kernel.image).arg("-initrd").arg(work.join(INITRAMFS));
    // An Oops ends the boot: what a kernel in trouble says about us is worth nothing.
    command.args(["-append", "console=ttyS0 quiet psi=1 panic=-1 oops=panic"]);
    console(boot, &mut command);
    if boot.system.is_none() {
        ports(work, &mut command);
    }
    disks(boot, work, &mut command)?;
    Ok(command)
}

/// A network of the guest and this machine alone, which is 10.0.2.2 there; the guest's shell is at a port here.
pub(super) fn network(command: &mut Command, shell_port: u16) {
    let forward = format!("user,id=net,hostfwd=tcp:127.0.0.1:{shell_port}-:{}", shell::PORT);
    command.args(["-netdev", &forward, "-device", "virtio-net-pci,netdev=net"]);
}

/// A second console, of which only a file on this machine is the other end: the system's journal.
pub(super) fn journal(command: &mut Command, file: &Path) {
    command.args(["-device", "virtio-serial-pci", "-chardev"]);
    command.arg(format!("file,id=journal,path={}", file.display()));
    command.args(["-device", "virtconsole,chardev=journal"]);
}

fn console(boot: &Boot, command: &mut Command) {
    let console = if boot.interactive {
        // Ctrl-C is for the guest.
        format!("stdio,id=console,signal=off,logfile={},logappend=on", boot.log.display())
    } else {
        format!("file,id=console,path={},append=on", boot.log.display())
    };
    command.args(["-chardev", &console, "-serial", "chardev:console"]);
}

fn ports(work: &Path, command: &mut Command) {
    command.args(["-device", "virtio-serial-pci"]);
    for (id, socket, name) in [("stdout", STDOUT_SOCKET, STDOUT_PORT), ("result", RESULT_SOCKET, RESULT_PORT)]
    {
        let path = work.join(socket);
        command.arg("-chardev").arg(format!("socket,id={id},path={}", path.display()));
        command.arg("-device").arg(format!("virtserialport,chardev={id},name={name}"));
    }
}

fn disks(boot: &Boot, work: &Path, command: &mut Command) -> Result<()> {
    if let Some(system) = &boot.system {
        // What the guest writes goes to a temporary file of the emulator.
        drive(command, SYSTEM_SERIAL, system, ",snapshot=on");
    }
    if let Some(mib) = boot.data_mib {
        let image = work.join("data.img");
        disk::data(boot, mib, work, &image)?;
        drive(command, DATA_SERIAL, &image, "");
    }
    if let Swap::Disk { mib, bytes_per_second } = boot.swap {
        let image = work.join("swap.img");
        disk::swap(mib, &image)?;
        let limit = bytes_per_second.map(|limit| format!(",throttling.bps-total={limit}"));
        drive(command, SWAP_SERIAL, &image, &limit.unwrap_or_default());
    }
    Ok(())
}

fn drive(command: &mut Command, serial: &str, image: &Path, options: &str) {
    let drive = format!("file={},id={serial},if=none,format=raw,cache=unsafe{options}", image.display());
    command.args(["-drive", &drive]);
    command.args(["-device", &format!("virtio-blk-pci,drive={serial},serial={serial}")]);
}
