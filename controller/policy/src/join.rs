//! Walks two sorted sequences side by side: with a thousand workloads, looking each one up again is most of a pass.

use std::cmp::Ordering;
use std::iter::Peekable;

/// What both have under the same key.
pub(crate) fn join<'l, 'r, K: Ord + 'l + 'r, A, B>(
    left: impl IntoIterator<Item = (&'l K, A)>,
    right: impl IntoIterator<Item = (&'r K, B)>,
) -> impl Iterator<Item = (&'l K, A, B)> {
    let mut right = right.into_iter().peekable();
    left.into_iter().filter_map(move |(key, a)| Some((key, a, seek(&mut right, key)?)))
}

fn seek<'k, K: Ord + 'k, B>(right: &mut Peekable<impl Iterator<Item = (&'k K, B)>>, key: &K) -> Option<B> {
    loop {
        match right.peek()?.0.cmp(key) {
            Ordering::Less => drop(right.next()),
            Ordering::Equal => return right.next().map(|(_, b)| b),
            Ordering::Greater => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn only_common_keys_are_joined() {
        let left = BTreeMap::from([(1, 'a'), (3, 'c'), (4, 'd'), (9, 'z')]);
        let right = BTreeMap::from([(0, 0), (3, 30), (5, 50), (9, 90)]);
        let joined: Vec<_> = join(&left, &right).map(|(k, a, b)| (*k, *a, *b)).collect();
        assert_eq!(joined, [(3, 'c', 30), (9, 'z', 90)]);
    }
}
