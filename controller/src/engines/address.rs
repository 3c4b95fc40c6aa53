//! Where an engine listens: parsed once, resolved and checked whenever it is connected to.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use plimsoll_policy::config::ways::Network;
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::http::Problem;

/// A parsed URL, and the networks beside loopback in which it may be.
#[derive(Clone, Debug)]
pub(super) struct Address {
    place: Place,
    /// Begins every path; empty or `/...` without a slash at the end.
    pub(super) prefix: String,
    allow: Vec<Network>,
}

#[derive(Clone, Debug)]
enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// A connection of either kind.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Address {
    /// Takes `http://HOST:PORT[/PREFIX]` or `unix:/PATH` apart.
    ///
    /// # Errors
    /// In words, when it is neither.
    pub(super) fn parse(url: &str, allow: &[Network]) -> Result<Self, String> {
        let place = |place, prefix: &str| Self { place, prefix: prefix.to_owned(), allow: allow.to_vec() };
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(place(Place::Unix(path.into()), ""));
        }
        let wrong = || format!("`url` is {url:?}, expected http://HOST:PORT or unix:/PATH");
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(place(Place::Tcp { host, port }, prefix.trim_end_matches('/')))
    }

    /// What a request says in its header `host`.
    pub(super) fn host(&self) -> String {
        match &self.place {
            Place::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Unix(_) => "localhost".into(),
        }
    }

    /// Connects. A name counts for nothing here: what is checked is the address that it stands for at this moment, and
    /// that one is connected to.
    pub(super) async fn connect(&self) -> Result<Stream, Problem> {
        let (host, port) = match &self.place {
            Place::Unix(path) => {
                return UnixStream::connect(path)
                    .await
                    .map(Stream::Unix)
                    .map_err(|error| unreachable(&error));
            }
            Place::Tcp { host, port } => (host, *port),
        };
        let mut refused = None;
        let mut last = Problem::Unreachable(format!("{host} has no address"));
        for address in resolve(host, port).await? {
            if !self.allowed(address.ip()) {
                refused = Some(address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(Stream::Tcp(stream)),
                Err(error) => last = unreachable(&error),
            }
        }
        match (refused, &last) {
            (Some(ip), Problem::Unreachable(why)) if why.ends_with("has no address") => Err(forbidden(ip)),
            _ => Err(last),
        }
    }

    fn allowed(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.allow.iter().any(|network| network.contains(ip))
    }
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Problem> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = lookup_host((host, port)).await;
    found
        .map(Iterator::collect)
        .map_err(|error| Problem::Unreachable(format!("{host} can't be resolved: {error}")))
}

fn unreachable(error: &std::io::Error) -> Problem {
    Problem::Unreachable(error.to_string())
}

fn forbidden(ip: IpAddr) -> Problem {
    Problem::Misconfigured(format!("`url` leads to {ip}, which is neither loopback nor in `ask.addresses`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_url_is_too_strange(url in "(http://|unix:)?[\\[\\]:/a-z0-9.@#%]{0,40}") {
            if let Ok(address) = Address::parse(&url, &[]) {
                let _ = address.host();
            }
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let parts = |url: &str| Address::parse(url, &[]).map(|address| (address.host(), address.prefix));
        let is = |host: &str, prefix: &str| Ok((host.to_owned(), prefix.to_owned()));
        assert_eq!(parts("http://127.0.0.1:8000"), is("127.0.0.1:8000", ""));
        assert_eq!(parts("http://[::1]:80/a/b/"), is("[::1]:80", "/a/b"));
        assert_eq!(parts("unix:/run/x.sock"), is("localhost", ""));
        assert!(parts("https://127.0.0.1:8000").is_err() && parts("http://host").is_err());
    }

    #[test]
    fn only_loopback_is_allowed_by_itself() {
        let allowed = |allow: &[&str], ip: &str| {
            let allow: Vec<Network> = allow.iter().map(|net| net.parse().unwrap()).collect();
            Address::parse("http://h:1", &allow).unwrap().allowed(ip.parse().unwrap())
        };
        assert!(allowed(&[], "127.8.8.8") && allowed(&[], "::1") && allowed(&[], "::ffff:127.0.0.1"));
        assert!(!allowed(&[], "10.0.0.1") && !allowed(&[], "0.0.0.0") && !allowed(&[], "169.254.169.254"));
        assert!(allowed(&["10.0.0.0/8"], "10.0.0.1") && allowed(&["10.0.0.0/8"], "::ffff:10.0.0.1"));
    }
}
