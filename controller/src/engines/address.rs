//! Where an engine listens: parsed once, resolved and checked whenever it is connected to.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use plimsoll_policy::config::ask::Network;
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::http::Problem;

/// A parsed URL, and where that may lead.
#[derive(Clone, Debug)]
pub(super) struct Address {
    place: Place,
    /// Begins every path; empty or `/...` without a slash at the end.
    pub(super) prefix: String,
    reach: Reach,
}

/// Where somebody may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To loopback and these networks, and to sockets of the file system.
    Networks(Vec<Network>),
    /// To this address only: the URL is a pod's word.
    Only(IpAddr),
}

impl Reach {
    fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self {
            Self::Networks(networks) => {
                ip.is_loopback() || networks.iter().any(|network| network.contains(ip))
            }
            Self::Only(only) => ip == only.to_canonical(),
        }
    }

    fn refusal(&self, ip: IpAddr) -> Problem {
        Problem::Misconfigured(match self {
            Self::Networks(_) => {
                format!("`url` leads to {ip}, which is neither loopback nor in `ask.addresses`")
            }
            Self::Only(only) => format!("`url` leads to {ip}, and the pod has {only}"),
        })
    }
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
    pub(super) fn parse(url: &str, reach: Reach) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            return match &reach {
                Reach::Networks(_) => {
                    Ok(Self { place: Place::Unix(path.into()), prefix: String::new(), reach })
                }
                Reach::Only(only) => Err(format!("`url` is {url:?}, and the pod has {only}")),
            };
        }
        let wrong = || format!("`url` is {url:?}, expected http://HOST:PORT or unix:/PATH");
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { place: Place::Tcp { host, port }, prefix: prefix.trim_end_matches('/').to_owned(), reach })
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
            if !self.reach.allows(address.ip()) {
                refused = Some(address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(Stream::Tcp(stream)),
                Err(error) => last = unreachable(&error),
            }
        }
        match (refused, &last) {
            (Some(ip), Problem::Unreachable(why)) if why.ends_with("has no address") => {
                Err(self.reach.refusal(ip))
            }
            _ => Err(last),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_url_is_too_strange(url in "(http://|unix:)?[\\[\\]:/a-z0-9.@#%]{0,40}") {
            if let Ok(address) = Address::parse(&url, Reach::Networks(Vec::new())) {
                let _ = address.host();
            }
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let reach = || Reach::Networks(Vec::new());
        let parts = |url: &str| Address::parse(url, reach()).map(|address| (address.host(), address.prefix));
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
            Reach::Networks(allow).allows(ip.parse().unwrap())
        };
        assert!(allowed(&[], "127.8.8.8") && allowed(&[], "::1") && allowed(&[], "::ffff:127.0.0.1"));
        assert!(!allowed(&[], "10.0.0.1") && !allowed(&[], "0.0.0.0") && !allowed(&[], "169.254.169.254"));
        assert!(allowed(&["10.0.0.0/8"], "10.0.0.1") && allowed(&["10.0.0.0/8"], "::ffff:10.0.0.1"));
    }

    #[tokio::test]
    async fn a_pods_engine_is_in_the_pod() {
        let pod: IpAddr = "10.1.2.3".parse().unwrap();
        let only = Reach::Only(pod);
        assert!(only.allows(pod) && only.allows("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!only.allows("127.0.0.1".parse().unwrap()) && !only.allows("10.1.2.4".parse().unwrap()));
        assert!(Address::parse("unix:/run/containerd.sock", only.clone()).is_err());
        let address = Address::parse("http://localhost:10250", only).unwrap();
        assert!(matches!(address.connect().await, Err(Problem::Misconfigured(_))));
    }
}
