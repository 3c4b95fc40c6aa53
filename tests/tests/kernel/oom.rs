//! If the race is lost, the kernel kills whom we would have killed, and nothing of that is left behind.

use std::ffi::CString;
use std::fs;
use std::io::Error;

use rustix::process::Signal;

use crate::world::{Daemon, Group, available_mib, has_swap, wait};

const RULES: &str = "
workloads:
  - { name: large, cgroup: t-large, priority: 10 }
  - { name: small, cgroup: t-small, priority: -10 }
  - { name: chat, cgroup: t-chat, priority: 1000 }
";

fn scores(group: &Group) -> Vec<String> {
    let read = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
    group.read("cgroup.procs").lines().map(|pid| read(pid).trim().to_owned()).collect()
}

#[test]
fn every_process_is_told_and_everything_is_put_back() {
    let (large, small, chat) = (Group::new("t-large"), Group::new("t-small"), Group::new("t-chat"));
    let _loads = [large.idle_on(8), small.idle_on(8), chat.idle_on(8)];
    let daemon = Daemon::start(RULES);
    wait("the order is told", || scores(&small).iter().all(|score| score == "900"));
    assert!(scores(&large).iter().all(|score| score == "100"), "{:?}", scores(&large));
    assert!(scores(&chat).iter().all(|score| score == "0"), "{:?}", scores(&chat));
    assert_eq!((small.read("memory.oom.group"), chat.read("memory.oom.group")), ("1".into(), "0".into()));
    let _late = small.workload(&["batch-job", "--idle", "--from-mib", "4", "--to-mib", "4"]);
    wait("one that came later is told", || {
        let scores = scores(&small);
        scores.len() > 1 && scores.iter().all(|score| score == "900")
    });
    // The guardian puts it back where the daemon can't.
    let _dir = daemon.crash();
    wait("all is put back", || {
        let plain = |group: &Group| scores(group).iter().all(|score| score == "0");
        plain(&large) && plain(&small) && small.read("memory.oom.group") == "0"
    });
}

/// The guest's swap area, off until the end of the test. With swap somewhere the kernel goes on taking pages of whoever is in
/// none of the groups, down to the programs themselves, which lie in a tmpfs; until it gives up and kills, a busy host takes minutes.
struct NoSwap(Option<CString>);

impl NoSwap {
    fn begin() -> Self {
        let areas = fs::read_to_string("/proc/swaps").unwrap();
        let area = areas.lines().nth(1).and_then(|line| line.split_whitespace().next());
        let area = area.map(|path| CString::new(path).unwrap());
        if let Some(path) = &area {
            // SAFETY: the path is a NUL-terminated string that outlives the call.
            let result = unsafe { libc::swapoff(path.as_ptr()) };
            assert_eq!(result, 0, "{}", Error::last_os_error());
        }
        assert!(!has_swap());
        Self(area)
    }
}

impl Drop for NoSwap {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // SAFETY: as above. Where it fails, the tests that need swap say that there is none.
            unsafe { libc::swapon(path.as_ptr(), 0) };
        }
    }
}

/// By size alone the kernel would take the large one. Whom it takes does not depend on swap.
#[test]
fn the_kernel_takes_the_one_that_matters_less() {
    let _no_swap = NoSwap::begin();
    let (large, small) = (Group::new("t-large"), Group::new("t-small"));
    let room = available_mib();
    let _small = small.idle_on(room / 4);
    let _large = large.idle_on(room / 2);
    let daemon = Daemon::start(RULES);
    wait("the order is told", || scores(&small).iter().all(|score| score == "900"));
    // The race is lost: the daemon does not get to run while somebody whom nobody manages wants more than there is, and less than
    // there is without the small one. So nobody else has to go, however late we look.
    daemon.signal(Signal::STOP);
    let filler = Group::new("t-filler");
    let _filler = filler.idle_on(available_mib() + room / 8);
    assert!(!small.is_populated(), "{}", daemon.log());
    assert_eq!(large.event("memory.events", "oom_kill"), 0, "{}", daemon.log());
    drop(filler);
    daemon.signal(Signal::CONT);
    let (code, log) = daemon.finish();
    assert_eq!(code, Some(0), "{log}");
}
