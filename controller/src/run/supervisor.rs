//! What systemd is told (`sd_notify`): ready when it protects, alive after a pass that saw the memory, stopping.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use plimsoll_policy::plan::Tier;
use plimsoll_policy::units::{Monotonic, Span};

/// What a pass has to say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// When it began.
    pub(super) at: Monotonic,
    /// How long the next one may wait.
    pub(super) next: std::time::Duration,
    /// Whether it could read how much memory there is. One that could not decided nothing.
    pub(super) saw: bool,
    /// The host's tier.
    pub(super) tier: Tier,
    /// How many workloads are watched.
    pub(super) workloads: usize,
}

/// Who started us and waits for word, if anybody does. Nothing here ever waits: a message that finds no room is left out,
/// and the next pass says it again.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    link: Option<(UnixDatagram, SocketAddr)>,
    /// How long after a sign of life the next has to come.
    watchdog: Option<Span>,
    /// The last sign of life. `None` until it protects.
    alive: Option<Monotonic>,
    status: Option<(Tier, usize)>,
}

impl Supervisor {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub(super) fn of_environment() -> Self {
        Self::new(|name| std::env::var_os(name), std::process::id())
    }

    fn new(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let Some(socket) = variable("NOTIFY_SOCKET") else { return Self::default() };
        let link = link(&socket);
        if let Err(error) = &link {
            tracing::warn!(?socket, %error, "can't tell the supervisor that it is ready");
        }
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        // Set for another process where it names one: a wrapper has started us.
        let ours = number("WATCHDOG_PID").is_none_or(|named| named == u64::from(pid));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        let watchdog = watchdog.map(|usec| Span(usec.saturating_mul(1000)));
        Self { link: link.ok(), watchdog, ..Self::default() }
    }

    /// After every pass.
    pub(super) fn passed(&mut self, passed: &Passed) {
        if self.link.is_none() || !passed.saw {
            return;
        }
        let said = match self.alive {
            None => self.say("READY=1\nWATCHDOG=1"),
            // Half of it is what everybody does; a pass may be late, and a message lost.
            Some(last) => match self.watchdog {
                Some(limit) if passed.at.since(last).0 >= limit.0 / 4 => self.say("WATCHDOG=1"),
                _ => false,
            },
        };
        if said {
            self.alive = Some(passed.at);
        }
        let status = (passed.tier, passed.workloads);
        if self.status != Some(status)
            && self.say(&format!("STATUS=tier {}, {} workloads", status.0, status.1))
        {
            self.status = Some(status);
        }
    }

    /// Everything is being released.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=releasing everything");
    }

    fn say(&self, what: &str) -> bool {
        let Some((socket, address)) = &self.link else { return false };
        let sent = socket.send_to_addr(what.as_bytes(), address);
        if let Err(error) = &sent {
            tracing::debug!(%error, what, "the supervisor was not told");
        }
        sent.is_ok()
    }
}

/// A path, or with a leading `@` a name in the abstract namespace.
fn link(socket: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    };
    let datagrams = UnixDatagram::unbound()?;
    datagrams.set_nonblocking(true)?;
    Ok((datagrams, address))
}

#[cfg(test)]
mod tests;
