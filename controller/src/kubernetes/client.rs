//! The way to the API server: as a pod of the cluster does, or by a kubeconfig.

use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use plimsoll_policy::config::Kubernetes;
use tower::util::MapResponseLayer;

use super::contact::Contact;

/// A server that is there takes a connection within milliseconds, but TLS is part of it: one to which a thousand nodes come back at once
/// needs seconds for each, and does it again for whoever did not wait.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// Nothing may be silent for longer: the server ends a watch before that.
pub(super) const SILENT_AT_MOST: Duration = Duration::from_secs(300);

/// Why there is no way yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Neither the environment nor the files that kubelet gives a pod.
    #[error("this is no pod with a service account, and the configuration names no kubeconfig")]
    InCluster(#[from] kube::config::InClusterError),
    /// The file, or what it refers to.
    #[error("the kubeconfig can't be used")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// What they say can't be used.
    #[error("the way to the API server can't be used")]
    Client(#[from] kube::Error),
}

/// Two ways to the same server: for everybody, and for the watch, of which each answer is noted.
pub(super) struct Clients {
    pub(super) common: Client,
    pub(super) watching: Client,
}

/// Reads how to reach the server. Reaches nobody yet.
pub(super) async fn clients(config: &Kubernetes, contact: &Contact) -> Result<Clients, ClientError> {
    let mut way = match config.kubeconfig.clone() {
        Some(path) => {
            // Files are no matter for the one thread of the runtime.
            let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(path)).await;
            let file = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::incluster()?,
    };
    way.connect_timeout = Some(CONNECT_WITHIN);
    way.read_timeout = Some(SILENT_AT_MOST);
    way.reset_reader_on_write = true;
    // Refusals (429 of a disruption budget) are for those who asked, and who is refused waits as he sees fit.
    way.default_retry = false;
    let common = ClientBuilder::try_from(way.clone())?.build();
    let contact = contact.clone();
    let note = MapResponseLayer::new(move |answer: axum::http::Response<_>| {
        if answer.status().is_success() {
            contact.answered();
        }
        answer
    });
    let watching = ClientBuilder::try_from(way)?.with_layer(&note).build();
    Ok(Clients { common, watching })
}

/// The first of them alone, for whoever asks once.
pub(crate) async fn client(config: &Kubernetes) -> Result<Client, ClientError> {
    Ok(clients(config, &Contact::default()).await?.common)
}

/// This machine's name as a node: what the configuration says, else the environment, else the host's own.
pub(super) fn node_name(config: &Kubernetes) -> String {
    let named = config.node.clone().or_else(|| std::env::var("NODE_NAME").ok());
    // kubelet takes the host's name in small letters as well.
    let own = || rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
    named.filter(|name| !name.is_empty()).unwrap_or_else(own)
}
