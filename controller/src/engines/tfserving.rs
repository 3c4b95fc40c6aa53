//! TF Serving: loads what its model config file names, and unloads what it does not, whenever it reads the file again.
//!
//! It has a gRPC call for the same; the file needs no second protocol, and says by itself what was done: while the models are
//! unloaded the original lies beside it. The server has to be started with `--model_config_file_poll_wait_seconds`.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use plimsoll_policy::concession::Level;
use plimsoll_policy::config::engine::EngineAt;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::http::Client;
use super::{Capabilities, Engine, Probed, Release, Request, Requests, State};
use crate::ask::way::WayError;

/// A list without models. An empty file would mean: change nothing.
const NOTHING: &str = "model_config_list {}\n";

/// How often the server is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// One server.
#[derive(Debug)]
pub(super) struct Tfserving {
    http: Client,
    models: Vec<String>,
    file: PathBuf,
}

#[derive(Deserialize)]
struct Status {
    model_version_status: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    state: String,
}

impl Tfserving {
    pub(super) fn new(http: Client, at: &EngineAt) -> Result<Self, WayError> {
        let missing = || WayError::Misconfigured("kind tfserving needs `config_file`".into());
        let file = at.config_file.as_ref().ok_or_else(missing)?.into();
        Ok(Self { http, models: at.models.clone(), file })
    }

    /// Whether a version of the model takes up memory, and whether one serves.
    async fn model(&self, model: &str, by: Instant) -> Result<(bool, bool), WayError> {
        let model = utf8_percent_encode(model, NON_ALPHANUMERIC);
        let answer = self.http.get(format!("/v1/models/{model}"), by).await?;
        if answer.absent() {
            return Ok((false, false));
        }
        let Status { model_version_status } = answer.json()?;
        let any = |states: &[&str]| {
            model_version_status.iter().any(|version| states.contains(&version.state.as_str()))
        };
        Ok((any(&["START", "LOADING", "AVAILABLE", "UNLOADING"]), any(&["AVAILABLE"])))
    }

    /// How many models take up memory, and how many serve.
    async fn models(&self, by: Instant) -> Result<(usize, usize), WayError> {
        let (mut resident, mut serving) = (0, 0);
        for model in &self.models {
            let (takes, serves) = self.model(model, by).await?;
            resident += usize::from(takes);
            serving += usize::from(serves);
        }
        Ok((resident, serving))
    }

    async fn on_disk(&self, change: fn(&Path) -> io::Result<()>) -> Result<(), WayError> {
        let file = self.file.clone();
        let done = tokio::task::spawn_blocking(move || change(&file)).await;
        let why = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(WayError::Misconfigured(format!("`config_file` {} can't be changed: {why}", self.file.display())))
    }
}

impl Engine for Tfserving {
    fn kind(&self) -> &'static str {
        "tfserving"
    }

    async fn probe(&self, by: Instant) -> Result<Probed, WayError> {
        let serving = self.models(by).await?.1;
        let kept = kept(&self.file);
        let released = tokio::task::spawn_blocking(move || kept.exists()).await.unwrap_or_default();
        let state = match serving {
            _ if released => State::Released(Some(Level::Unload)),
            serving if serving == self.models.len() => State::Active,
            _ => State::Unknown,
        };
        let can = Capabilities {
            requests: Requests::Finished,
            ..Capabilities::one(Level::Unload, Release::UNLOAD)
        };
        Ok(Probed { can, state, ..Probed::default() })
    }

    async fn release(&self, _: Release, _: &Request, by: Instant) -> Result<(), WayError> {
        self.on_disk(empty).await?;
        while self.models(by).await?.0 > 0 {
            if Instant::now() + LOOK >= by {
                let hint =
                    "not reading its `config_file` again; is --model_config_file_poll_wait_seconds set?";
                return Err(WayError::Busy(hint.into()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn restore(&self, _: Option<Release>, by: Instant) -> Result<(), WayError> {
        self.on_disk(put_back).await?;
        while self.models(by).await?.1 < self.models.len() {
            if Instant::now() + LOOK >= by {
                return Err(WayError::Busy("loading".into()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Its models have inputs of every kind: that they are available was seen by restoring them.
    async fn smoke(&self, _: Instant) -> Result<(), WayError> {
        Ok(())
    }
}

/// Where the original lies meanwhile.
fn kept(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".plimsoll-kept");
    name.into()
}

/// Puts a list without models in the file's place. The original is never without a name, whatever happens between two steps.
fn empty(file: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(file)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    match fs::hard_link(file, kept(file)) {
        // Done before, by us or by our predecessor.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other?,
    }
    let mut new = file.as_os_str().to_owned();
    new.push(".plimsoll-new");
    fs::write(&new, NOTHING)?;
    // The server may run as somebody else.
    fs::set_permissions(&new, fs::Permissions::from_mode(metadata.permissions().mode()))?;
    let owner = std::os::unix::fs::MetadataExt::uid(&metadata);
    let group = std::os::unix::fs::MetadataExt::gid(&metadata);
    chown(&new, Some(owner), Some(group))?;
    fs::rename(&new, file)
}

/// Puts the original back.
fn put_back(file: &Path) -> io::Result<()> {
    match fs::rename(kept(file), file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
