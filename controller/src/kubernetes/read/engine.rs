//! The engine in a pod: always at the pod's own address, whatever its annotations say.

use std::net::IpAddr;

use plimsoll_policy::config::annotations::{Annotations, At, Engine};
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::engine::EngineAt;

use super::object::ApiPod;

/// The address of a pod: the first that the node gave it.
pub(super) fn address(pod: &ApiPod) -> Option<IpAddr> {
    addresses(pod).next()
}

fn addresses(pod: &ApiPod) -> impl Iterator<Item = IpAddr> {
    let all = std::iter::once(&pod.status.pod_ip).chain(pod.status.pod_ips.iter().map(|ip| &ip.ip));
    all.filter_map(|ip| Some(ip.parse::<IpAddr>().ok()?.to_canonical())).filter(|ip| belongs_to_a_pod(*ip))
}

/// What no network gives to a pod: there the node itself would answer, its cloud, or nobody in particular.
fn belongs_to_a_pod(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

/// Where the engine of a pod is; `None` where it has none, or as long as it has no address. An error is what is wrong with which
/// annotation.
pub(super) fn engine(
    pod: &ApiPod,
    said: &Annotations,
    ask: &Ask,
) -> Result<Option<EngineAt>, (&'static str, String)> {
    let Some(Engine { kind, at }) = &said.engine else { return Ok(None) };
    let (key, rest) = match at {
        At::Port(port) => ("engine-port", port.to_string()),
        At::Url(url) => ("engine-url", beyond_host(pod, url).map_err(|why| ("engine-url", why))?),
    };
    let Some(ip) = address(pod) else { return Ok(None) };
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    let at =
        EngineAt { kind: *kind, url: format!("http://{host}:{rest}"), only: Some(ip), ..EngineAt::default() };
    if !shares_the_nodes(pod, ip) {
        return Ok(Some(at));
    }
    // There the kubelet and everything else of the node listens as well.
    if ask.allows(ip) {
        return Ok(Some(at));
    }
    let why =
        format!("the pod has the node's address, {ip}, which is not in `ask.addresses`; no engine is asked");
    Err((key, why))
}

fn shares_the_nodes(pod: &ApiPod, ip: IpAddr) -> bool {
    pod.spec.host_network || pod.status.host_ip.parse() == Ok(ip)
}

/// What comes after the host in a URL whose host is the pod: `PORT[/PATH]`.
fn beyond_host(pod: &ApiPod, url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = authority.rsplit_once(':').unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let known = addresses(pod).next().is_some();
    let is_pod = bare == "localhost"
        || ip.is_some_and(|ip| ip.is_loopback() || !known || addresses(pod).any(|own| own == ip));
    if is_pod {
        return Ok(format!("{port}{path}"));
    }
    let host: String = host.chars().take(64).collect();
    Err(format!("leads to {host:?}, expected localhost or the pod's own IP; no engine is asked"))
}
