//! A histogram of times with fixed bounds: cheap to add to, and the same bounds on every node.

use plimsoll_policy::units::Span;

/// Upper bounds in seconds: from a pass that had nothing to do to a model that is loaded again.
pub(super) const BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0];

/// Counts of times, by bound; the last class has none.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    classes: [u64; BOUNDS.len() + 1],
    sum_seconds: f64,
}

impl Histogram {
    /// Counts one.
    pub(super) fn add(&mut self, span: Span) {
        let seconds = span.as_secs_f64();
        self.classes[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum_seconds += seconds;
    }

    /// Sum in seconds.
    pub(super) const fn sum(&self) -> f64 {
        self.sum_seconds
    }

    /// Each bound with the number of its class alone.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        BOUNDS.into_iter().chain([f64::MAX]).zip(self.classes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class() {
        let mut histogram = Histogram::default();
        for span in [Span::ZERO, Span::millis(1), Span::millis(2), Span::secs(100)] {
            histogram.add(span);
        }
        let filled: Vec<_> = histogram.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 1), (0.001, 1), (0.0025, 1), (f64::MAX, 1)]);
        assert!((histogram.sum() - 100.003).abs() < 1e-9);
    }
}
