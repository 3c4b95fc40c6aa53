//! Whom the kernel's OOM killer shall take if we lose the race: whom we would have taken (invariant 9).
//!
//! The kernel ranks by size plus `oom_score_adj` thousandths of the machine's memory, so a workload that matters less is only
//! taken first if its value is higher by more than its size is smaller. The classes of priority are therefore spread as far
//! apart as the scale allows.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::roles::{self, Rank};
use crate::sample::{Preference, Rung, Spec};

/// The class that yields first. Above it is room for what asks the kernel to be taken before anybody else.
const FIRST: i32 = 900;
/// The class that yields last: still before the machine's own services.
const LAST: i32 = 100;

/// The `oom_score_adj` of the processes of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// This value: it is a victim, and this is its place.
    Exactly(i16),
    /// As it was found, but not above this: it is no victim of ours, and must not be one of the kernel's before them.
    AtMost(i16),
}

impl Score {
    /// The value that a process shall have that was found with `found`.
    #[must_use]
    pub fn of(self, found: i16) -> i16 {
        match self {
            Self::Exactly(score) => score,
            Self::AtMost(score) => found.min(score),
        }
    }

    /// Whether the kernel shall take the workload as a whole (`memory.oom.group`), as we would.
    #[must_use]
    pub const fn as_a_whole(self) -> bool {
        matches!(self, Self::Exactly(_))
    }
}

/// The score of every workload, by the key that it came with. Those that are never to be touched are left out.
#[must_use]
pub fn scores<'a, K: Ord>(
    config: &Config,
    specs: impl Iterator<Item = (K, &'a Spec)> + Clone,
) -> BTreeMap<K, Score> {
    let classes: BTreeSet<_> =
        specs.clone().filter(|(_, spec)| is_victim(config, spec)).map(|(_, s)| roles::rank(s)).collect();
    let places: BTreeMap<_, _> =
        classes.iter().enumerate().map(|(place, class)| (*class, score(place, classes.len()))).collect();
    let touched = specs.filter(|(_, spec)| spec.preference != Preference::Omit);
    touched.map(|(key, spec)| (key, places_of(config, &places, spec))).collect()
}

fn places_of(config: &Config, places: &BTreeMap<Rank, i16>, spec: &Spec) -> Score {
    let place = places.get(&roles::rank(spec)).filter(|_| is_victim(config, spec));
    place.map_or(Score::AtMost(0), |score| Score::Exactly(*score))
}

fn is_victim(config: &Config, spec: &Spec) -> bool {
    let may = config.ladder.rungs.contains(&Rung::Kill) && spec.rungs.contains(&Rung::Kill);
    may && spec.preference != Preference::Omit && !roles::protects(config, spec)
}

/// Evenly spread, the first to yield highest. With more classes than values neighbours share one.
fn score(place: usize, classes: usize) -> i16 {
    let gaps = i64::try_from(classes.saturating_sub(1)).unwrap_or(i64::MAX).max(1);
    let place = i64::try_from(place).unwrap_or(i64::MAX);
    let down = i64::from(FIRST - LAST).saturating_mul(place) / gaps;
    i16::try_from(i64::from(FIRST) - down).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Qos;

    fn spec(priority: i32, preference: Preference) -> Spec {
        Spec { priority, preference, ..Spec::default() }
    }

    fn check(specs: &[(i32, Preference)], expected: &[Option<Score>]) {
        let specs: Vec<Spec> = specs.iter().map(|&(p, preference)| spec(p, preference)).collect();
        let scores = scores(&Config::default(), specs.iter().enumerate());
        let got: Vec<_> = (0..specs.len()).map(|n| scores.get(&n).copied()).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn who_matters_less_is_taken_first_by_as_much_as_there_is_room_for() {
        use Preference::{Avoid, None, Omit};
        use Score::{AtMost, Exactly};
        check(&[(0, None), (0, None)], &[Some(Exactly(900)); 2]);
        check(&[(5, None), (-5, None)], &[Some(Exactly(100)), Some(Exactly(900))]);
        check(
            &[(0, None), (-9, Avoid), (7, None)],
            &[Some(Exactly(900)), Some(Exactly(100)), Some(Exactly(500))],
        );
        check(&[(1000, None), (0, Omit), (0, None)], &[Some(AtMost(0)), Option::None, Some(Exactly(900))]);
    }

    #[test]
    fn of_equal_priority_the_lower_quality_of_service_is_taken_first() {
        let of = |qos| Spec { qos, ..Spec::default() };
        let specs =
            [of(Qos::Guaranteed), of(Qos::BestEffort), of(Qos::Burstable), spec(-1, Preference::None)];
        let scores = scores(&Config::default(), specs.iter().enumerate());
        let order: Vec<_> = (0..4).map(|n| scores.get(&n).map(|s| s.of(0))).collect();
        assert_eq!(order, [Some(100), Some(634), Some(367), Some(900)]);
    }

    #[test]
    fn one_that_may_not_be_killed_is_no_victim() {
        let mild = Spec { rungs: vec![Rung::Trim], ..Spec::default() };
        let scores = scores(&Config::default(), [((), &mild)].into_iter());
        assert_eq!(scores.get(&()), Some(&Score::AtMost(0)));
        assert_eq!((Score::AtMost(0).of(500), Score::AtMost(0).of(-997)), (0, -997));
    }

    #[test]
    fn any_number_of_classes_keeps_the_order() {
        for classes in [1, 2, 3, 799, 5000] {
            let scores: Vec<_> = (0..classes).map(|place| score(place, classes)).collect();
            assert!(scores.is_sorted_by(|a, b| a >= b));
            assert!(scores.iter().all(|s| (100..=900).contains(s)));
        }
    }
}
