//! What arrives at a real socket, and when.

use std::time::Duration;

use super::*;

const PID: u32 = 42;

/// The other end, and who talks to it. `None`: no watchdog.
fn listened(name: &str, watchdog: Option<(&str, &str)>) -> (UnixDatagram, Supervisor) {
    let name = format!("plimsoll-test-{name}-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let ear = UnixDatagram::bind_addr(&address).unwrap();
    ear.set_nonblocking(true).unwrap();
    let variable = |asked: &str| match asked {
        "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
        "WATCHDOG_USEC" => watchdog.map(|(usec, _)| usec.into()),
        "WATCHDOG_PID" => watchdog.map(|(_, pid)| pid.into()),
        _ => None,
    };
    let supervisor = Supervisor::new(variable, PID);
    (ear, supervisor)
}

fn heard(ear: &UnixDatagram) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(length) = ear.recv(&mut buffer) {
        all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    all
}

fn pass(at_ms: u64) -> Passed {
    Passed {
        at: Monotonic(at_ms * 1_000_000),
        next: Duration::from_millis(500),
        saw: true,
        tier: Tier::Normal,
        workloads: 3,
    }
}

const BLIND: Passed = Passed {
    at: Monotonic(0),
    next: Duration::from_millis(500),
    saw: false,
    tier: Tier::Normal,
    workloads: 0,
};

#[test]
fn ready_is_said_once_and_only_by_a_pass_that_saw_the_memory() {
    let (ear, mut supervisor) = listened("ready", None);
    supervisor.passed(&BLIND);
    assert!(heard(&ear).is_empty());
    supervisor.passed(&pass(1));
    assert_eq!(heard(&ear), ["READY=1\nWATCHDOG=1", "STATUS=tier normal, 3 workloads"]);
    supervisor.passed(&pass(60_000));
    assert!(heard(&ear).is_empty(), "nobody asked for signs of life");
    supervisor.passed(&Passed { tier: Tier::Critical, ..pass(60_001) });
    assert_eq!(heard(&ear), ["STATUS=tier critical, 3 workloads"]);
    supervisor.stopping();
    assert!(heard(&ear)[0].starts_with("STOPPING=1"));
}

#[test]
fn signs_of_life_come_from_passes_that_got_somewhere() {
    let (ear, mut supervisor) = listened("alive", Some(("10000000", "42")));
    supervisor.passed(&pass(0));
    heard(&ear);
    for at in [500, 1000, 2000] {
        supervisor.passed(&pass(at));
    }
    assert!(heard(&ear).is_empty(), "not at every pass");
    supervisor.passed(&pass(2500));
    assert_eq!(heard(&ear), ["WATCHDOG=1"]);
    supervisor.passed(&Passed { saw: false, ..pass(9000) });
    assert!(heard(&ear).is_empty(), "a pass that sees nothing is no sign of life");
}

#[test]
fn a_watchdog_that_was_set_for_another_process_is_not_ours() {
    let (ear, mut supervisor) = listened("other", Some(("10000000", "41")));
    supervisor.passed(&pass(0));
    heard(&ear);
    supervisor.passed(&pass(9000));
    assert!(heard(&ear).is_empty());
}

#[test]
fn whoever_does_not_listen_delays_nothing_and_is_told_later() {
    let (ear, mut supervisor) = listened("deaf", None);
    // The queue of a datagram socket takes `net.unix.max_dgram_qlen` messages.
    for at in 0..1000 {
        let workloads = usize::try_from(at).unwrap();
        supervisor.passed(&Passed { workloads, ..pass(at) });
    }
    let early = heard(&ear).len();
    assert!(early < 1000, "{early} messages were queued");
    supervisor.passed(&Passed { workloads: 999, ..pass(2000) });
    assert_eq!(heard(&ear), ["STATUS=tier normal, 999 workloads"]);
}

#[test]
fn without_a_supervisor_nobody_is_told() {
    let mut supervisor = Supervisor::new(|_| None, PID);
    supervisor.passed(&pass(0));
    supervisor.stopping();
    let unknown = Supervisor::new(|_| Some("vsock:2:1234".into()), PID);
    assert!(unknown.link.is_none());
}
