//! `plimsoll exec`: starts a model server in a cgroup of its own, which the daemon then finds.
//!
//! Memory stays charged to the cgroup that a process was in when it touched it, so a model has to be *started* in
//! its cgroup: we join it and become the command.

mod admission;
pub mod xattrs;

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cgroups_rs::CgroupPid;
use cgroups_rs::fs::Cgroup;
use cgroups_rs::fs::Hierarchy;
use cgroups_rs::fs::hierarchies::V2;
use plimsoll_policy::config::Daemon;
use plimsoll_policy::config::ways::Means;
use plimsoll_policy::sample::Preference;

pub use self::admission::Needs;
use crate::ask::watch;
use crate::control::client::AskError;
use crate::sense::discover::cgroup_of;

/// What to start, and what it is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Name of the workload and of its cgroup: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Who yields last.
    pub priority: i32,
    /// Whether it may be touched.
    pub preference: Preference,
    /// By what means it can be asked to give memory back.
    pub ask: Means,
    /// The memory that it needs, if there is to be room for it before it is started.
    pub needs: Option<Needs>,
    /// The command and its arguments.
    pub command: Vec<OsString>,
}

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The name can't be a cgroup's.
    #[error("bad name {0:?}: use 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'")]
    Name(String),
    /// Another workload of that name runs.
    #[error("a workload named {name:?} runs already ({path} is populated)")]
    Taken {
        /// The name.
        name: String,
        /// Its cgroup.
        path: PathBuf,
    },
    /// The cgroup could not be made.
    #[error("can't make the cgroup {path}; exec needs root and cgroup v2 at {root}")]
    Cgroup {
        /// The cgroup.
        path: PathBuf,
        /// Where cgroup v2 is expected.
        root: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room for it, or nobody who could say.
    #[error("{name} was not started")]
    Admission {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        source: AskError,
    },
    /// The command could not be run.
    #[error("can't run {command:?}")]
    Run {
        /// The command.
        command: OsString,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Makes the cgroup, joins it, asks for room and becomes the command. Returns only when that failed.
///
/// # Errors
/// [`ExecError`].
pub fn exec(exec: &Exec, daemon: &Daemon) -> Result<Infallible, ExecError> {
    check_name(&exec.name)?;
    let relative = format!("{}/{}", daemon.models, exec.name);
    let path = Path::new(&daemon.cgroup_root).join(&relative);
    if fs::read_to_string(path.join("cgroup.events")).is_ok_and(|events| events.contains("populated 1")) {
        return Err(ExecError::Taken { name: exec.name.clone(), path });
    }
    let from = cgroup_of(std::process::id().cast_signed());
    join(exec, daemon, &relative, &path).map_err(|source| ExecError::Cgroup {
        path: path.clone(),
        root: daemon.cgroup_root.clone(),
        source,
    })?;
    let granted = admission::ask(exec.needs.as_ref(), daemon).map_err(|source| {
        match source {
            // The daemon may be arming a PSI trigger on the cgroup just now, and 6.1 was seen to leak the trigger of one that
            // goes away meanwhile. It removes the cgroup itself when nobody has come for some seconds.
            AskError::Refused(_) => drop(go_back(daemon, from.as_deref())),
            _ => leave(daemon, from.as_deref(), &path),
        }
        ExecError::Admission { name: exec.name.clone(), source }
    })?;
    let (program, arguments) = exec.command.split_first().expect("the command line asks for at least one");
    let mut command = Command::new(program);
    command.args(arguments).envs(granted);
    listen_to_us(&mut command, daemon);
    let source = command.exec();
    // Nothing lives in it: an empty cgroup would look like a workload that ended.
    leave(daemon, from.as_deref(), &path);
    Err(ExecError::Run { command: program.clone(), source })
}

/// Has the command told when it shall trim. What it inherited is about another cgroup, the one that it was started from; without a
/// daemon nothing at all is better, since programs then watch their own.
fn listen_to_us(command: &mut Command, daemon: &Daemon) {
    command.env_remove(watch::VARIABLE).env_remove(watch::GREETING);
    let socket = watch::path(daemon);
    if UnixStream::connect(&socket).is_ok() {
        command.env(watch::VARIABLE, socket);
    }
}

/// Goes back to where it came from. What fails here is tidied up by the daemon.
fn leave(daemon: &Daemon, from: Option<&str>, path: &Path) {
    if go_back(daemon, from).is_ok() {
        let _ = fs::remove_dir(path);
    }
}

fn go_back(daemon: &Daemon, from: Option<&str>) -> io::Result<()> {
    fs::write(Path::new(&daemon.cgroup_root).join(from.unwrap_or_default()).join("cgroup.procs"), "0")
}

fn join(
    exec: &Exec,
    daemon: &Daemon,
    relative: &str,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let hierarchy = Box::new(V2::new());
    if hierarchy.root() != Path::new(&daemon.cgroup_root) {
        return Err(
            format!("exec works at {}, not at the configured root", hierarchy.root().display()).into()
        );
    }
    let cgroup = Cgroup::new_with_specified_controllers(hierarchy, relative, Some(vec!["memory".into()]))?;
    // A model that lost one of its processes is useless: the kernel's OOM killer shall take all or nothing.
    fs::write(path.join("memory.oom.group"), "1")?;
    xattrs::write(path, exec.priority, exec.preference, &exec.ask)?;
    cgroup.add_task_by_tgid(CgroupPid::from(u64::from(std::process::id())))?;
    Ok(())
}

fn check_name(name: &str) -> Result<(), ExecError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(ExecError::Name(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "\u{e9}", &"x".repeat(65)] {
            assert!(matches!(check_name(name), Err(ExecError::Name(_))), "{name}");
        }
        assert!(check_name("llama-3.1_8b").is_ok());
    }
}
