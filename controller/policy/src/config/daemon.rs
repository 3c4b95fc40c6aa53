//! The section `daemon`: its paths and addresses.

use std::net::SocketAddr;

use super::Daemon;
use super::node::Node;
use super::scalar::{Form, Kind, Memory, OrNone, Whole};
use super::section::Section;
use crate::units::Bytes;

const PATH: Form = Form(absolute, "an absolute path");
const BELOW: Form =
    Form(relative, "the path of a cgroup below the root, without a leading slash, like a.slice/b");
/// The kernel takes no longer path for a socket.
const SOCKET: Form =
    Form(socket, "a path of at most 100 bytes: absolute, or below `run_dir` without a leading slash");
const LIBRARY: Form =
    Form(library, "the name of a library like libnvidia-ml.so.1, or the absolute path of one");
const JOURNAL_SIZE: Memory = Memory(Bytes::mib(1), Bytes::mib(1 << 20));

pub(super) fn daemon(section: &mut Section<'_>) -> Daemon {
    let mut daemon = Daemon::default();
    section.set("listen", &mut daemon.listen, &OrNone(Address));
    section.set("run_dir", &mut daemon.run_dir, &PATH);
    section.set("journal", &mut daemon.journal, &OrNone(PATH));
    section.set("journal_size", &mut daemon.journal_size, &JOURNAL_SIZE);
    if let Some(files) = section.get("journal_files", &Whole(1, 100)) {
        daemon.journal_files = u32::try_from(files).unwrap_or(daemon.journal_files);
    }
    section.set("state", &mut daemon.state, &OrNone(PATH));
    section.set("cgroup_root", &mut daemon.cgroup_root, &PATH);
    section.set("models", &mut daemon.models, &BELOW);
    section.set("control", &mut daemon.control, &OrNone(SOCKET));
    section.set("nvml", &mut daemon.nvml, &OrNone(LIBRARY));
    daemon
}

/// An address to listen on. Names are refused: looking one up could wait for the network.
struct Address;

impl Kind for Address {
    type Value = SocketAddr;
    fn read(&self, node: &Node) -> Option<SocketAddr> {
        let Node::Text(text) = node else { return None };
        text.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
    }
    fn expected(&self) -> String {
        "an IP address and a port from 1 to 65535, like 127.0.0.1:9478 or [::]:9478".into()
    }
}

/// An absolute path that goes nowhere up.
pub(super) fn absolute(path: &str) -> bool {
    path.starts_with('/') && path.len() < 4096 && tame(path) && !path.split('/').any(|part| part == "..")
}

/// A path within the cgroup tree: every component says where to go down, none goes up.
pub(super) fn relative(path: &str) -> bool {
    let down = |part: &str| !matches!(part, "" | "." | "..") && part.len() < 256;
    path.len() < 4096 && tame(path) && path.split('/').all(down)
}

fn socket(path: &str) -> bool {
    path.len() <= 100 && (absolute(path) || relative(path))
}

/// A relative path would depend on where the daemon was started.
fn library(name: &str) -> bool {
    absolute(name) || (!name.is_empty() && name.len() < 256 && !name.contains('/') && tame(name))
}

fn tame(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
