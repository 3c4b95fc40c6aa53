//! The guest itself: without these, no other test means anything.
use std::fs;
use std::process::Command;

use plimsoll_tests::guest;

#[test]
fn has_the_memory_controller_of_cgroup_v2() {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control").unwrap();
    assert!(controllers.split_whitespace().any(|name| name == "memory"), "{controllers}");
}

#[test]
fn has_psi_of_host_and_cgroup() {
    let host = fs::read_to_string("/proc/pressure/memory").unwrap();
    assert!(host.starts_with("some avg10="), "{host}");
    let group = "/sys/fs/cgroup/psi";
    fs::create_dir(group).unwrap();
    assert!(fs::read_to_string(format!("{group}/memory.pressure")).unwrap().contains("full avg10="));
    fs::remove_dir(group).unwrap();
}

#[test]
fn has_types_of_the_kernel_for_ebpf() {
    assert!(fs::metadata("/sys/kernel/btf/vmlinux").unwrap().len() > 1 << 20);
}

#[test]
fn has_the_programs_under_test() {
    for program in [guest::plimsoll(), guest::workload()] {
        let output = Command::new(&program).arg("--help").output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", program.display());
    }
}
