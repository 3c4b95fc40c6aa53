//! What people read: every refusal, every word of a metric, every unit.

use plimsoll_policy::admission::{Reason, Refusal as NoRoom};
use plimsoll_policy::plan::{Act, Evidence, Expected, Refusal, Refused, Tier};
use plimsoll_policy::sample::{Probes, Rung, WorkloadId};
use plimsoll_policy::units::{Bytes, Limit, Monotonic, Span};

#[test]
fn every_refusal_of_an_alternative_says_why() {
    let now = Monotonic(10_000_000_000);
    let said = |why| {
        let workload = WorkloadId { path: "a/b".into(), inode: 7 };
        Refused { workload, rung: Rung::Freeze, why }.at(now).to_string()
    };
    let (yields, needed) = (Bytes::mib(1), Bytes::mib(9));
    let check = |why, expected: &str| assert_eq!(said(why), format!("freeze of a/b#7: {expected}"));
    check(Refusal::TooLittle { yields, needed }, "yields 1MiB of the 9MiB needed");
    check(Refusal::TooSlow { takes: Span::secs(3), left: Span::secs(1) }, "takes 3.0s, 1.0s left");
    check(Refusal::Nothing, "nothing to free or stop");
    check(Refusal::NotAllowed, "not allowed by its rungs");
    check(Refusal::Spent { brakes: 12 }, "its 12 brakes of the hour are used up");
    check(Refusal::Futile { until: now + Span::secs(4) }, "futile for another 4.0s");
    check(Refusal::Spills { growth: Bytes::mib(80) }, "would go on growing into swap by 80MiB/s");
    check(Refusal::Tier { tier: Tier::Elevated }, "the tier is only elevated");
    check(Refusal::Gives { rung: Rung::Trim }, "gives what it can on trim already");
    check(Refusal::Undying, "was killed and did not die in time");
    check(Refusal::Omit, "omit: never touched");
    check(Refusal::Protected, "protected by its priority");
    check(Refusal::Unreadable, "its memory could not be read");
}

#[test]
fn what_is_expected_says_on_what_it_rests() {
    let said = |bytes, growth, observations| {
        Expected { bytes, growth, takes: Span::millis(200), observations }.to_string()
    };
    let (some, none) = (Bytes::mib(5), Bytes::ZERO);
    assert_eq!(said(some, none, 0), "to free 5MiB within 200ms, by the priors");
    assert_eq!(said(none, some, 1), "to stop growth of 5MiB/s within 200ms, by 1 outcome");
    assert_eq!(said(some, some, 3), "to free 5MiB and stop growth of 5MiB/s within 200ms, by 3 outcomes");
}

#[test]
fn a_log_line_gives_moments_since_boot() {
    let until = Monotonic(5_000_000_000);
    let ends = |evidence: Evidence| assert!(evidence.to_string().ends_with("5.0s after boot"), "{evidence}");
    ends(Evidence::Hold { until });
    ends(Evidence::Calm { since: until });
    ends(Evidence::Oscillation { cycles: 3, within: Span::secs(600), until });
    ends(Evidence::Budget { brakes: 12, until });
}

#[test]
fn a_client_is_told_why_there_is_no_room() {
    let said = |reason| {
        let refusal = NoRoom {
            reason,
            asked: Bytes::mib(6),
            promised: Bytes::mib(8),
            available: Bytes::mib(7),
            margin: Bytes::mib(2),
            tier: Tier::Elevated,
            gpu: None,
            retry: Some(Span::secs(2)),
        };
        refusal.to_string()
    };
    assert!(
        said(Reason::NoRoom)
            .starts_with("6MiB asked for (8MiB with what it needed more than asked before), 7MiB available")
    );
    for (reason, words) in [
        (Reason::Behind, "for those who wait already"),
        (Reason::Tier, "nothing is granted at tier elevated"),
        (Reason::TooLarge, "more than this machine has"),
        (Reason::TooMany, "too many reservations"),
        (Reason::Unknown, "could not be read"),
        (Reason::Stranger, "only workloads may reserve"),
        (Reason::Stopping, "about to leave"),
    ] {
        assert!(said(reason).contains(words), "{}", said(reason));
    }
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len(), "a label of a metric means one thing");
}

#[test]
fn acts_and_units_have_one_word_each() {
    let acts = [
        Act::Reclaim(Bytes(1)),
        Act::High(Limit::Max),
        Act::Low(Limit::Max),
        Act::Freeze,
        Act::Thaw,
        Act::Kill,
    ];
    assert_eq!(acts.map(Act::name), ["reclaim", "high", "low", "freeze", "thaw", "kill"]);
    assert_eq!([Limit::Max.to_string(), Limit::Bytes(Bytes(1536)).to_string()], ["max", "1.5KiB"]);
    assert_eq!([Bytes(7).to_string(), Bytes(3 << 40).to_string()], ["7B", "3TiB"]);
    assert_eq!(std::time::Duration::from(Span::millis(5)).as_micros(), 5000);
    assert!((Span::millis(1500).as_secs_f64() - 1.5).abs() < 1e-9);
}

#[test]
fn counters_of_nested_cgroups_add_up() {
    let one = Probes {
        direct_reclaims: 1,
        direct_reclaim_ns: 2,
        memcg_reclaims: 3,
        memcg_reclaim_ns: 4,
        ..Probes::default()
    };
    let two = Probes {
        vmscan_throttled_ns: 5,
        over_high_ns: 6,
        major_faults: 7,
        minor_faults: 8,
        gate_stops: 9,
        direct_reclaims: 1,
        ..Probes::default()
    };
    let mut sum = one;
    sum += two;
    assert_eq!(
        sum,
        Probes { direct_reclaims: 2, direct_reclaim_ns: 2, memcg_reclaims: 3, memcg_reclaim_ns: 4, ..two }
    );
}
