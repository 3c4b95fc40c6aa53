//! Clients that mean harm, or are broken: they are cut off, and nobody else notices.

use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};

use super::programs::until;
use super::sessions::Offered;
use super::*;

/// Every kind of call, each of them right.
fn calls() -> Vec<Value> {
    let control = |method: &str, parameters: Value| json!({ "method": format!("dev.plimsoll.Control.{method}"), "parameters": parameters });
    let offer =
        json!({ "level": "gc", "gains": { "host": -5, "gpus": { "GPU-a": 7 } }, "takesMilliseconds": 9 });
    vec![
        json!({ "method": "org.varlink.service.GetInfo" }),
        control("Register", json!({ "offers": [offer], "gated": true })),
        control(
            "Reserve",
            json!({ "sizes": [GIB, 1], "gpus": { "any": 5 }, "waitSeconds": 0, "ttlSeconds": 9 }),
        ),
        control("Inflight", json!({ "session": 1, "requests": 3 })),
        control(
            "Acknowledge",
            json!({ "session": 1, "request": 1, "outcome": "done", "freed": { "host": 1 } }),
        ),
        control(
            "ReportCudaError",
            json!({ "error": "x", "outOfMemory": true, "device": "GPU-a", "strikes": 2 }),
        ),
        control("Self", json!({})),
        json!({ "method": "dev.plimsoll.Operator.Status", "parameters": { "workload": "chat" } }),
        json!({ "method": "dev.plimsoll.Control.Subscribe", "more": true }),
    ]
}

fn bytes(call: &Value) -> Vec<u8> {
    (call.to_string() + "\0").into_bytes()
}

/// Nothing of anybody is left.
fn is_empty(desk: &Desk16) -> bool {
    let zero = |count: &AtomicU64| count.load(Ordering::Relaxed) == 0;
    let Counts { clients, sessions, streams, .. } = &*desk.counts;
    zero(clients) && zero(sessions) && zero(streams) && desk.sessions.count(&desk.id()) == 0
}

/// Small and the same every time: what is found once is found again.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }

    /// The same with a few bytes changed, left out, doubled or put in.
    fn spoil(&mut self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len().max(1)).min(text.len().saturating_sub(1));
            match self.below(5) {
                _ if text.is_empty() => return text,
                0 => text[at] = u8::try_from(self.below(256)).unwrap(),
                1 => drop(text.remove(at)),
                2 => text.truncate(at),
                3 => text.extend_from_within(at..),
                _ => text.insert(at, b"{}[],:\"\\0-"[self.below(10)]),
            }
        }
        text
    }
}

#[test]
fn what_makes_no_sense_harms_nobody() {
    let desk = Desk16::start();
    let mut random = Random(1);
    for round in 0..1500 {
        let calls = calls();
        let text = random.spoil(&bytes(&calls[round % calls.len()]));
        let mut client = desk.client();
        // It may have been cut off in the middle.
        let _ = client.0.write_all(&text);
        if random.below(2) == 0 {
            let _ = client.0.shutdown(Shutdown::Write);
            client.0.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            let mut answer = [0; 4096];
            let _ = client.0.read(&mut answer);
        }
    }
    until("they are gone", || is_empty(&desk));
    assert!(desk.client().reserve(&[GIB])["parameters"]["id"].is_number());
}

#[test]
fn whoever_leaves_in_the_middle_leaves_nothing() {
    let desk = Desk16::start();
    let dialog: Vec<u8> = calls().iter().flat_map(bytes).collect();
    for end in (0..dialog.len()).step_by(7) {
        let mut client = desk.client();
        let _ = client.0.write_all(&dialog[..end]);
    }
    let mut patient = desk.client();
    patient.0.write_all(&dialog).unwrap();
    // With a byte at a time it is still understood.
    let mut slow = desk.client();
    for byte in bytes(&calls()[6]) {
        slow.0.write_all(&[byte]).unwrap();
    }
    assert_eq!(slow.receive().unwrap()["parameters"]["workload"], "chat");
    drop((patient, slow));
    until("they are gone", || is_empty(&desk));
}

#[test]
fn there_are_so_many_programs_and_not_more() {
    let sessions: Arc<Sessions> = Arc::default();
    let id = WorkloadId { path: "m".into(), inode: 1 };
    let open = |user| sessions.open(&id, user, Offered::default());
    let of_user = (0..1000).filter(|_| open(1000).is_ok()).count();
    let of_root = (0..1000).filter(|_| open(0).is_ok()).count();
    assert_eq!((of_user, of_root), (64, 192));
    assert!(open(0).unwrap_err().to_string().starts_with("there are 256 programs"), "{:?}", open(0));
    (0..=1000).for_each(|session| sessions.close(session));
    assert!(open(1000).is_ok());
}

#[test]
fn the_hostile_are_cut_off_and_the_others_served() {
    let desk = Desk16::start();
    // A message without an end, garbage, and calls whose answers nobody reads.
    let mut endless = desk.client();
    let sent = (0..64).all(|_| endless.0.write_all(&[b' '; 1024]).is_ok());
    assert!(!sent || endless.receive().is_none());
    for garbage in ["hello\0", "{}\0", "[]\0", "\0", "{\"method\":5}\0", "\u{1}\0\0\0"] {
        let mut client = desk.client();
        client.0.write_all(garbage.as_bytes()).unwrap();
        assert_eq!(client.receive(), None, "{garbage:?}");
    }
    let deep = "[".repeat(10_000) + "\0";
    let mut client = desk.client();
    client.0.write_all(deep.as_bytes()).unwrap();
    assert_eq!(client.receive(), None);
    let mut deaf = desk.client();
    let call = b"{\"method\":\"org.varlink.service.GetInfo\"}\0".repeat(300);
    while deaf.0.write_all(&call).is_ok() {}
    let mut all: Vec<Client> = (0..600).map(|_| desk.client()).collect();
    let mut served = 0;
    for client in &mut all {
        let message = json!({ "method": "org.varlink.service.GetInfo" }).to_string() + "\0";
        if client.0.write_all(message.as_bytes()).is_ok() && client.receive().is_some() {
            served += 1;
        }
    }
    assert!((480..=512).contains(&served), "{served} of 600 clients were let in");
    assert!(desk.counts.turned_away.load(Ordering::Relaxed) >= 80);
    drop((all, deaf, endless));
    until("they are gone", || is_empty(&desk));
    assert!(desk.client().reserve(&[GIB])["parameters"]["id"].is_number());
}
