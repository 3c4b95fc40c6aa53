//! GPUs of AMD and Intel: what their drivers say in sysfs, of each client in `/proc`, and by cgroup where the kernel counts that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::units::Bytes;

use super::reading::Reading;
use super::{Held, Places, dmem, fdinfo, kfd};
use crate::ledger::release::subtree;

/// Drivers of GPUs with clients that they count. Others that are found there only draw (ast, virtio-gpu, simpledrm).
const DRIVERS: [&str; 3] = ["amdgpu", "i915", "xe"];
/// Where Intel's integrated GPUs have always been.
const INTEGRATED: &str = "0000:00:02.0";

/// A cgroup whose processes are looked at, and its inode.
pub(super) type Place = (String, u64);

/// One GPU in sysfs.
struct Card {
    dir: PathBuf,
    address: String,
    driver: String,
}

/// Adds these GPUs to a look, with what the processes of the workloads hold. Returns those whose memory is their own.
pub(super) fn read(places: &Places, workloads: &[Place], reading: &mut Reading) -> BTreeSet<String> {
    let cards: Vec<Card> =
        cards(&places.sys).into_iter().filter(|card| !reading.addresses.contains(&card.address)).collect();
    if cards.is_empty() {
        return BTreeSet::new();
    }
    let kfd = kfd::read(&places.sys);
    let mut own = BTreeSet::new();
    for card in &cards {
        let gpu = card.read(&places.cgroup, kfd.with_cores.contains(&card.address), reading);
        if !gpu.unified {
            own.insert(card.address.clone());
        }
        reading.gpus.insert(GpuId::from(card.address.as_str()), gpu);
    }
    // Where all memory is the host's there is nothing to look for, and looking costs.
    if !own.is_empty() {
        hold_by_clients(places, workloads, &own, reading);
        for (pid, address, bytes) in kfd.held.iter().filter(|(_, address, _)| own.contains(address)) {
            reading.hold(*pid, &GpuId::from(address.as_str()), Some(Bytes(*bytes)));
        }
    }
    own
}

/// Where the kernel counts by cgroup, that is exact: it has what nobody has open any more, too.
pub(super) fn charge(
    places: &Places,
    workloads: &[Place],
    own: &BTreeSet<String>,
    held: &mut BTreeMap<u64, Held>,
) {
    if own.is_empty() {
        return;
    }
    for (path, inode) in workloads {
        for (address, bytes) in dmem::regions(&places.cgroup.join(path), "dmem.current") {
            if bytes > 0 && own.contains(&address) {
                held.entry(*inode).or_default().insert(GpuId::from(address.as_str()), Some(Bytes(bytes)));
            }
        }
    }
}

fn cards(sys: &Path) -> Vec<Card> {
    let name = |path: &Path| Some(fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned());
    let entries = fs::read_dir(sys.join("class/drm")).into_iter().flatten().flatten();
    let mut cards: Vec<Card> = entries
        .filter(|entry| {
            // `card0`, and not its connectors.
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("card"));
            number
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .filter_map(|entry| {
            let dir = entry.path().join("device");
            let (address, driver) = (name(&dir)?, name(&dir.join("driver"))?);
            DRIVERS.contains(&driver.as_str()).then_some(Card { dir, address, driver })
        })
        .collect();
    cards.sort_by(|a, b| a.address.cmp(&b.address));
    cards
}

impl Card {
    fn read(&self, cgroups: &Path, with_cores: bool, reading: &mut Reading) -> Gpu {
        let gpu = Gpu { name: self.name(), ..Gpu::default() };
        let memory = if self.driver == "amdgpu" { self.amd() } else { Ok(self.intel(cgroups)) };
        match memory {
            Ok((Some(total), used)) if total > 0 => {
                let unified = with_cores || self.is_in_a_processor();
                Gpu { total: Some(Bytes(total)), used: used.map(Bytes), unified, ..gpu }
            }
            // Without memory of its own.
            Ok((Some(_), _)) => Gpu { unified: true, ..gpu },
            Ok((None, _)) => {
                let why = "its memory can't be read: that takes a kernel with the dmem controller (6.14)";
                reading.gap(format!("gpu:{}", self.address), &why);
                gpu
            }
            Err(error) => {
                reading.gap(format!("gpu:{}", self.address), &error);
                let gone = matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EIO));
                Gpu { lost: gone, ..gpu }
            }
        }
    }

    /// Total and used bytes.
    fn amd(&self) -> io::Result<(Option<u64>, Option<u64>)> {
        let read = |file| {
            let text = fs::read_to_string(self.dir.join(file))?;
            text.trim()
                .parse()
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{file}: {text:?}")))
        };
        Ok((Some(read("mem_info_vram_total")?), Some(read("mem_info_vram_used")?)))
    }

    /// These drivers tell nothing in sysfs; the cgroup tree's root does.
    fn intel(&self, cgroups: &Path) -> (Option<u64>, Option<u64>) {
        if self.address == INTEGRATED {
            return (Some(0), None);
        }
        let of = |file| dmem::regions(cgroups, file).get(&self.address).copied();
        let total = of("dmem.capacity");
        (total, total.and(of("dmem.current")))
    }

    /// The table that amdgpu has for the sensors has a form of its own for processors with graphics: its third byte is 2 or 3
    /// there, and 1 on cards. They use a small part that the firmware set aside, and beyond it the host's memory.
    fn is_in_a_processor(&self) -> bool {
        fs::read(self.dir.join("gpu_metrics")).is_ok_and(|table| matches!(table.get(2), Some(2 | 3)))
    }

    fn name(&self) -> String {
        let read = |file| fs::read_to_string(self.dir.join(file)).map(|text| text.trim().to_owned());
        let named = read("product_name").ok().filter(|name| !name.is_empty());
        named.unwrap_or_else(|| {
            let [vendor, device] = ["vendor", "device"].map(|file| read(file).unwrap_or_default());
            format!("{} {vendor}:{device}", self.driver).replace("0x", "")
        })
    }
}

/// Sums what clients hold, each once: the same client can be open in several places.
fn hold_by_clients(places: &Places, workloads: &[Place], own: &BTreeSet<String>, reading: &mut Reading) {
    let mut seen = BTreeSet::new();
    for pid in workloads.iter().flat_map(|(path, _)| processes(&places.cgroup.join(path))) {
        let mut sums = BTreeMap::<String, u64>::new();
        for client in clients(&places.proc.join(pid.to_string())) {
            if own.contains(&client.address) && seen.insert((client.address.clone(), client.id)) {
                let sum = sums.entry(client.address).or_default();
                *sum = sum.saturating_add(client.held);
            }
        }
        for (address, bytes) in sums {
            reading.hold(pid, &GpuId::from(address.as_str()), Some(Bytes(bytes)));
        }
    }
}

fn processes(cgroup: &Path) -> Vec<u32> {
    let dirs = subtree(cgroup);
    let lists = dirs.iter().filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
    lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// The clients that a process has open.
fn clients(process: &Path) -> impl Iterator<Item = fdinfo::Client> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let gpus =
        files.filter(|file| fs::read_link(file.path()).is_ok_and(|target| target.starts_with("/dev/dri")));
    gpus.filter_map({
        let process = process.to_owned();
        move |file| fdinfo::client(&fs::read_to_string(process.join("fdinfo").join(file.file_name())).ok()?)
    })
}

#[cfg(test)]
mod tests;
