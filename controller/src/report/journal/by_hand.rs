//! For tests: the journal without its thread, so that what is lost is lost for certain.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use plimsoll_policy::config::Config;
use plimsoll_policy::sample::Sample;

use super::{Journal, Pen, Record, head, log_file};

/// Journals what `pass` makes of each sample, told whether it shall keep the state, but for the samples in `lost`.
pub(crate) fn journal_by_hand<'a>(
    config: &Config,
    lost: &[usize],
    samples: impl IntoIterator<Item = &'a Sample>,
    mut pass: impl FnMut(&'a Sample, bool) -> Record,
) {
    let (queue, records) = sync_channel(1);
    let (_ended, done) = sync_channel(1);
    let mut journal = Journal { queue, done, counts: Arc::default(), passes: 0, keyframe: None };
    let file = log_file(&config.daemon).expect("the test names a file");
    let mut pen = Pen::new(file, head(config), journal.counts());
    for (at, sample) in samples.into_iter().enumerate() {
        let record = pass(sample, journal.wants_state(sample.at));
        journal.write(Arc::new(record));
        let (n, record) = records.try_recv().expect("it was just sent");
        if !lost.contains(&at) {
            pen.write(n, &record);
        }
    }
    assert_eq!(journal.counts().dropped(), 0);
}
