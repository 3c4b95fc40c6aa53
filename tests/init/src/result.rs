//! Sends everything below /out, the kernel log and the verdict to the host as one tar stream.
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use plimsoll_init::{DMESG_ENTRY, RESULT_PORT, VERDICT_ENTRY, Verdict};
use rustix::fs::OFlags;

use crate::ports::port;

/// Sends all, and waits until the host has it: what is still in a queue at power-off would be lost.
pub(crate) fn send(verdict: &Verdict, dmesg: &str) -> Result<()> {
    let mut port = OpenOptions::new().read(true).write(true).open(port(RESULT_PORT)?)?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 16, &port));
    tar.append_dir_all("out", "/out").context("/out")?;
    append(&mut tar, DMESG_ENTRY, dmesg.as_bytes())?;
    append(&mut tar, VERDICT_ENTRY, &serde_json::to_vec(verdict)?)?;
    tar.into_inner()?.flush()?;
    port.read_exact(&mut [0]).context("the host's answer")?;
    Ok(())
}

fn append(tar: &mut tar::Builder<impl io::Write>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, Path::new(name), content).with_context(|| name.to_owned())
}

/// The kernel's log, one line per record.
pub(crate) fn kernel_log() -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let mut kmsg = fs::File::from(rustix::fs::open("/dev/kmsg", flags, rustix::fs::Mode::empty())?);
    let mut log = String::new();
    let mut record = vec![0; 1 << 13];
    loop {
        match kmsg.read(&mut record) {
            Ok(length) => log.push_str(&line(&String::from_utf8_lossy(&record[..length]))),
            // The record was overwritten while we were reading: the next read goes on behind it.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(log),
            Err(error) => return Err(error),
        }
    }
}

/// `prefix,sequence,microseconds,flags;text` and a dictionary -> `[seconds] text`.
fn line(record: &str) -> String {
    let first = record.lines().next().unwrap_or_default();
    let (head, text) = first.split_once(';').unwrap_or(("", first));
    let micros: u64 = head.split(',').nth(2).and_then(|field| field.parse().ok()).unwrap_or(0);
    format!("[{:5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000)
}

/// Seconds since boot.
pub(crate) fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime")?;
    Ok(text.split(' ').next().context("is empty")?.parse()?)
}
