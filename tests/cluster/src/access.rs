//! Who speaks to the API server, as kubeconfig files.
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::Cluster;
use crate::api_server::SEEN_BY_GUESTS;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything.
    Admin,
    /// The kubelet of a node that [`crate::Options::nodes`] names.
    Node(String),
    /// A service account that exists, by namespace and name: what pods speak as.
    ServiceAccount(String, String),
}

/// From where it is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// From this machine.
    Here,
    /// From a guest of the emulator.
    Guest,
}

/// Tokens that hold as long as the cluster lives. It is on loopback, and so is everybody who could guess them.
pub(crate) fn write_tokens(dir: &Path, nodes: &[String]) -> Result<()> {
    let mut tokens = String::from("admin,admin,admin,\"system:masters\"\n");
    for node in nodes {
        let _ = writeln!(tokens, "node-{node},system:node:{node},node-{node},\"system:nodes\"");
    }
    fs::write(dir.join("tokens.csv"), tokens).context("tokens.csv")
}

impl Cluster {
    /// Writes a kubeconfig and returns its path.
    ///
    /// # Errors
    /// If a service account does not exist.
    pub fn kubeconfig(&self, user: &User, place: Place) -> Result<PathBuf> {
        let token = self.token(user)?;
        let file = match user {
            User::Admin => "admin".to_owned(),
            User::Node(name) => format!("node-{name}"),
            User::ServiceAccount(namespace, name) => format!("{namespace}-{name}"),
        };
        let (host, suffix) = match place {
            Place::Here => ("127.0.0.1", ""),
            Place::Guest => (SEEN_BY_GUESTS, "-guest"),
        };
        let certificate = fs::read_to_string(self.certificate()).context("the API server's certificate")?;
        let path = self.dir().join(format!("{file}{suffix}.kubeconfig"));
        // JSON is YAML.
        let text = kubeconfig(&format!("https://{host}:{}", self.port), &certificate, &token);
        // Renamed into place: somebody may be reading the one of before.
        let mut new = NamedTempFile::new_in(self.dir())?;
        new.write_all(text.to_string().as_bytes())?;
        new.persist(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// What the user shows.
    ///
    /// # Errors
    /// If a service account does not exist.
    pub fn token(&self, user: &User) -> Result<String> {
        Ok(match user {
            User::Admin => "admin".to_owned(),
            User::Node(name) => format!("node-{name}"),
            User::ServiceAccount(namespace, name) => self.request_token(namespace, name)?,
        })
    }

    /// As the kubelet does for a pod.
    fn request_token(&self, namespace: &str, name: &str) -> Result<String> {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 86_400 },
        });
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let answer = self.kubectl_with(&["create", "--raw", &path, "-f", "-"], &request.to_string())?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer).context("the answer to a TokenRequest")?;
        Ok(answer["status"]["token"]
            .as_str()
            .context("a TokenRequest was answered without a token")?
            .to_owned())
    }

    /// The API server's address, from this machine.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

fn kubeconfig(server: &str, certificate: &str, token: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": {
            "server": server, "certificate-authority-data": BASE64_STANDARD.encode(certificate),
        } }],
        "users": [{ "name": "it", "user": { "token": token } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    })
}
