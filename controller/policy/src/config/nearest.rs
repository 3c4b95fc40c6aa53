//! Which known word was most likely meant by a mistyped one.

/// The known word that needs the fewest edits, if those are few enough to be a slip: one in three letters.
pub(super) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    // Nobody means a key by a page of text, and the distance is quadratic.
    if word.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(edits, candidate)| *edits <= (candidate.len() / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, by rows.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replace = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["reclaim_step", "throttle_step", "rungs"];
        let check = |word, expected| assert_eq!(nearest(word, &known), expected, "{word}");
        check("reclaim-step", Some("reclaim_step"));
        check("rung", Some("rungs"));
        check("throtle_step", Some("throttle_step"));
        check("swappiness", None);
        check("", None);
        check(&"x".repeat(1 << 20), None);
    }
}
