//! All metrics, as OpenMetrics text. They are computed from the last pass at each scrape, so that the series of
//! a workload that is gone are gone as well.

mod admission;
mod asking;
mod control;
mod daemon;
mod gpus;
mod host;
mod pods;
mod telling;
mod workloads;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::histogram::Histogram;
use super::http::Shared;
use super::state::State;

/// What a scraper is told that it gets.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric: its name without the suffix that its kind adds, what to do about it, and where its samples come from.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: fn(&State, &mut Samples<'_>) -> fmt::Result,
}

/// All metrics, in the order of the page.
const ALL: [&[Family]; 9] = [
    host::FAMILIES,
    gpus::FAMILIES,
    workloads::FAMILIES,
    pods::FAMILIES,
    admission::FAMILIES,
    asking::FAMILIES,
    control::FAMILIES,
    telling::FAMILIES,
    daemon::FAMILIES,
];

/// All of it as text.
pub(super) fn text(shared: &Arc<Shared>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(Arc::clone(shared))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(Arc<Shared>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let state = self.0.lock();
        for family in ALL.into_iter().flatten() {
            let metric = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            (family.samples)(&state, &mut Samples(metric))?;
        }
        Ok(())
    }
}

/// Labels of one series.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// Takes the samples of one metric.
struct Samples<'a>(MetricEncoder<'a>);

impl Samples<'_> {
    fn gauge(&mut self, labels: Labels<'_>, value: f64) -> fmt::Result {
        self.series(labels, |series| series.encode_gauge(&value))
    }

    /// A gauge in whole numbers, which text shows exactly.
    fn whole(&mut self, labels: Labels<'_>, value: u64) -> fmt::Result {
        self.series(labels, |series| series.encode_gauge(&value))
    }

    fn counter(&mut self, labels: Labels<'_>, value: u64) -> fmt::Result {
        self.series(labels, |series| series.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>))
    }

    /// A counter of time.
    fn seconds(&mut self, labels: Labels<'_>, value: f64) -> fmt::Result {
        self.series(labels, |series| series.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>))
    }

    fn info(&mut self, labels: Labels<'_>) -> fmt::Result {
        self.0.encode_info(&labels)
    }

    fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) -> fmt::Result {
        self.classes(labels, histogram.sum(), &histogram.buckets())
    }

    /// A histogram by its sum and, for each upper bound, the number of its class alone.
    fn classes(&mut self, labels: Labels<'_>, sum: f64, classes: &[(f64, u64)]) -> fmt::Result {
        let none = None::<&HashMap<usize, Exemplar<NoLabelSet, f64>>>;
        let count = classes.iter().map(|(_, count)| count).sum();
        self.series(labels, |series| series.encode_histogram(sum, count, classes, none))
    }

    /// A series without labels has no braces.
    fn series(
        &mut self,
        labels: Labels<'_>,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if labels.is_empty() { write(&mut self.0) } else { write(&mut self.0.encode_family(&labels)?) }
    }

    /// One series for each state that there is, 1 for the one that holds.
    fn states<T: PartialEq + fmt::Display>(
        &mut self,
        labels: Labels<'_>,
        key: &'static str,
        all: &[T],
        holds: &T,
    ) -> fmt::Result {
        for state in all {
            let word = state.to_string();
            let labels: Vec<_> = labels.iter().copied().chain([(key, word.as_str())]).collect();
            self.whole(&labels, u64::from(state == holds))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
