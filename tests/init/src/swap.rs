//! Swap space: zram that init formats itself, or the disk that the host has formatted.
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use plimsoll_init::{SWAP_SERIAL, Swap};

use crate::ports::disk;

/// Turns the wanted swap space on.
pub(crate) fn enable(swap: Swap) -> Result<()> {
    match swap {
        Swap::None => Ok(()),
        Swap::Zram { bytes } => zram(bytes).context("zram"),
        Swap::Disk => {
            let device = disk(SWAP_SERIAL)?;
            swapon(&device).with_context(|| device.display().to_string())
        }
    }
}

fn zram(bytes: u64) -> Result<()> {
    let device = Path::new("/dev/zram0");
    fs::write("/sys/block/zram0/disksize", bytes.to_string()).context("disksize")?;
    let header = plimsoll_init::swap_header(bytes);
    OpenOptions::new().write(true).open(device)?.write_all(&header).context("swap header")?;
    swapon(device).context("swapon")
}

fn swapon(device: &Path) -> io::Result<()> {
    let path = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    let result = unsafe { libc::swapon(path.as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
