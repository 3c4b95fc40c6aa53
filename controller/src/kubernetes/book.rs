//! The pods of this node as they are known now, for all who read them; those who sleep are woken by a change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::watch;

use super::pods::{Pod, Pods};

/// Rings when the pods have changed.
pub type Bell = Receiver<()>;

/// Written by the watch alone.
pub(super) struct Book {
    pods: watch::Sender<Arc<Pods>>,
    bells: Vec<SyncSender<()>>,
}

impl Book {
    pub(super) fn new(known: Pods) -> (Self, watch::Receiver<Arc<Pods>>) {
        let (pods, readers) = watch::channel(Arc::new(known));
        (Self { pods, bells: Vec::new() }, readers)
    }

    /// A bell for a thread, which can't wait on tokio.
    pub(super) fn bell(&mut self) -> Bell {
        // One ring that waits is enough: who hears it looks at everything.
        let (bell, rings) = sync_channel(1);
        self.bells.push(bell);
        rings
    }

    /// These are all.
    pub(super) fn replace(&self, pods: BTreeMap<String, Pod>) {
        self.change(|now| {
            let new = Pods { pods, confirmed: true };
            let other = *now != new;
            *now = new;
            other
        });
    }

    /// It is there, and like this. No more than so many are kept.
    pub(super) fn put(&self, pod: Pod, at_most: usize) {
        if self.pods.borrow().pods.get(&pod.uid) == Some(&pod) {
            return;
        }
        self.change(|now| {
            let room = now.pods.len() < at_most || now.pods.contains_key(&pod.uid);
            if room {
                now.pods.insert(pod.uid.clone(), pod);
            }
            room
        });
    }

    /// It is gone.
    pub(super) fn strike(&self, uid: &str) {
        self.change(|now| now.pods.remove(uid).is_some());
    }

    fn change(&self, change: impl FnOnce(&mut Pods) -> bool) {
        let changed = self.pods.send_if_modified(|now| change(Arc::make_mut(now)));
        if changed {
            for bell in &self.bells {
                let _ = bell.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, name: &str) -> Pod {
        Pod { uid: uid.into(), name: name.into(), ..Pod::default() }
    }

    #[test]
    fn a_change_rings_and_news_without_one_do_not() {
        let (mut book, pods) = Book::new(Pods::default());
        let bell = book.bell();
        book.put(pod("1", "a"), 2);
        assert!(bell.try_recv().is_ok());
        book.put(pod("1", "a"), 2);
        assert!(bell.try_recv().is_err());
        book.put(pod("2", "b"), 2);
        book.put(pod("3", "c"), 2);
        book.put(pod("2", "b2"), 2);
        assert!(bell.try_recv().is_ok() && bell.try_recv().is_err(), "rings wait as one");
        assert_eq!(pods.borrow().pods.keys().collect::<Vec<_>>(), ["1", "2"], "there is no room for a third");
        assert_eq!(pods.borrow().pods["2"].name, "b2");
        assert!(!pods.borrow().confirmed);
    }

    #[test]
    fn a_list_drops_what_it_lacks() {
        let (book, pods) = Book::new(Pods::default());
        book.put(pod("1", "a"), 9);
        book.replace(BTreeMap::from([("2".into(), pod("2", "b"))]));
        assert_eq!(pods.borrow().pods.keys().collect::<Vec<_>>(), ["2"]);
        assert!(pods.borrow().confirmed);
        book.strike("2");
        assert!(pods.borrow().pods.is_empty());
    }
}
