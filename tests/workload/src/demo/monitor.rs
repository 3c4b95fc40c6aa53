//! Looks at everything every 10 ms, from locked memory and with real-time priority, through descriptors held open.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use plimsoll_workload::record::{Group, Reading};

use super::groups::Groups;
use super::parse::{keyed, number, psi_total, sum};
use crate::time::{nanos, now_ns, sleep_until_ns};

const EVERY: Duration = Duration::from_millis(10);
/// Room for readings that is there before the run: two minutes.
const READINGS: usize = 12_000;

/// A thread that looks until it is told to stop.
pub(super) struct Monitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Reading>>,
}

impl Monitor {
    /// Starts to look.
    pub(super) fn start(groups: &Groups) -> Self {
        let mut eyes = Eyes::open(groups);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            // Without the privilege the readings are only less regular, which their times show.
            let _ = crate::memory::real_time(2);
            let mut readings = Vec::with_capacity(READINGS);
            let mut due = now_ns();
            while !stopped.load(Ordering::Acquire) {
                readings.push(eyes.look());
                due = (due + nanos(EVERY)).max(now_ns());
                sleep_until_ns(due);
            }
            readings
        });
        Self { stop, thread }
    }

    /// Stops, and gives all readings.
    pub(super) fn finish(self) -> anyhow::Result<Vec<Reading>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("the monitor panicked"))
    }
}

/// The two cgroups as they are now.
pub(super) fn look_at_groups(groups: &Groups) -> BTreeMap<String, Group> {
    let mut eyes = Eyes::open(groups);
    let reading = eyes.look();
    BTreeMap::from([("server".to_owned(), reading.server), ("batch".to_owned(), reading.batch)])
}

struct Eyes {
    server: GroupEyes,
    batch: GroupEyes,
    meminfo: Eye,
    vmstat: Eye,
    pressure: Eye,
}

impl Eyes {
    fn open(groups: &Groups) -> Self {
        let proc = Path::new("/proc");
        Self {
            server: GroupEyes::open(&groups.server),
            batch: GroupEyes::open(&groups.batch),
            meminfo: Eye::open(&proc.join("meminfo")),
            vmstat: Eye::open(&proc.join("vmstat")),
            pressure: Eye::open(&proc.join("pressure/memory")),
        }
    }

    fn look(&mut self) -> Reading {
        let at_ns = now_ns();
        let (server, batch) = (self.server.look(), self.batch.look());
        let meminfo = self.meminfo.text();
        let kib = |key| keyed(meminfo, key).map(|kib| kib << 10);
        let (free, available) = (kib("MemFree"), kib("MemAvailable"));
        let swap_used = kib("SwapTotal").zip(kib("SwapFree")).map(|(total, free)| total.saturating_sub(free));
        let pressure = self.pressure.text();
        let (psi_some_us, psi_full_us) = (psi_total(pressure, "some"), psi_total(pressure, "full"));
        let vmstat = self.vmstat.text();
        Reading {
            at_ns,
            server,
            batch,
            free,
            available,
            swap_used,
            psi_some_us,
            psi_full_us,
            direct_reclaims: sum(vmstat, "allocstall_"),
            refaults: sum(vmstat, "workingset_refault_"),
            oom_kills: keyed(vmstat, "oom_kill "),
        }
    }
}

struct GroupEyes {
    current: Eye,
    swap: Eye,
    high: Eye,
    low: Eye,
    pressure: Eye,
    events: Eye,
}

impl GroupEyes {
    fn open(group: &Path) -> Self {
        let open = |name| Eye::open(&group.join(name));
        Self {
            current: open("memory.current"),
            swap: open("memory.swap.current"),
            high: open("memory.high"),
            low: open("memory.low"),
            pressure: open("memory.pressure"),
            events: open("cgroup.events"),
        }
    }

    fn look(&mut self) -> Group {
        let events = self.events.text();
        let (frozen, populated) = (keyed(events, "frozen"), keyed(events, "populated"));
        Group {
            current: number(self.current.text()),
            swap: number(self.swap.text()),
            high: number(self.high.text()),
            low: number(self.low.text()),
            psi_some_us: psi_total(self.pressure.text(), "some"),
            frozen: frozen.map(|flag| flag == 1),
            populated: populated.map(|flag| flag == 1),
        }
    }
}

/// A file held open and read again and again into the same buffer.
struct Eye {
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Eye {
    /// A file that is not there (memory.swap.current without swap accounting) reads as empty.
    fn open(path: &Path) -> Self {
        Self { file: File::open(path).ok(), buffer: vec![0; 1 << 14] }
    }

    fn text(&mut self) -> &str {
        let mut length = 0;
        while let Some(file) = &self.file {
            match file.read_at(&mut self.buffer[length..], length as u64) {
                Ok(read) if read > 0 => length += read,
                _ => break,
            }
        }
        std::str::from_utf8(&self.buffer[..length]).unwrap_or_default()
    }
}
