//! The emulator's command line.
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use plimsoll_init::{DATA_SERIAL, RESULT_PORT, STDOUT_PORT, SWAP_SERIAL};

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
    ports(work, &mut command);
    disks(boot, work, &mut command)?;
    Ok(command)
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
    if let Some(mib) = boot.data_mib {
        let image = work.join("data.img");
        disk::data(boot, mib, work, &image)?;
        drive(command, DATA_SERIAL, &image, None);
    }
    if let Swap::Disk { mib, bytes_per_second } = boot.swap {
        let image = work.join("swap.img");
        disk::swap(mib, &image)?;
        drive(command, SWAP_SERIAL, &image, bytes_per_second);
    }
    Ok(())
}

fn drive(command: &mut Command, serial: &str, image: &Path, bytes_per_second: Option<u64>) {
    let limit = bytes_per_second.map(|limit| format!(",throttling.bps-total={limit}")).unwrap_or_default();
    let drive = format!("file={},id={serial},if=none,format=raw,cache=unsafe{limit}", image.display());
    command.args(["-drive", &drive]);
    command.args(["-device", &format!("virtio-blk-pci,drive={serial},serial={serial}")]);
}
