//! What the events of the eBPF ring buffer mean for the reaction thread.

use plimsoll_ebpf::{Event, Kind};
use plimsoll_policy::sample::Trigger;
use plimsoll_policy::units::Monotonic;

use super::mail::Message;

/// The message that an event becomes; none for kinds that a newer object may know.
pub(super) fn message(event: &Event) -> Option<Message> {
    Some(match Kind::try_from(event.kind).ok()? {
        Kind::DirectReclaim | Kind::MemcgReclaim | Kind::Stall | Kind::KswapdWake => {
            Message::Woke(Trigger::Probe)
        }
        Kind::OomVictim => Message::OomVictim { pid: event.tgid, cgroup: event.cgroup },
        // Said by the reaction thread, which knows whether it is a standing target.
        Kind::GateStop => return None,
    })
}

/// The cgroup whose thread the gate stopped, and when.
pub(super) fn stopped(event: &Event) -> Option<(u64, Monotonic)> {
    (Kind::try_from(event.kind) == Ok(Kind::GateStop)).then_some((event.cgroup, Monotonic(event.time_ns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_passed_over() {
        assert_eq!(message(&Event { kind: 99, ..Event::default() }), None);
        let stop = Event { kind: Kind::GateStop as u32, cgroup: 7, ..Event::default() };
        assert_eq!(stopped(&stop), Some((7, Monotonic(0))));
    }
}
