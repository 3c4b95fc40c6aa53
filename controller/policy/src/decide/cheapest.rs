//! The cheapest set of rungs that meets a need.
//!
//! Cost is compared from the workload that yields last down to the one that yields first: the rung of whoever matters more decides, however
//! many below are on a harder one. Two passes find the cheapest. Up from the bottom ([`pick`]) each takes the gentlest rung that
//! is enough, or gives all it can, so that as few as possible are touched from above. Then down from the top ([`relax`]) each is
//! let off as far as those above it give more than was left for them. No workload keeps back what a rung of its own, no harder
//! than one that is used above it, would give: invariant 1.

use crate::roles::Rank;
use crate::sample::Rung;
use crate::units::Bytes;

/// What a workload gives on a rung.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Give {
    pub(crate) rung: Rung,
    /// For the brake target: by the next moment.
    pub(crate) soon: Bytes,
    /// For the calm target: before the deadline.
    pub(crate) calm: Bytes,
    /// Bytes of that; the rest is growth that stops.
    pub(crate) bytes: Bytes,
}

/// A workload in the set.
pub(crate) trait Member {
    /// What it gives, on the rung that it is on first, then on harder ones.
    fn gives(&self) -> &[Give];
    /// Who matters more.
    fn rank(&self) -> Rank;
    /// Which of what it gives is used.
    fn chosen(&self) -> usize;
    /// Uses another.
    fn choose(&mut self, at: usize);
    /// What is used.
    fn give(&self) -> Give {
        self.gives().get(self.chosen()).copied().unwrap_or_default()
    }
}

/// The gentlest that is enough; where none is, the gentlest that gives most.
pub(crate) fn pick(gives: &[Give], need: Bytes) -> usize {
    let most = gives.iter().map(|give| give.soon).max().unwrap_or_default();
    gives.iter().position(|give| give.soon >= need.min(most)).unwrap_or(0)
}

/// Lets members off, from the last one raised down. They are in the order in which they yield, all but that one give all they can.
pub(crate) fn relax<M: Member>(members: &mut [M], need: Bytes) {
    let mut spare = members.iter().map(|m| m.give().soon).sum::<Bytes>().saturating_sub(need);
    // The hardest rung of those that matter more, and of those that matter as much or more.
    let (mut above, mut so_far, mut rank) = (Rung::Free, Rung::Free, None);
    for member in members.iter_mut().rev().filter(|m| m.chosen() > 0) {
        if rank.is_none_or(|rank| member.rank() < rank) {
            (above, rank) = (so_far, Some(member.rank()));
        }
        let now = member.give().soon;
        let kept = pick(up_to(member.gives(), above), Bytes(u64::MAX));
        let enough = pick(member.gives(), now.saturating_sub(spare)).max(kept);
        if enough < member.chosen() {
            member.choose(enough);
            spare = spare.saturating_sub(now.saturating_sub(member.give().soon));
        }
        if member.chosen() > 0 {
            so_far = so_far.max(member.give().rung);
        }
    }
}

/// What is given on rungs no harder than this one, and on the one that the workload is on.
fn up_to(gives: &[Give], hardest: Rung) -> &[Give] {
    let end = gives.iter().position(|give| give.rung > hardest).unwrap_or(gives.len());
    &gives[..end.max(1).min(gives.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Qos;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Row {
        gives: Vec<Give>,
        rank: i32,
        chosen: usize,
    }

    impl Member for Row {
        fn gives(&self) -> &[Give] {
            &self.gives
        }
        fn rank(&self) -> Rank {
            ((false, self.rank), Qos::Burstable)
        }
        fn chosen(&self) -> usize {
            self.chosen
        }
        fn choose(&mut self, at: usize) {
            self.chosen = at;
        }
    }

    fn row(rank: i32, gives: &[(Rung, u64)]) -> Row {
        let give = |&(rung, mib): &(Rung, u64)| Give { rung, soon: Bytes::mib(mib), ..Give::default() };
        Row { gives: gives.iter().map(give).collect(), rank, chosen: 0 }
    }

    /// What the planner does, and whether the need is met.
    fn plan(rows: &mut [Row], need: Bytes) -> bool {
        let mut left = need;
        for row in rows.iter_mut() {
            row.chosen = pick(&row.gives, left);
            left = left.saturating_sub(row.gives[row.chosen].soon);
        }
        relax(rows, need);
        left == Bytes::ZERO
    }

    fn sum(rows: &[Row], chosen: &[usize]) -> Bytes {
        rows.iter().zip(chosen).map(|(row, &at)| row.gives[at].soon).sum()
    }

    /// No one of lower rank keeps back what a rung up to the hardest one above him would give.
    fn in_order(rows: &[Row], chosen: &[usize]) -> bool {
        (0..rows.len()).all(|low| {
            (0..rows.len()).all(|high| {
                let harder = chosen[high] > 0 && rows[low].rank < rows[high].rank;
                let gives = |at: usize| rows[low].gives[at].soon;
                let up_to = rows[high].gives[chosen[high]].rung;
                let mut kept = rows[low].gives.iter().filter(|give| give.rung <= up_to);
                !harder || kept.all(|give| give.soon <= gives(chosen[low]))
            })
        })
    }

    /// Every choice that there is.
    fn choices(rows: &[Row]) -> Vec<Vec<usize>> {
        rows.iter().fold(vec![vec![]], |all, row| {
            let more = |c: Vec<usize>| (0..row.gives.len()).map(move |at| [c.clone(), vec![at]].concat());
            all.into_iter().flat_map(more).collect()
        })
    }

    fn cost(rows: &[Row], chosen: &[usize]) -> Vec<Rung> {
        rows.iter().zip(chosen).rev().map(|(row, &at)| row.gives[at].rung).collect()
    }

    #[test]
    fn the_last_one_touched_gives_and_those_below_are_let_off() {
        use Rung::{Free, Freeze, Throttle, Trim};
        let low = row(0, &[(Free, 0), (Trim, 40), (Freeze, 50)]);
        let mid = row(5, &[(Free, 0), (Trim, 100)]);
        let check = |need, expected: [usize; 2]| {
            let mut rows = [low.clone(), mid.clone()];
            plan(&mut rows, Bytes::mib(need));
            assert_eq!([rows[0].chosen, rows[1].chosen], expected, "{need}");
        };
        check(0, [0, 0]);
        check(40, [1, 0]);
        check(50, [2, 0]);
        check(80, [1, 1]);
        check(145, [2, 1]);
        check(900, [2, 1]);
        let mut equals = [row(0, &[(Free, 0), (Throttle, 5)]), row(0, &[(Free, 0), (Throttle, 50)])];
        plan(&mut equals, Bytes::mib(30));
        assert_eq!([equals[0].chosen, equals[1].chosen], [0, 1], "of equals nobody has to yield for another");
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let rungs = [Rung::Trim, Rung::Throttle, Rung::Freeze];
        let one = (prop::sample::subsequence(rungs.to_vec(), 0..=3), prop::array::uniform4(0_u64..6), 0..3);
        let one = one.prop_map(|(rungs, steps, rank)| {
            let mut has = steps[3] / 4;
            let mut gives = vec![(Rung::Free, has)];
            for (rung, step) in rungs.into_iter().zip(steps) {
                has += step;
                gives.push((rung, has));
            }
            row(rank, &gives)
        });
        prop::collection::vec(one, 1..=4).prop_map(|mut rows: Vec<Row>| {
            rows.sort_by_key(|row| row.rank);
            rows
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2000,
            rng_seed: proptest::test_runner::RngSeed::Fixed(20_261_122),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Of all sets in order that meet the need there is none that is cheaper; where none meets it, all give what they can.
        #[test]
        fn no_cheaper_set_meets_the_need(mut rows in rows(), need in 0_u64..40) {
            let need = Bytes::mib(need);
            let met = plan(&mut rows, need);
            let chosen: Vec<usize> = rows.iter().map(|row| row.chosen).collect();
            let most: Vec<usize> = rows.iter().map(|row| pick(&row.gives, Bytes(u64::MAX))).collect();
            prop_assert!(in_order(&rows, &chosen), "{chosen:?}");
            if !met {
                prop_assert_eq!(&chosen, &most);
                return Ok(());
            }
            prop_assert!(sum(&rows, &chosen) >= need);
            let enough = |c: &Vec<usize>| sum(&rows, c) >= need && in_order(&rows, c);
            let cheapest = choices(&rows).into_iter().filter(enough).map(|c| cost(&rows, &c)).min();
            prop_assert_eq!(Some(cost(&rows, &chosen)), cheapest);
        }
    }
}
