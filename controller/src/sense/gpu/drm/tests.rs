//! Machines with AMD and Intel GPUs, as trees of files.

use std::os::unix::fs::symlink;

use super::*;

/// A machine; its cards have the addresses of their order.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn places(&self) -> Places {
        let at = |name: &str| self.0.path().join(name);
        Places { proc: at("proc"), sys: at("sys"), cgroup: at("cgroup"), nvml: None }
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn card(&self, number: u32, address: &str, driver: &str) -> String {
        let device = format!("sys/devices/{address}");
        self.link(&format!("{device}/driver"), &format!("../../bus/pci/drivers/{driver}"));
        self.link(&format!("sys/class/drm/card{number}/device"), &format!("../../../devices/{address}"));
        self.write(&format!("sys/class/drm/card{number}-DP-1/status"), "connected\n");
        device
    }

    fn amd(&self, number: u32, address: &str, total: u64, used: u64, table: u8) {
        let device = self.card(number, address, "amdgpu");
        self.write(&format!("{device}/mem_info_vram_total"), format!("{total}\n"));
        self.write(&format!("{device}/mem_info_vram_used"), format!("{used}\n"));
        self.write(&format!("{device}/gpu_metrics"), [120, 0, table, 3]);
        self.write(&format!("{device}/product_name"), "\n");
        self.write(&format!("{device}/vendor"), "0x1002\n");
        self.write(&format!("{device}/device"), "0x744c\n");
    }

    /// A process of a cgroup that has these clients open, each at a descriptor.
    fn process(&self, cgroup: &str, pid: u32, clients: &[(&str, u64, u64)]) {
        self.write(&format!("cgroup/{cgroup}/cgroup.procs"), format!("{pid}\n"));
        self.link(&format!("proc/{pid}/fd/0"), "/dev/null");
        for (at, (address, id, kib)) in clients.iter().enumerate() {
            self.link(&format!("proc/{pid}/fd/{}", at + 3), "/dev/dri/renderD128");
            let text = format!(
                "drm-driver:\tx\ndrm-pdev:\t{address}\ndrm-client-id:\t{id}\ndrm-resident-vram0:\t{kib} KiB\n"
            );
            self.write(&format!("proc/{pid}/fdinfo/{}", at + 3), text);
        }
    }

    fn read(&self, cgroups: &[&str]) -> (Reading, BTreeSet<String>) {
        let workloads: Vec<Place> =
            cgroups.iter().zip(1..).map(|(path, inode)| ((*path).to_owned(), inode)).collect();
        let mut reading = Reading::default();
        let own = read(&self.places(), &workloads, &mut reading);
        (reading, own)
    }
}

const CARD: &str = "0000:03:00.0";

#[test]
fn an_amd_card_and_what_is_held_of_it() {
    let machine = Machine::new();
    machine.amd(0, CARD, 16 << 30, 9 << 30, 1);
    machine.process("a", 10, &[(CARD, 1, 1024), (CARD, 1, 1024), (CARD, 2, 512)]);
    machine.process("a/runner", 11, &[(CARD, 1, 1024)]);
    machine.process("b", 12, &[(CARD, 3, 2048), ("0000:99:00.0", 1, 7)]);
    machine.process("other", 13, &[(CARD, 4, 4096)]);
    let (reading, _) = machine.read(&["a", "b"]);
    let gpu = &reading.gpus[&CARD.into()];
    assert_eq!((gpu.total, gpu.used, gpu.unified), (Some(Bytes(16 << 30)), Some(Bytes(9 << 30)), false));
    assert_eq!(gpu.name, "amdgpu 1002:744c");
    let held = |pid: u32| reading.processes.get(&pid).map(|held| held[&CARD.into()].unwrap().0 >> 10);
    assert_eq!(held(10), Some(1536), "a client counts once");
    assert_eq!(held(11), None, "also where another process has it open too");
    assert_eq!((held(12), held(13)), (Some(2048), None));
    assert!(reading.gaps.is_empty());
}

#[test]
fn the_compute_driver_knows_what_is_open_nowhere() {
    let machine = Machine::new();
    machine.amd(0, CARD, 16 << 30, 9 << 30, 1);
    machine.process("a", 10, &[(CARD, 1, 1024)]);
    machine.write("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n");
    machine.write("sys/class/kfd/kfd/topology/nodes/1/gpu_id", "51066\n");
    machine.write(
        "sys/class/kfd/kfd/topology/nodes/1/properties",
        "cpu_cores_count 0\nlocation_id 768\ndomain 0\n",
    );
    machine.write("sys/class/kfd/kfd/proc/10/vram_51066", "3145728\n");
    machine.write("sys/class/kfd/kfd/proc/20/vram_51066", "1048576\n");
    let (reading, _) = machine.read(&["a"]);
    let held = |pid: u32| reading.processes[&pid][&CARD.into()].unwrap().0 >> 20;
    assert_eq!((held(10), held(20)), (3, 1), "the larger figure, of all processes");
}

#[test]
fn graphics_in_a_processor_use_the_hosts_memory() {
    let machine = Machine::new();
    // Strix Halo: half a gigabyte set aside, and a table of the form for processors.
    machine.amd(0, "0000:c1:00.0", 512 << 20, 100 << 20, 3);
    machine.card(1, "0000:00:02.0", "i915");
    machine.process("a", 10, &[("0000:c1:00.0", 1, 1024)]);
    let (reading, own) = machine.read(&["a"]);
    assert!(reading.gpus.values().all(|gpu| gpu.unified), "{:?}", reading.gpus);
    assert!(own.is_empty() && reading.processes.is_empty() && reading.gaps.is_empty());
}

#[test]
fn intels_memory_is_told_by_the_controller_or_by_nobody() {
    let machine = Machine::new();
    machine.card(0, CARD, "xe");
    let (reading, _) = machine.read(&[]);
    assert_eq!(reading.gpus[&CARD.into()].total, None);
    assert_eq!(reading.gaps.len(), 1);
    machine.write("cgroup/dmem.capacity", format!("drm/{CARD}/vram0 1000\ndrm/{CARD}/stolen 5\n"));
    machine.write("cgroup/dmem.current", format!("drm/{CARD}/vram0 400\n"));
    machine.write("cgroup/a/dmem.current", format!("drm/{CARD}/vram0 300\n"));
    let (reading, own) = machine.read(&[]);
    let gpu = &reading.gpus[&CARD.into()];
    assert_eq!((gpu.total, gpu.used), (Some(Bytes(1000)), Some(Bytes(400))));
    let mut held = BTreeMap::from([(7, Held::from([(CARD.into(), None)]))]);
    charge(&machine.places(), &[("a".into(), 7), ("b".into(), 8)], &own, &mut held);
    assert_eq!(held, [(7, Held::from([(CARD.into(), Some(Bytes(300)))]))].into());
}

#[test]
fn what_was_read_elsewhere_is_not_read_twice() {
    let machine = Machine::new();
    machine.amd(0, CARD, 1 << 30, 0, 1);
    machine.card(1, "0000:04:00.0", "ast");
    let mut reading = Reading { addresses: [CARD.to_owned()].into(), ..Reading::default() };
    assert!(read(&machine.places(), &[], &mut reading).is_empty() && reading.gpus.is_empty());
}

#[test]
fn figures_that_are_none_are_a_gap() {
    let machine = Machine::new();
    let device = machine.card(0, CARD, "amdgpu");
    machine.write(&format!("{device}/mem_info_vram_total"), "many\n");
    let (reading, _) = machine.read(&[]);
    assert_eq!(reading.gpus[&CARD.into()].total, None);
    assert!(!reading.gpus[&CARD.into()].lost);
    assert_eq!(reading.gaps[0].what, format!("gpu:{CARD}"));
}
