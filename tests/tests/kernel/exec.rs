//! `plimsoll exec`: a model server in a cgroup of its own, found by the daemon, tidied up after its end.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use plimsoll_tests::guest;

use crate::world::{Daemon, get, wait};

const MODELS: &str = "/sys/fs/cgroup/plimsoll.slice/models";

fn exec(name: &str) -> Child {
    Command::new(guest::plimsoll())
        .args(["exec", "--name", name, "--priority", "7", "--"])
        .arg(guest::workload())
        .args(["batch-job", "--idle", "--from-mib", "20", "--to-mib", "20"])
        .spawn()
        .unwrap()
}

#[test]
fn what_exec_starts_is_a_workload_until_it_ends() {
    let mut child = exec("t-model");
    let group = Path::new(MODELS).join("t-model");
    let current = || fs::read_to_string(group.join("memory.current")).unwrap_or_default();
    wait("its memory is charged to its own cgroup", || {
        current().trim().parse::<u64>().is_ok_and(|bytes| bytes >= 20 << 20)
    });
    assert_eq!(fs::read_to_string(group.join("cgroup.procs")).unwrap().trim(), child.id().to_string());
    assert_eq!(fs::read_to_string(group.join("memory.oom.group")).unwrap().trim(), "1");

    let daemon = Daemon::start("");
    wait("the daemon knows it", || {
        let status = get("/status").unwrap_or_default();
        status.contains("t-model") && status.contains("\"priority\":7")
    });
    let twin = exec("t-model").wait_with_output().unwrap();
    assert_eq!(twin.status.code(), Some(1), "a second one of that name is refused");

    child.kill().unwrap();
    child.wait().unwrap();
    wait("its empty cgroup is removed", || !group.exists());
    drop(daemon);
    for path in [MODELS, "/sys/fs/cgroup/plimsoll.slice"] {
        fs::remove_dir(path).unwrap();
    }
}
