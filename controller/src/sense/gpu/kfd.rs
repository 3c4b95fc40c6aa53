//! AMD's compute driver in sysfs: what each process holds of each GPU, by pids of the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const KFD: &str = "class/kfd/kfd";

/// One GPU of the driver's topology.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    address: String,
    /// Processor cores are on the same chip, behind the same memory.
    with_cores: bool,
}

/// What processes hold, and which GPUs are part of a processor.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kfd {
    /// Pid, PCI address, bytes.
    pub(super) held: Vec<(u32, String, u64)>,
    /// PCI addresses.
    pub(super) with_cores: Vec<String>,
}

/// Reads it; empty where the driver is not there.
pub(super) fn read(sys: &Path) -> Kfd {
    let nodes = nodes(&sys.join(KFD).join("topology/nodes"));
    let with_cores = nodes.values().filter(|node| node.with_cores).map(|node| node.address.clone()).collect();
    let mut held = Vec::new();
    for process in fs::read_dir(sys.join(KFD).join("proc")).into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for (id, node) in &nodes {
            let bytes = number(&process.path().join(format!("vram_{id}")));
            held.extend(bytes.filter(|bytes| *bytes > 0).map(|bytes| (pid, node.address.clone(), bytes)));
        }
    }
    Kfd { held, with_cores }
}

fn nodes(dir: &Path) -> BTreeMap<u64, Node> {
    let dirs = fs::read_dir(dir).into_iter().flatten().flatten();
    dirs.filter_map(|entry| {
        // Processors are nodes too, with the id 0.
        let id = number(&entry.path().join("gpu_id")).filter(|id| *id != 0)?;
        Some((id, node(&fs::read_to_string(entry.path().join("properties")).ok()?)?))
    })
    .collect()
}

/// `location_id` holds bus, device and function as PCI has them.
fn node(properties: &str) -> Option<Node> {
    let value = |key: &str| -> Option<u64> {
        properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    };
    let at = value("location_id")?;
    let (bus, device, function) = (at >> 8 & 0xff, at >> 3 & 0x1f, at & 7);
    let address = format!("{:04x}:{bus:02x}:{device:02x}.{function}", value("domain").unwrap_or(0));
    Some(Node { address, with_cores: value("cpu_cores_count").is_some_and(|cores| cores > 0) })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_in_the_topology_is_a_pci_address() {
        let text = "cpu_cores_count 0\nsimd_count 384\ndomain 0\nlocation_id 768\ndrm_render_minor 128\n";
        assert_eq!(node(text), Some(Node { address: "0000:03:00.0".into(), with_cores: false }));
        let text = "cpu_cores_count 16\nsimd_count 80\nlocation_id 49408\n";
        assert_eq!(node(text), Some(Node { address: "0000:c1:00.0".into(), with_cores: true }));
        assert_eq!(node("simd_count 3\n"), None);
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(text in "((location_id|domain|cpu_cores_count) ?[0-9-]{0,25}\n|.{0,40}\n){0,8}") {
            let _ = node(&text);
        }
    }
}
