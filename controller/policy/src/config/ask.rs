//! The section `ask` of the whole configuration: how askings are made, whoever is asked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::node::Node;
use super::scalar::{Kind, Part, Time};
use super::section::Section;
use crate::units::{Share, Span};

/// How askings are made, whoever is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ask {
    /// Share of what was expected that the meters have to show for an asking to count as done.
    pub verify_share: Share,
    /// How long the meters are watched after a workload said that it is done.
    pub verify_for: Span,
    /// How often a workload is looked up for what it can be asked for.
    pub poll: Span,
    /// Share of an asking's time that requests in flight are waited for at most, before an offload or an unload.
    pub drain: Share,
    /// Where engines and webhooks may be besides this machine's loopback addresses.
    pub addresses: Vec<Network>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            verify_share: Share::percent(75),
            verify_for: Span::secs(5),
            poll: Span::secs(5),
            drain: Share::percent(50),
            addresses: Vec::new(),
        }
    }
}

impl Ask {
    /// Whether an engine or a webhook may be at this address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || self.addresses.iter().any(|network| network.contains(address))
    }
}

/// Addresses with the same first bits, written `10.1.2.3` or `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, width) = number(self.address);
        let (other, others_width) = number(address);
        // All bits shifted out would be an overflow, and what is left of them is nothing.
        width == others_width && (ours ^ other).checked_shr(width - self.bits).unwrap_or(0) == 0
    }
}

/// An address as a number, and how many bits it has.
fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (address.to_bits().into(), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// A text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a network: {0:?}")]
pub struct BadNetwork(String);

impl FromStr for Network {
    type Err = BadNetwork;
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let width = number(address).1;
        let bits = bits.unwrap_or(width);
        if bits <= width { Ok(Self { address, bits }) } else { Err(bad()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;
    fn try_from(text: String) -> Result<Self, BadNetwork> {
        text.parse()
    }
}

impl Kind for Network {
    type Value = Self;
    fn read(&self, node: &Node) -> Option<Self> {
        let Node::Text(text) = node else { return None };
        text.parse().ok()
    }
    fn expected(&self) -> String {
        "an IP address or a network, like 10.1.2.3 or 10.1.0.0/16".into()
    }
}

const SHARE: Part = Part(Share::percent(1), Share::percent(100));
const DRAIN: Part = Part(Share::percent(0), Share::percent(90));
const VERIFY_FOR: Time = Time(Span::millis(250), Span::secs(60));
const POLL: Time = Time(Span::millis(200), Span::secs(300));
const ANY_NETWORK: Network = Network { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), bits: 32 };

pub(super) fn ask(section: &mut Section<'_>) -> Ask {
    let mut ask = Ask::default();
    section.set("verify_share", &mut ask.verify_share, &SHARE);
    section.set("verify_for", &mut ask.verify_for, &VERIFY_FOR);
    section.set("poll", &mut ask.poll, &POLL);
    section.set("drain", &mut ask.drain, &DRAIN);
    if section.has("addresses") {
        ask.addresses = section.list("addresses", &ANY_NETWORK).unwrap_or_default();
    }
    ask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let allows = |networks: &[&str], address: &str| {
            let addresses = networks.iter().map(|text| text.parse().unwrap()).collect();
            Ask { addresses, ..Ask::default() }.allows(address.parse().unwrap())
        };
        assert!(allows(&[], "127.0.0.9") && allows(&[], "::1") && allows(&[], "::ffff:127.0.0.1"));
        assert!(!allows(&[], "10.1.2.3") && !allows(&[], "::ffff:10.1.2.3"));
        assert!(allows(&["10.1.0.0/16"], "10.1.2.3") && !allows(&["10.1.0.0/16"], "10.2.2.3"));
        assert!(allows(&["10.1.2.3"], "10.1.2.3") && !allows(&["10.1.2.3"], "10.1.2.4"));
        assert!(allows(&["0.0.0.0/0"], "8.8.8.8") && !allows(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(allows(&["::/0"], "2001:db8::1"));
        for bad in ["10.1.2.3/33", "10.1.2", "host", "10.1.2.3/", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
