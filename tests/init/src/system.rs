//! Hands the machine over to an operating system on a disk, as the initramfs of every distribution does.
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use plimsoll_init::{SYSTEM_SERIAL, Spec};
use rustix::mount::mount_move;

use crate::mounts::mount_disk;

/// Where the disk is until it is the root.
const NEW_ROOT: &str = "/system";
/// What this init has mounted, and the next one finds.
const KEPT: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Makes the disk the root, with the host's files at `/data`, and becomes its init. Returns only an error.
pub(crate) fn hand_over(spec: &Spec) -> Result<()> {
    mount_disk(SYSTEM_SERIAL, NEW_ROOT)?;
    if spec.data {
        mount_disk(plimsoll_init::DATA_SERIAL, &format!("{NEW_ROOT}/data"))?;
    }
    for place in KEPT {
        mount_move(place, format!("{NEW_ROOT}{place}")).context(place)?;
    }
    std::env::set_current_dir(NEW_ROOT)?;
    // The initramfs can't be left by pivot_root(2): its root is covered instead.
    mount_move(".", "/").context("/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    let refused = Command::new("/sbin/init").env_clear().exec();
    Err(refused).context("/sbin/init")
}
