//! Cgroups that vanish and come back under the same name.

use std::fs;
use std::sync::Arc;

use plimsoll::act::mail::{End, Message, mail};
use plimsoll::act::react::{Look, Order, Reaction};
use plimsoll::act::worker::{Job, Workers};
use plimsoll::ledger::Ledger;
use plimsoll::sense::cgroup::{Cgroup, FileError};
use plimsoll_policy::plan::Act;
use plimsoll_policy::units::{Bytes, Span};

use crate::world::{Group, wait};

#[test]
fn two_workloads_of_one_path_are_told_apart_by_inode() {
    let root = std::path::Path::new("/sys/fs/cgroup");
    let first = Group::new("t-same");
    let old = Cgroup::open(root, "t-same").unwrap();
    assert_eq!(old.id.inode, first.inode());
    drop(first);
    let second = Group::new("t-same");
    let new = Cgroup::open(root, "t-same").unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(old.current(), Err(FileError::Gone), "held descriptors never reach the new one");
    assert_eq!(old.freeze(), Err(FileError::Gone));
    assert!(!second.is_frozen());
    assert!(new.current().is_ok());
}

#[test]
fn a_workload_that_vanishes_mid_action_is_gone() {
    let group = Group::new("t-gone");
    let mut child = group.idle_on(20);
    let dir = tempfile::tempdir_in("/run").unwrap();
    let ledger = Arc::new(Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap());
    let cgroup = Arc::new(Cgroup::open(std::path::Path::new("/sys/fs/cgroup"), "t-gone").unwrap());
    let slot = ledger.claim(&cgroup.id).unwrap();
    let (mail, inbox) = mail().unwrap();
    let workers = Workers::start(&mail, &ledger).unwrap();
    let reaction = Reaction::start(mail, workers.jobs(), Arc::clone(&ledger), None).unwrap();
    assert!(reaction.order(Order::Watch { cgroup: Arc::clone(&cgroup), slot, psi: None }));
    child.kill().unwrap();
    child.wait().unwrap();
    wait("the cgroup can be removed", || fs::remove_dir(&group.path).is_ok());
    let look = Look { enough: None, deadline: Span::millis(500) };
    assert!(reaction.order(Order::Freeze(cgroup.id.inode, look)));
    assert!(reaction.order(Order::Kill(cgroup.id.inode, look)));
    assert!(workers.submit(Job::Reclaim { cgroup: Arc::clone(&cgroup), budget: Bytes::mib(1) }));
    let mut ends = Vec::new();
    wait("three ends", || {
        ends.extend(inbox.drain().into_iter().filter_map(|message| match message {
            Message::Ended(ended) => Some((ended.act.name(), ended.end)),
            _ => None,
        }));
        ends.len() >= 3
    });
    for act in [Act::Freeze, Act::Kill, Act::Reclaim(Bytes::ZERO)] {
        assert!(ends.contains(&(act.name(), End::Gone)), "{}: {ends:?}", act.name());
    }
    assert_eq!(ledger.entries().count(), 0, "nothing is written down of what is gone");
    reaction.stop();
    workers.stop();
}

/// A second look before what can't be undone: enough is available by now, so nobody is touched.
#[test]
fn a_second_look_withdraws_freeze_and_kill() {
    let group = Group::new("t-look");
    let mut child = group.idle_on(20);
    let dir = tempfile::tempdir_in("/run").unwrap();
    let ledger = Arc::new(Ledger::own(dir.path(), "/sys/fs/cgroup").unwrap());
    let cgroup = Arc::new(Cgroup::open(std::path::Path::new("/sys/fs/cgroup"), "t-look").unwrap());
    let slot = ledger.claim(&cgroup.id).unwrap();
    let (mail, inbox) = mail().unwrap();
    let workers = Workers::start(&mail, &ledger).unwrap();
    let reaction = Reaction::start(mail, workers.jobs(), Arc::clone(&ledger), None).unwrap();
    reaction.order(Order::Watch { cgroup: Arc::clone(&cgroup), slot, psi: None });
    let enough = Look { enough: Some(Bytes::mib(1)), deadline: Span::millis(500) };
    reaction.order(Order::Freeze(cgroup.id.inode, enough));
    reaction.order(Order::Kill(cgroup.id.inode, enough));
    let mut ends = Vec::new();
    wait("two ends", || {
        ends.extend(inbox.drain().into_iter().filter_map(|message| match message {
            Message::Ended(ended) => Some(ended.end),
            _ => None,
        }));
        ends.len() >= 2
    });
    assert_eq!(ends, [End::Withdrawn, End::Withdrawn]);
    assert!(!group.is_frozen() && child.try_wait().unwrap().is_none());
    reaction.stop();
    workers.stop();
}
