//! What the kernel is and has, cgroups apart: release, PSI, BTF, swap.

use std::fs::{self, File};
use std::io;

use super::{Capability, HostPaths};
use crate::sense::psi::{Trigger, arm_at};

/// Major and minor number.
pub(super) type Release = (u32, u32);

/// The oldest kernel that it is tested on.
const OLDEST: Release = (6, 1);

const PRESSURE: &str = "pressure/memory";

/// `None` where it can't be read.
pub(super) fn release(paths: &HostPaths) -> Option<Release> {
    let text = fs::read_to_string(paths.proc.join("sys/kernel/osrelease")).ok()?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn probe(paths: &HostPaths, kernel: Option<Release>) -> Vec<Capability> {
    let psi = psi(fs::read_to_string(paths.proc.join(PRESSURE)).map(drop));
    let triggers = psi.available().then(|| triggers(paths));
    let rest = [btf(paths), swap(paths)];
    [version(kernel), psi].into_iter().chain(triggers).chain(rest).collect()
}

fn version(kernel: Option<Release>) -> Capability {
    let Some((major, minor)) = kernel else {
        return Capability::there("kernel", "release unknown").lost("nothing for certain", "mount /proc");
    };
    let found = Capability::there("kernel", format!("Linux {major}.{minor}"));
    if (major, minor) >= OLDEST {
        return found;
    }
    found.lost("what older kernels lack is only known from this table", "use Linux 6.1 or later")
}

/// By how reading the file went.
fn psi(read: io::Result<()>) -> Capability {
    const LOST: &str = "stall as a signal: the tier follows used share and forecast alone";
    let Err(error) = read else { return Capability::there("psi", "pressure stall information is on") };
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Capability::there("psi", "PSI is disabled")
            .lost(LOST, "boot with psi=1 on the kernel command line"),
        Some(libc::ENOENT) => Capability::there("psi", "the kernel has no /proc/pressure")
            .lost(LOST, "use a kernel with CONFIG_PSI=y, and boot it with psi=1"),
        _ => Capability::there("psi", format!("/proc/pressure/memory can't be read: {error}"))
            .lost(LOST, "look for what denies it: a security module, or a container's mask"),
    }
}

/// The quickest window that the kernel takes. The trigger is gone with its descriptor.
fn triggers(paths: &HostPaths) -> Capability {
    let armed = |trigger: &Trigger| {
        let dir = File::open(paths.proc.join("pressure")).ok()?;
        arm_at(dir, "memory", trigger).ok()
    };
    match Trigger::LADDER.iter().find(|trigger| armed(trigger).is_some()) {
        Some(trigger) => Capability::there("psi_triggers", format!("windows of {}", trigger.window)),
        None => Capability::there("psi_triggers", "the kernel takes none").lost(
            "being woken by stall: it is seen at the next look",
            "run it as root, with CAP_SYS_RESOURCE",
        ),
    }
}

fn btf(paths: &HostPaths) -> Capability {
    if paths.sys.join("kernel/btf/vmlinux").exists() {
        return Capability::there("btf", "/sys/kernel/btf/vmlinux");
    }
    Capability::there("btf", "no /sys/kernel/btf/vmlinux").lost(
        "the eBPF hooks and the gate: reaction is by PSI and polling",
        "use a kernel with CONFIG_DEBUG_INFO_BTF=y; those of all large distributions have it",
    )
}

/// Swap is watched while running as well: it can come, go and fill up.
fn swap(paths: &HostPaths) -> Capability {
    let text = fs::read_to_string(paths.proc.join("swaps")).unwrap_or_default();
    let devices: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    if !devices.is_empty() {
        return Capability::there("swap", devices.join(", "));
    }
    Capability::there("swap", "none").lost(
        "trim and freeze free file pages only: anonymous memory can't be reclaimed, only killed",
        "set up zram or a swap file",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files can't answer EOPNOTSUPP; the kernel does, booted with psi=0.
    #[test]
    fn psi_says_why_it_is_missing() {
        let mend = |code| psi(Err(io::Error::from_raw_os_error(code))).missing.unwrap().mend;
        assert_eq!(mend(libc::EOPNOTSUPP), "boot with psi=1 on the kernel command line");
        assert!(mend(libc::ENOENT).contains("CONFIG_PSI=y"));
        assert!(mend(libc::EACCES).contains("security module"));
        assert!(psi(Ok(())).available());
    }
}
