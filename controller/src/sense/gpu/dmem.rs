//! The `dmem` controller (Linux 6.14): device memory by cgroup, charged to whoever allocated it. Only read here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::fdinfo::is_own;

/// Bytes by PCI address, all regions of the GPU's own memory together.
pub(super) type Regions = BTreeMap<String, u64>;

/// Reads `dmem.current` or `dmem.capacity` of a cgroup; empty where there is none.
pub(super) fn regions(dir: &Path, file: &str) -> Regions {
    fs::read_to_string(dir.join(file)).map(|text| parse(&text)).unwrap_or_default()
}

/// Lines such as `drm/0000:03:00.0/vram0 1073741824`.
fn parse(text: &str) -> Regions {
    let mut regions = Regions::new();
    for (key, bytes) in text.lines().filter_map(|line| line.split_once(' ')) {
        let mut parts = key.split('/');
        let (Some("drm"), Some(address), Some(region)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if let (true, Ok(bytes)) = (is_own(region), bytes.trim().parse::<u64>()) {
            let sum = regions.entry(address.to_owned()).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn regions_of_one_gpu_are_one() {
        let text = "drm/0000:03:00.0/vram0 100\ndrm/0000:03:00.0/vram1 20\ndrm/0000:03:00.0/stolen 7\n\
            drm/0000:08:00.0/vram0 max\nsomething/else 5\n";
        assert_eq!(parse(text), [("0000:03:00.0".to_owned(), 120)].into());
    }

    proptest! {
        #[test]
        fn nonsense_is_survived(text in "((drm/)?[0-9:./a-z]{0,20} ?[0-9]{0,25}\n|.{0,40}\n){0,8}") {
            let _ = parse(&text);
        }
    }
}
