//! Keeps the pods of this node as the API server tells them, for ever: list once, then watch; begin again where it breaks off.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client};
use tokio::time::{sleep, timeout};

use super::book::Book;
use super::contact::{Contact, kind};
use super::pods::Pod;
use super::read::ApiPod;

/// kubelet's own limit is 110 pods, the largest known 500. A server that ignores our selector must not fill our memory.
const PODS: usize = 2048;
/// A list that takes longer is begun again.
const LIST_WITHIN: Duration = Duration::from_secs(60);
/// How long one watch lasts, in seconds; a bit different for every node, so that not all come back at once.
const WATCH: std::ops::Range<u64> = 200..290;

/// Watches; `read` says what is kept of an object.
pub(super) struct Watch<R> {
    pub(super) node: String,
    pub(super) read: R,
    pub(super) book: Book,
    pub(super) contact: Contact,
}

impl<R: Fn(&ApiPod) -> Pod> Watch<R> {
    /// Until the runtime ends.
    pub(super) async fn run(&self, client: Client) -> Infallible {
        let api = Api::all(client);
        let mut delays = DefaultBackoff::default();
        loop {
            self.until_it_hangs(api.clone(), &mut delays).await;
            self.contact.failed("timeout", &Hangs);
            pause(&mut delays).await;
        }
    }

    /// Ends where a list is asked for and nothing comes.
    async fn until_it_hangs(&self, api: Api<ApiPod>, delays: &mut DefaultBackoff) {
        let mut events = pin!(watcher(api.clone(), self.selection()));
        let mut listed = None;
        loop {
            let next = match &listed {
                // The watcher itself and the client see to it that a watch does not hang.
                None => events.next().await,
                Some(_) => match timeout(LIST_WITHIN, events.next()).await {
                    Ok(next) => next,
                    Err(_) => return,
                },
            };
            match next {
                Some(Ok(event)) => {
                    if !matches!(event, Event::Init) {
                        delays.reset();
                    }
                    self.take(event, &mut listed);
                }
                Some(Err(error)) => {
                    self.contact.failed(kind(&error), &error);
                    if has_forgotten(&error) {
                        delays.reset();
                        // Where that came instead of a stream, the watcher would ask for the same again and again.
                        events.set(watcher(api.clone(), self.selection()));
                    }
                    pause(delays).await;
                }
                None => return,
            }
        }
    }

    /// From the API server's cache, which has an index by node: with thousands of nodes, reading its database for each of them is
    /// what it dies of. That list has no pages.
    fn selection(&self) -> watcher::Config {
        let seconds = WATCH.start + RandomState::new().hash_one(()) % (WATCH.end - WATCH.start);
        watcher::Config { page_size: None, ..watcher::Config::default() }
            .any_semantic()
            .fields(&format!("spec.nodeName={}", self.node))
            .timeout(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// `listed` is there while a list is under way; what it lacks at its end is gone.
    fn take(&self, event: Event<ApiPod>, listed: &mut Option<BTreeMap<String, Pod>>) {
        match event {
            Event::Init => *listed = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                if let (Some(listed), Some(pod)) = (listed.as_mut(), self.read(&object))
                    && listed.len() < PODS
                {
                    listed.insert(pod.uid.clone(), pod);
                }
            }
            Event::InitDone => self.book.replace(listed.take().unwrap_or_default()),
            Event::Apply(object) => {
                if let Some(pod) = self.read(&object) {
                    self.book.put(pod, PODS);
                }
            }
            Event::Delete(object) => {
                if let Some(uid) = &object.metadata.uid {
                    self.book.strike(uid);
                }
            }
        }
    }

    /// `None` for what is not of this node, or no pod at all.
    fn read(&self, object: &ApiPod) -> Option<Pod> {
        let here = object.node() == self.node;
        let named = object.metadata.uid.as_deref().is_some_and(|uid| !uid.is_empty());
        (here && named).then(|| (self.read)(object))
    }
}

/// A server that takes a request and says nothing.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {LIST_WITHIN:?}")]
struct Hangs;

/// The server is there again, but not what we saw last: that is listed soon, or pods that came meanwhile would stay unknown for as long
/// as we had learned to wait for the server. Nodes that were cut off together came back at times of their own already.
fn has_forgotten(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            status.code == 410
        }
        _ => false,
    }
}

/// From 0.8 s on, doubling to 30 s, with jitter.
async fn pause(delays: &mut DefaultBackoff) {
    sleep(delays.next().unwrap_or(LIST_WITHIN)).await;
}
