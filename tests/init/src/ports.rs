//! Finds the devices that the host has given a name: virtio-serial ports and disks.
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, anyhow};

/// How often a device is looked for. The probes are over long before: they run within the module's load.
const ATTEMPTS: u32 = 100;

/// `/dev/vportNpM` of the named port.
pub(crate) fn port(name: &str) -> Result<PathBuf> {
    find("/sys/class/virtio-ports", "name", name)
}

/// `/dev/vdX` of the disk with that serial number.
pub(crate) fn disk(serial: &str) -> Result<PathBuf> {
    find("/sys/block", "serial", serial)
}

fn find(class: &str, attribute: &str, value: &str) -> Result<PathBuf> {
    for _ in 0..ATTEMPTS {
        if let Some(device) = look(Path::new(class), attribute, value) {
            return Ok(device);
        }
        sleep(Duration::from_millis(20));
    }
    Err(anyhow!("no device below {class} whose {attribute} is {value:?}"))
}

fn look(class: &Path, attribute: &str, value: &str) -> Option<PathBuf> {
    let devices = fs::read_dir(class).ok()?.flatten();
    let has = |dir: &PathBuf| fs::read_to_string(dir.join(attribute)).is_ok_and(|text| text.trim() == value);
    let device = devices.map(|entry| entry.path()).find(has)?;
    Some(Path::new("/dev").join(device.file_name()?))
}
