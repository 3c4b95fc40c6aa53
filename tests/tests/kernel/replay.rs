//! The journal of a daemon under real pressure: it is decided again without a difference, and its actions are explained.

use std::process::{Command, Output};

use plimsoll_tests::guest;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::world::{Daemon, Group, available_mib, get, has_swap, wait};

const RULES: &str = "
workloads:
  - { name: chat, cgroup: t-chat, priority: 1000 }
  - { name: batch, cgroup: t-batch, priority: -10 }
";

fn plimsoll(arguments: &[&str]) -> Output {
    Command::new(guest::plimsoll()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Stops the daemon and decides its journal again, which it gives.
fn replayed(daemon: &mut Daemon) -> String {
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    let journal = daemon.journal_path();
    let output = plimsoll(&["replay", &journal]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("no differences\n") && said.lines().count() == 1, "{said}");
    println!("{said}");
    journal
}

/// The same, and explains the last action to this rung.
fn explained(daemon: &mut Daemon, rung: &str) -> String {
    let journal = replayed(daemon);
    let events = text(&plimsoll(&["events", "--journal", &journal]).stdout);
    let line = events.lines().rfind(|line| line.contains(&format!("  {rung}  ")));
    let id = line.unwrap_or_else(|| panic!("no {rung} in\n{events}")).split_whitespace().nth(1).unwrap();
    let output = plimsoll(&["explain", id, "--journal", &journal]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    println!("{events}{told}");
    assert!(told.starts_with(&format!("action {id}: {rung} of batch (t-batch#")), "{told}");
    assert!(told.contains("  because   "), "{told}");
    told
}

/// A hog that is frozen by the plan, or by the gate.
#[test]
fn a_freeze_is_decided_again_and_explained() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let _protected = chat.idle_on(100);
    let mut daemon = Daemon::start(&format!("ladder: {{ rungs: [trim, freeze, kill] }}{RULES}"));
    let to = (available_mib() + 200).to_string();
    let hog = batch.workload(&["batch-job", "--to-mib", &to, "--rate-mib", "200"]);
    wait("the hog is frozen", || batch.is_frozen());
    wait("that is on the record", || daemon.saw("freeze", "done"));
    // With nobody to hold it, it would fill the machine while the daemon ends.
    drop(hog);
    let told = explained(&mut daemon, "freeze");
    // The gate may have been there before the plan, and both are on the record.
    let frozen = told.lines().any(|line| line.contains("freeze") && line.contains("done"));
    assert!(frozen, "{told}");
}

/// A killed one, with what that freed. With swap the kernel finds room for both: pressure and a replay are all that is left then.
#[test]
fn a_kill_is_decided_again_and_explained() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let held = (available_mib() - 100) / 2;
    let _low = batch.idle_on(held);
    let mut daemon = Daemon::start(&format!("ladder: {{ rungs: [kill] }}{RULES}"));
    let to = (held + 160).to_string();
    let high = chat.workload(&["batch-job", "--idle", "--to-mib", &to, "--rate-mib", "100"]);
    if has_swap() {
        wait("memory is short", || daemon.tiers().iter().any(|tier| tier == "critical"));
        drop(high);
        replayed(&mut daemon);
        return;
    }
    wait("the low one was killed", || daemon.saw("kill", "done"));
    let told = explained(&mut daemon, "kill");
    assert!(told.contains("kill: done, freed "), "{told}");
}

/// A file system without room costs lines and nothing else; when there is room again the journal goes on, and from its next
/// keyframe on it can be decided again.
#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let (chat, batch) = (Group::new("t-chat"), Group::new("t-batch"));
    let (_protected, _other) = (chat.idle_on(60), batch.idle_on(20));
    let dir = tempfile::tempdir_in("/run").unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    mount("tmpfs", &small, "tmpfs", MountFlags::empty(), c"size=64k").unwrap();
    std::os::unix::fs::symlink(small.join("journal.jsonl"), dir.path().join("journal.jsonl")).unwrap();
    let mut daemon = Daemon::start_in(dir, RULES);
    let count = |result: &str| {
        let metrics = get("/metrics").unwrap();
        let name = format!("plimsoll_journal_lines_total{{result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    };
    wait("lines are dropped", || count("dropped") > 5);
    assert!(get("/readyz").unwrap().starts_with("HTTP/1.1 200"), "passes go on");
    assert!(daemon.journal().iter().all(|line| line["plan"].is_object()), "what is there is whole");
    mount_remount(&small, MountFlags::empty(), c"size=64m").unwrap();
    let before = count("written");
    wait("lines are written again", || count("written") > before + 5);
    assert_eq!(daemon.stop(), Some(0));
    let output = plimsoll(&["replay", &daemon.journal_path()]);
    let said = text(&output.stdout) + &text(&output.stderr);
    unmount(&small, UnmountFlags::DETACH).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("no differences\n") && !said.contains("can't be read"), "{said}");
    let log = daemon.log();
    let once = |what: &str| log.matches(what).count() == 1;
    assert!(once("the journal can't be written") && once("the journal is written again"), "{log}");
}
