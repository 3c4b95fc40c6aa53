//! The host as a whole: meminfo, vmstat and PSI totals.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use plimsoll_policy::sample::{Gap, Meminfo, Psi, Vmstat};
use plimsoll_policy::units::{Bytes, Share};
use procfs::prelude::*;
use rustix::io::pread;

use super::parse;

/// The memory of this host. It is asked for before anything else: the thresholds depend on it.
///
/// # Errors
/// When `/proc/meminfo` can't be read.
pub fn total_memory() -> io::Result<Bytes> {
    let meminfo = procfs::Meminfo::current().map_err(io::Error::other)?;
    Ok(Bytes(meminfo.mem_total))
}

/// The files of `/proc` that describe memory, held open.
#[derive(Debug)]
pub struct Node {
    proc: PathBuf,
    reserved: Bytes,
    sys: PathBuf,
    meminfo: File,
    vmstat: File,
    pressure: Option<File>,
}

/// Large enough for `/proc/vmstat` (4 KiB on 6.12) and then some.
const BUFFER: usize = 16384;

impl Node {
    /// Opens the files below `proc`; `sys` is for zram. A kernel without PSI has no pressure file.
    ///
    /// # Errors
    /// When meminfo or vmstat can't be opened.
    pub fn open(proc: &Path, sys: &Path) -> io::Result<Self> {
        let open = |name: &str| {
            let path = proc.join(name);
            File::open(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("can't open {}: {error}", path.display()))
            })
        };
        let mut node = Self {
            meminfo: open("meminfo")?,
            vmstat: open("vmstat")?,
            pressure: open("pressure/memory").ok(),
            proc: proc.to_owned(),
            sys: sys.to_owned(),
            reserved: Bytes::ZERO,
        };
        node.refresh();
        Ok(node)
    }

    /// Reads the watermarks again: `min_free_kbytes` and hotplug change them, seldom.
    pub fn refresh(&mut self) {
        // Without zoneinfo nothing is known to be reserved.
        let zoneinfo = fs::read_to_string(self.proc.join("zoneinfo")).unwrap_or_default();
        self.reserved = Bytes(high_watermarks(&zoneinfo).saturating_mul(rustix::param::page_size() as u64));
    }

    /// `/proc/meminfo`.
    pub fn meminfo(&self, gaps: &mut Vec<Gap>) -> Option<Meminfo> {
        read(&self.meminfo, "meminfo", gaps, |text| {
            let info = procfs::Meminfo::from_read(text).map_err(|error| error.to_string())?;
            let available = info.mem_available.ok_or("MemAvailable is missing")?;
            let shmem = Bytes(info.shmem.unwrap_or(0));
            Ok(Meminfo {
                total: Bytes(info.mem_total),
                free: Bytes(info.mem_free),
                available: Bytes(available),
                file: Bytes(info.cached.saturating_add(info.buffers)).saturating_sub(shmem),
                shmem,
                reserved: self.reserved,
                swap_total: Bytes(info.swap_total),
                swap_free: Bytes(info.swap_free),
            })
        })
    }

    /// How much RAM a swapped byte still takes: what all zram devices use, by what is swapped. Nothing where there is no
    /// zram, or nothing is swapped.
    #[must_use]
    pub fn swapped_in_ram(&self, meminfo: &Meminfo) -> Share {
        let swapped = meminfo.swap_total.saturating_sub(meminfo.swap_free);
        if swapped == Bytes::ZERO {
            return Share::ZERO;
        }
        let devices = glob::glob(&format!("{}/block/zram*/mm_stat", self.sys.display()));
        let used = devices
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|path| mem_used(&fs::read_to_string(path).ok()?));
        Share::of(used.sum(), swapped.0).unwrap_or_default().min(Share::ONE)
    }

    /// `/proc/vmstat`.
    pub fn vmstat(&self, gaps: &mut Vec<Gap>) -> Option<Vmstat> {
        read(&self.vmstat, "vmstat", gaps, |text| Ok(vmstat(text)))
    }

    /// `/proc/pressure/memory`; a gap where PSI is missing or off.
    pub fn psi(&self, gaps: &mut Vec<Gap>) -> Option<Psi> {
        let file = self.pressure.as_ref()?;
        read(file, "pressure/memory", gaps, |text| parse::psi(text).map_err(|error| error.to_string()))
    }

    /// A PSI trigger on the whole host.
    ///
    /// # Errors
    /// As [`super::psi::arm_at`].
    pub fn psi_trigger(&self, trigger: &super::psi::Trigger) -> Result<OwnedFd, super::cgroup::FileError> {
        let dir = File::open(self.proc.join("pressure"))
            .map_err(|_| super::cgroup::FileError::Missing("pressure"))?;
        super::psi::arm_at(dir, "memory", trigger)
    }
}

fn read<T>(
    file: &File,
    name: &str,
    gaps: &mut Vec<Gap>,
    parse: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Option<T> {
    let mut buffer = [0_u8; BUFFER];
    let result =
        pread(file, &mut buffer, 0).map_err(|errno| errno.to_string()).and_then(|len| parse(&buffer[..len]));
    result.map_err(|why| gaps.push(Gap { what: name.to_owned(), why })).ok()
}

/// The sum of the zones' high watermarks in `/proc/zoneinfo`, in pages. The pagesets' lines of that name have a colon.
fn high_watermarks(zoneinfo: &str) -> u64 {
    let high = |line: &str| line.trim_start().strip_prefix("high ")?.trim().parse::<u64>().ok();
    zoneinfo.lines().filter_map(high).fold(0, u64::saturating_add)
}

/// `mem_used_total`, the third field of a zram device's `mm_stat`, in bytes.
fn mem_used(mm_stat: &str) -> Option<u64> {
    mm_stat.split_whitespace().nth(2)?.parse().ok()
}

/// procfs gives vmstat as a map of owned strings; ten fields of two hundred are wanted, some 20 times a second.
fn vmstat(text: &[u8]) -> Vmstat {
    let mut vmstat = Vmstat::default();
    for (key, value) in parse::pairs(text) {
        let field = match key {
            b"workingset_refault_anon" => &mut vmstat.refault_anon,
            b"workingset_refault_file" => &mut vmstat.refault_file,
            b"pgmajfault" => &mut vmstat.major_faults,
            b"pgscan_direct" => &mut vmstat.scan_direct,
            b"pgsteal_direct" => &mut vmstat.steal_direct,
            b"pgscan_kswapd" => &mut vmstat.scan_kswapd,
            b"pswpin" => &mut vmstat.swap_in,
            b"pswpout" => &mut vmstat.swap_out,
            b"oom_kill" => &mut vmstat.oom_kills,
            _ => continue,
        };
        *field = value;
    }
    vmstat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine() {
        let node = Node::open(Path::new("/proc"), Path::new("/sys")).unwrap();
        let mut gaps = Vec::new();
        let meminfo = node.meminfo(&mut gaps).unwrap();
        assert!(meminfo.total > meminfo.free && meminfo.total >= meminfo.available);
        assert!(node.vmstat(&mut gaps).is_some());
        assert_eq!(gaps, []);
    }

    #[test]
    fn watermarks_of_all_zones_are_summed() {
        let text = "Node 0, zone DMA\n  pages free 10\n        min      3\n        high     5\n    cpu: 0\n              high:  42\n\
                    Node 0, zone Normal\n        high     100\n        high_min x\n";
        assert_eq!(high_watermarks(text), 105);
    }

    #[test]
    fn pages_in_zram_take_ram() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [("meminfo", ""), ("vmstat", "")] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        for (device, mm_stat) in [("zram0", "400 180 200 0 200 0 0 0 0\n"), ("zram1", "broken\n")] {
            let device = dir.path().join("block").join(device);
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("mm_stat"), mm_stat).unwrap();
        }
        let node = Node::open(dir.path(), dir.path()).unwrap();
        let meminfo =
            |free| Meminfo { swap_total: Bytes(1000), swap_free: Bytes(free), ..Meminfo::default() };
        assert_eq!(node.swapped_in_ram(&meminfo(600)), Share::percent(50));
        assert_eq!(node.swapped_in_ram(&meminfo(1000)), Share::ZERO);
    }

    #[test]
    fn a_broken_meminfo_is_a_gap_that_says_what() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("meminfo"), "MemTotal: lots kB\n").unwrap();
        std::fs::write(dir.path().join("vmstat"), "").unwrap();
        let node = Node::open(dir.path(), dir.path()).unwrap();
        let mut gaps = Vec::new();
        assert_eq!(node.meminfo(&mut gaps), None);
        assert_eq!(gaps[0].what, "meminfo");
        assert!(!gaps[0].why.is_empty());
    }
}
