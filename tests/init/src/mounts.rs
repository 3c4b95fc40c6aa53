//! The filesystems of the guest.
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result};
use plimsoll_init::DATA_SERIAL;
use rustix::mount::{MountFlags, mount};

use crate::ports::disk;

type Mount = (&'static str, &'static str, Option<&'static CStr>);

/// Filesystem type, place, options, those first that devices are found by. The cgroup options are systemd's, so that protection behaves as on a real host.
const MOUNTS: [Mount; 11] = [
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", None),
    ("devpts", "/dev/pts", None),
    ("tmpfs", "/dev/shm", None),
    ("cgroup2", "/sys/fs/cgroup", Some(c"nsdelegate,memory_recursiveprot")),
    ("tracefs", "/sys/kernel/tracing", None),
    ("debugfs", "/sys/kernel/debug", None),
    ("bpf", "/sys/fs/bpf", None),
    ("tmpfs", "/run", None),
    ("tmpfs", "/tmp", None),
];

/// How many of the mounts devices are found by.
const DEVICES: usize = 3;

/// Mounts only what shows devices: the rest belongs to a system that is started next.
pub(crate) fn mount_devices() -> Result<()> {
    MOUNTS.iter().take(DEVICES).try_for_each(mount_one)
}

/// Mounts all that every guest has, and delegates the cgroup controllers to the root's children.
pub(crate) fn mount_all() -> Result<()> {
    MOUNTS.iter().try_for_each(mount_one)?;
    fs::create_dir_all("/out").context("/out")?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, format!("/dev/{name}")).with_context(|| format!("/dev/{name}"))?;
    }
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +cpu +pids +io").context("cgroup controllers")
}

fn mount_one((kind, place, options): &Mount) -> Result<()> {
    fs::create_dir_all(place).ok();
    mount(*kind, *place, *kind, MountFlags::empty(), *options).with_context(|| (*place).to_owned())
}

/// Mounts the disk that the host has filled.
pub(crate) fn mount_data() -> Result<()> {
    mount_disk(DATA_SERIAL, "/data")
}

/// Mounts the ext4 filesystem of the disk with that serial number.
pub(crate) fn mount_disk(serial: &str, place: &str) -> Result<()> {
    let device = disk(serial)?;
    fs::create_dir_all(place).context("mount point")?;
    mount(&device, place, "ext4", MountFlags::NOATIME, None).with_context(|| device.display().to_string())
}
