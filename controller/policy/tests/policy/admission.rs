//! What holds of admission whatever is asked, by whom and in which order.

use std::collections::BTreeSet;

use plimsoll_policy::admission::{Call, Reply, Request, Reservation};
use plimsoll_policy::config::Config;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::sample::{Meminfo, MemoryStat, Sample, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Share, Span};
use proptest::prelude::*;

use crate::arbitrary::{calls, id};
use crate::properties::{fixed, through_json};

const TOTAL: Bytes = Bytes::mib(16 << 10);

/// What happens between two passes: requests, a workload's growth in MiB, and time in milliseconds.
type Step = (Vec<Request>, WorkloadId, u64, u64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let requests = prop::collection::vec(calls(Bytes::mib(8 << 10)), 0..5);
    prop::collection::vec((requests, id(), 0_u64..400, 1_u64..40_000), 1..40)
}

/// Plays the steps on a machine of which workloads take what they grow by; tickets rise as the daemon's do.
fn play(steps: &[Step], mut look: impl FnMut(&Sample, &Pass)) -> (Sample, State) {
    let (config, mut state, mut sample, mut ticket) = (Config::default(), State::default(), machine(), 0);
    for (requests, grows, mib, ms) in steps {
        sample.at = sample.at + Span::millis(*ms);
        sample.requests.clone_from(requests);
        for request in &mut sample.requests {
            ticket += 1;
            request.ticket = ticket;
        }
        grow(&mut sample, grows, Bytes::mib(*mib));
        let pass = step(&config, through_json(&state), &sample);
        assert_eq!(pass, step(&config, state, &sample), "the same, bit for bit");
        look(&sample, &pass);
        state = pass.state;
    }
    (sample, state)
}

fn machine() -> Sample {
    let mut sample = Sample { at: Monotonic(1), ..Sample::default() };
    sample.host.meminfo = Some(Meminfo { total: TOTAL, free: TOTAL, available: TOTAL, ..Meminfo::default() });
    for inode in 0..4 {
        let stat = Some(MemoryStat::default());
        let workload =
            Workload { current: Some(Bytes::ZERO), stat, populated: Some(true), ..Workload::default() };
        sample.workloads.insert(WorkloadId { path: format!("w{}", inode % 3).into(), inode }, workload);
    }
    sample
}

fn grow(sample: &mut Sample, id: &WorkloadId, by: Bytes) {
    let Some(meminfo) = &mut sample.host.meminfo else { return };
    let by = by.min(meminfo.available);
    meminfo.available = meminfo.available.saturating_sub(by);
    meminfo.free = meminfo.available;
    if let Some(Workload { current: Some(current), stat: Some(stat), .. }) = sample.workloads.get_mut(id) {
        (*current, stat.anon) = (*current + by, stat.anon + by);
    }
}

fn reserved(reservations: &[Reservation]) -> Bytes {
    reservations.iter().map(Reservation::unsettled).sum()
}

proptest! {
    #![proptest_config(fixed(150))]

    /// In a pass that grants, everything promised and the margin fit into what there is.
    #[test]
    fn nothing_is_promised_twice(steps in steps()) {
        play(&steps, |_, Pass { plan, assessment, .. }| {
            let granted = plan.answers.iter().any(|a| matches!(a.reply, Reply::Granted { promised, .. } if promised > Bytes::ZERO));
            let margin = TOTAL.share(Share::percent(9));
            let headroom = assessment.headroom.unwrap_or_default();
            assert!(!granted || reserved(&plan.reservations) + margin <= headroom, "{plan:?}");
        });
    }

    /// Each call is answered once, at once or when its wait is over.
    #[test]
    fn everybody_is_answered_once(steps in steps()) {
        let (mut open, mut withdrawn) = (BTreeSet::new(), BTreeSet::new());
        play(&steps, |sample, Pass { plan, .. }| {
            for Request { ticket, call, .. } in &sample.requests {
                open.insert(*ticket);
                if let Call::Withdraw { ticket } = call {
                    withdrawn.insert(*ticket);
                }
            }
            for answer in &plan.answers {
                assert!(open.remove(&answer.ticket), "answered again or without being asked: {answer:?}");
            }
            let waiting: BTreeSet<u64> = plan.waiting.iter().map(|w| w.ticket).collect();
            open.retain(|ticket| !withdrawn.contains(ticket));
            assert!(open.is_subset(&waiting), "{open:?} are neither answered nor waiting");
        });
    }

    /// What a holder grew by is no longer promised, and nothing is ever settled beyond its promise.
    #[test]
    fn growth_settles_and_never_unsettles(steps in steps()) {
        let mut former: Vec<Reservation> = Vec::new();
        play(&steps, |_, Pass { plan, .. }| {
            for now in &plan.reservations {
                let before = former.iter().find(|r| r.id == now.id).map_or(Bytes::ZERO, |r| r.settled);
                assert!(now.settled >= before, "{now:?}");
            }
            former.clone_from(&plan.reservations);
        });
    }

    /// When nobody asks any more and nothing grows, nothing is held after the longest time to live and the time to load.
    #[test]
    fn everything_ends(steps in steps()) {
        let (mut sample, mut state) = play(&steps, |_, _| {});
        sample.requests.clear();
        for _ in 0..3 {
            sample.at = sample.at + Span::secs(3700);
            state = step(&Config::default(), state, &sample).state;
        }
        prop_assert_eq!(state.admission.reserved(), Bytes::ZERO);
        prop_assert!(state.admission.waiting.is_empty());
    }
}
