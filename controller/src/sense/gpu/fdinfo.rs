//! What a DRM driver says of one open file (`/proc/<pid>/fdinfo/<fd>`, the kernel's drm-usage-stats). Never panics.

use std::collections::BTreeMap;

/// One client of a GPU. The same one can be open under several descriptors and in several processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Client {
    /// PCI address of the GPU.
    pub(super) address: String,
    /// Number of the client, unique on that GPU.
    pub(super) id: u64,
    /// Bytes of the GPU's own memory that it holds.
    pub(super) held: u64,
}

/// What is said of one region of memory.
#[derive(Clone, Copy, Debug, Default)]
struct Region {
    total: Option<u64>,
    resident: Option<u64>,
    memory: Option<u64>,
    purgeable: Option<u64>,
}

impl Region {
    /// What is there and wanted. Older drivers say `memory` for `resident`, and the oldest only what was ever asked for.
    fn held(self) -> u64 {
        let resident = self.resident.or(self.memory).or(self.total).unwrap_or(0);
        resident.saturating_sub(self.purgeable.unwrap_or(0))
    }
}

/// The client that a file's text describes; `None` where it is of no GPU.
pub(super) fn client(text: &str) -> Option<Client> {
    let (mut address, mut id) = (None, None);
    let mut regions = BTreeMap::<&str, Region>::new();
    for (key, value) in text.lines().filter_map(|line| line.strip_prefix("drm-")?.split_once(':')) {
        let value = value.trim();
        match key {
            "pdev" => address = Some(value.to_owned()),
            "client-id" => id = value.parse().ok(),
            _ => note(&mut regions, key, value),
        }
    }
    let own = regions.iter().filter(|(name, _)| is_own(name)).map(|(_, region)| region.held());
    let held = own.fold(0, u64::saturating_add);
    Some(Client { address: address?, id: id?, held })
}

fn note<'a>(regions: &mut BTreeMap<&'a str, Region>, key: &'a str, value: &str) {
    let Some((kind, name)) = key.split_once('-') else { return };
    let Some(bytes) = size(value) else { return };
    let region = regions.entry(name).or_default();
    match kind {
        "total" => region.total = Some(bytes),
        "resident" => region.resident = Some(bytes),
        "memory" => region.memory = Some(bytes),
        "purgeable" => region.purgeable = Some(bytes),
        _ => {
            // `shared` and `active` are parts of the others, `engine` is time.
        }
    }
}

/// amdgpu has `vram`, xe `vram0` and so on, i915 `local0`. The others are host memory.
pub(super) fn is_own(region: &str) -> bool {
    ["vram", "local"].iter().any(|name| {
        region.strip_prefix(name).is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Bytes, with or without a unit.
fn size(value: &str) -> Option<u64> {
    let mut words = value.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    match words.next() {
        None => Some(number),
        Some("KiB") => number.checked_mul(1 << 10),
        Some("MiB") => number.checked_mul(1 << 20),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// amdgpu of 6.12, shortened.
    const AMDGPU: &str = "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t1045\ndrm-driver:\tamdgpu\ndrm-client-id:\t24\n\
        drm-pdev:\t0000:03:00.0\npasid:\t32775\ndrm-total-cpu:\t0\ndrm-shared-cpu:\t0\ndrm-total-gtt:\t2560 KiB\n\
        drm-total-vram:\t96 MiB\ndrm-shared-vram:\t16 MiB\ndrm-resident-vram:\t80 MiB\ndrm-purgeable-vram:\t16 MiB\n\
        drm-memory-vram:\t81920 KiB\ndrm-memory-gtt:\t2560 KiB\ndrm-engine-gfx:\t1023 ns\n";
    const XE: &str = "drm-driver:\txe\ndrm-client-id:\t7\ndrm-pdev:\t0000:08:00.0\ndrm-total-system:\t0\n\
        drm-resident-vram0:\t4096 KiB\ndrm-resident-vram1:\t1 MiB\ndrm-resident-stolen:\t64 MiB\n";

    fn held(text: &str) -> (String, u64, u64) {
        let Client { address, id, held } = client(text).unwrap();
        (address, id, held >> 20)
    }

    #[test]
    fn memory_of_the_gpu_that_is_there_and_wanted() {
        assert_eq!(held(AMDGPU), ("0000:03:00.0".into(), 24, 64));
        assert_eq!(held(XE), ("0000:08:00.0".into(), 7, 5));
    }

    #[test]
    fn older_drivers_know_another_word() {
        let old = "drm-pdev: 0000:03:00.0\ndrm-client-id: 1\ndrm-memory-vram: 2048 KiB\n";
        assert_eq!(held(old).2, 2);
    }

    #[test]
    fn other_files_are_no_clients() {
        assert_eq!(client("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(client("drm-driver:\tvgem\ndrm-client-id:\t3\n"), None);
        assert_eq!(client("drm-pdev:\t0000:03:00.0\ndrm-client-id:\tx\n"), None);
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(text in "(drm-(pdev|client-id|total-vram|resident-vram0|purgeable-vram|x): ?[0-9a-zA-Z: ]{0,30}\n|.{0,40}\n){0,12}") {
            let _ = client(&text);
        }

        #[test]
        fn so_are_large_numbers(a: u64, b: u64) {
            let text = format!("drm-pdev: x\ndrm-client-id: 1\ndrm-total-vram: {a} MiB\ndrm-resident-vram0: {a}\ndrm-resident-vram1: {b}\n");
            prop_assert!(client(&text).is_some());
        }
    }
}
