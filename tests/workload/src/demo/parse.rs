//! Numbers out of kernel text. What is not there is `None`, never zero.

/// A number alone in its file; `max` is none.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number after `key` at the start of a line: `memory.stat`, `cgroup.events`, `/proc/vmstat`, `/proc/meminfo`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?.trim_start_matches(':').split_ascii_whitespace().next()?.parse().ok()
    })
}

/// The sum of all lines whose key begins with `prefix`.
pub(super) fn sum(text: &str, prefix: &str) -> Option<u64> {
    text.lines()
        .filter(|line| line.starts_with(prefix))
        .filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .reduce(u64::saturating_add)
}

/// `total=` of the line of a PSI file that begins with `kind`.
pub(super) fn psi_total(text: &str, kind: &str) -> Option<u64> {
    text.lines().find(|line| line.starts_with(kind))?.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{keyed, number, psi_total, sum};

    #[test]
    fn finds_numbers_and_misses_nothing() {
        assert_eq!((number("4096\n"), number("max\n"), number("")), (Some(4096), None, None));
        let meminfo = "MemTotal:        1000 kB\nMemFree:           24 kB\n";
        assert_eq!((keyed(meminfo, "MemFree"), keyed(meminfo, "SwapFree")), (Some(24), None));
        assert_eq!(keyed("populated 1\nfrozen 0\n", "frozen"), Some(0));
        let vmstat = "allocstall_dma 1\nallocstall_normal 2\noom_kill 3\n";
        assert_eq!((sum(vmstat, "allocstall_"), sum(vmstat, "nothing")), (Some(3), None));
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(
            (psi_total(psi, "some"), psi_total(psi, "full"), psi_total("", "full")),
            (Some(77), Some(5), None)
        );
    }
}
