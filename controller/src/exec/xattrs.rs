//! What a workload is worth, written on its cgroup directory as an extended attribute: it is there for as long as
//! the cgroup is, whether or not the daemon runs. `trusted.*` can be written by root only.

use std::io;
use std::path::Path;

use plimsoll_policy::config::ways::Means;
use plimsoll_policy::sample::{Preference, Rung, Spec};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde::{Deserialize, Serialize};

const NAME: &str = "trusted.plimsoll";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    priority: i32,
    #[serde(default)]
    preference: Preference,
    #[serde(default)]
    ask: Means,
}

/// Marks a cgroup directory as a workload.
///
/// # Errors
/// When the filesystem or the lack of root refuses it.
pub fn write(path: &Path, priority: i32, preference: Preference, ask: &Means) -> io::Result<()> {
    let text = serde_json::to_vec(&Attribute { priority, preference, ask: ask.clone() })?;
    Ok(setxattr(path, NAME, &text, XattrFlags::empty())?)
}

/// What a cgroup directory is marked as; `None` where it is not marked, or not by us.
#[must_use]
pub fn read(path: &Path, name: &str, rungs: &[Rung]) -> Option<(Spec, Means)> {
    let mut buffer = [0_u8; 1024];
    let len = getxattr(path, NAME, &mut buffer).ok()?;
    let attribute: Attribute = serde_json::from_slice(&buffer[..len]).ok()?;
    let spec = Spec {
        name: name.to_owned(),
        priority: attribute.priority,
        preference: attribute.preference,
        rungs: rungs.to_vec(),
        ..Spec::default()
    };
    Some((spec, attribute.ask))
}
