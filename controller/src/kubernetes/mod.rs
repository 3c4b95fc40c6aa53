//! Kubernetes: pods of this node become workloads, and the API server is told what is done to them.
//!
//! Nothing here is waited for by a pass, and nothing here is needed for one: with the API server away, the last known pods and
//! the cgroup tree itself say who is there.

mod backoff;
mod book;
pub(crate) mod client;
mod contact;
pub mod find;
mod known;
pub mod layout;
pub mod needs;
pub mod pods;
mod processes;
pub mod read;
mod revival;
mod strangers;
pub mod tell;
pub mod tree;
mod watch;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use plimsoll_policy::config::Config;
use tokio::runtime::Handle;
use tokio::sync::watch::{self as latest, Receiver};
use tokio::time::{sleep, sleep_until};

pub use self::book::Bell;
pub use self::contact::{Contact, Standing};
pub use self::pods::PodRef;
use self::pods::{Pod, Pods};
use self::read::{ApiPod, Own};
use self::revival::Revival;
use self::watch::Watch;

/// The files of a service account, or a kubeconfig, that are not there (yet) are looked for as often as this.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What the rest of the daemon has of the API server.
#[derive(Clone)]
pub struct Parts {
    /// The name of this node.
    pub node: String,
    /// Its pods, as they are known now.
    pub pods: Receiver<Arc<Pods>>,
    /// The way to the API server; none before it is known how to reach it.
    pub client: Receiver<Option<Client>>,
    /// How it stands with it.
    pub contact: Contact,
}

/// Begins to watch this node's pods, on the runtime. Knows at once what an earlier run wrote down. The bell rings when they change.
/// `own` is the daemon's own cgroup.
///
/// # Errors
/// When the kernel gives no thread.
pub fn start(config: &Config, own: &str, runtime: &Handle) -> io::Result<(Parts, Bell)> {
    let file = known::path(Path::new(&config.daemon.run_dir));
    let (mut book, pods) = book::Book::new(known::read(&file));
    known::keep(file, pods.clone(), book.bell())?;
    let bell = book.bell();
    let (way, client) = latest::channel(None);
    let (node, contact) = (client::node_name(&config.kubernetes), Contact::default());
    tracing::info!(node, "watching the pods of this node");
    let own = Own::of(std::env::var("POD_UID").ok().as_deref(), own);
    let reading = config.clone();
    let read = move |object: &ApiPod| read::read(object, &reading, &own);
    let watch = Watch { node: node.clone(), read, book, contact: contact.clone() };
    runtime.spawn(run(config.clone(), watch, way));
    Ok((Parts { node, pods, client, contact }, bell))
}

/// Until the runtime ends. Whatever happens to the watch, the last known pods stay.
async fn run<R: Fn(&ApiPod) -> Pod>(config: Config, watch: Watch<R>, way: latest::Sender<Option<Client>>) {
    let mut revival = Revival::new("watch");
    loop {
        let Err(until) = revival.attempt(follow(&config, &watch, &way)).await;
        watch.contact.fell();
        sleep_until(until).await;
    }
}

async fn follow<R: Fn(&ApiPod) -> Pod>(
    config: &Config,
    watch: &Watch<R>,
    way: &latest::Sender<Option<Client>>,
) -> Infallible {
    let clients = loop {
        match client::clients(&config.kubernetes, &watch.contact).await {
            Ok(clients) => break clients,
            Err(error) => watch.contact.failed("configuration", &error),
        }
        sleep(LOOK_AGAIN).await;
    };
    way.send_replace(Some(clients.common));
    watch.run(clients.watching).await
}

#[cfg(test)]
mod tests;
