//! The sections `ask`: how askings are made (of the whole configuration), and by what means workloads can be asked (of a rule).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::engine::{EngineAt, engine};
use super::node::Node;
use super::scalar::{Flag, Form, Kind, OneOf, Part, Time};
use super::section::Section;
use crate::concession::Level;
use crate::plan::Tier;
use crate::units::{Share, Span, is_default};

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

/// By what means the workloads of a rule can be asked, besides the clients that register themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Means {
    /// The engine that serves the models.
    #[serde(skip_serializing_if = "is_default")]
    pub engine: Option<EngineAt>,
    /// Signals.
    #[serde(skip_serializing_if = "is_default")]
    pub signal: Option<Signals>,
    /// HTTP POST.
    #[serde(skip_serializing_if = "is_default")]
    pub webhook: Option<Webhook>,
    /// A program of the operator's.
    #[serde(skip_serializing_if = "is_default")]
    pub hook: Option<Hook>,
    /// NVIDIA's `cuda-checkpoint`, for programs that can't be asked; `None` = not used.
    #[serde(skip_serializing_if = "is_default")]
    pub cuda_checkpoint: Option<CudaCheckpoint>,
    /// When those are poked that listen to `MEMORY_PRESSURE_WATCH`.
    #[serde(skip_serializing_if = "is_default")]
    pub watch: Watch,
}

/// Moving GPU memory to the host and back from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaCheckpoint {
    /// Where the program is.
    pub program: String,
    /// Whether it is used on models of several processes or GPUs.
    pub several: bool,
    /// How long work that is under way is waited for.
    pub lock: Span,
}

impl Default for CudaCheckpoint {
    fn default() -> Self {
        Self { program: "/usr/bin/cuda-checkpoint".into(), several: false, lock: Span::secs(5) }
    }
}

/// Which signal says what. A level without one can't be asked for by signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Signals {
    /// For [`Level::Gc`].
    #[serde(skip_serializing_if = "is_default")]
    pub gc: Option<Signal>,
    /// For [`Level::Aggressive`].
    #[serde(skip_serializing_if = "is_default")]
    pub aggressive: Option<Signal>,
    /// For [`Level::Offload`].
    #[serde(skip_serializing_if = "is_default")]
    pub offload: Option<Signal>,
    /// For [`Level::Unload`].
    #[serde(skip_serializing_if = "is_default")]
    pub unload: Option<Signal>,
    /// After an offload or an unload; without one the program comes back by itself.
    #[serde(skip_serializing_if = "is_default")]
    pub restore: Option<Signal>,
    /// Who gets it.
    pub to: Recipients,
}

impl Signals {
    /// Sets the signal of a level; that of [`Level::Nothing`] restores.
    pub const fn set(&mut self, level: Level, signal: Signal) {
        let place = match level {
            Level::Nothing => &mut self.restore,
            Level::Gc => &mut self.gc,
            Level::Aggressive => &mut self.aggressive,
            Level::Offload => &mut self.offload,
            Level::Unload => &mut self.unload,
        };
        *place = Some(signal);
    }

    /// The signal of a level; that of [`Level::Nothing`] restores.
    #[must_use]
    pub const fn of(&self, level: Level) -> Option<Signal> {
        match level {
            Level::Nothing => self.restore,
            Level::Gc => self.gc,
            Level::Aggressive => self.aggressive,
            Level::Offload => self.offload,
            Level::Unload => self.unload,
        }
    }
}

/// Which processes of a workload get a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipients {
    /// The one that was started first.
    #[default]
    Main,
    /// All that catch it.
    All,
}

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Main => "main",
            Self::All => "all",
        })
    }
}

/// A signal that programs use for purposes of their own: none that stops, ends or continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Signal {
    /// `SIGHUP`.
    Hup,
    /// `SIGUSR1`.
    Usr1,
    /// `SIGUSR2`.
    Usr2,
    /// `SIGURG`.
    Urg,
    /// `SIGWINCH`.
    Winch,
    /// `SIGRTMIN+n`, where `SIGRTMIN` is the C library's.
    Realtime(u8),
}

/// Real-time signals beyond `SIGRTMIN` that every machine has.
const REALTIME: u8 = 29;

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hup => f.write_str("SIGHUP"),
            Self::Usr1 => f.write_str("SIGUSR1"),
            Self::Usr2 => f.write_str("SIGUSR2"),
            Self::Urg => f.write_str("SIGURG"),
            Self::Winch => f.write_str("SIGWINCH"),
            Self::Realtime(n) => write!(f, "SIGRTMIN+{n}"),
        }
    }
}

/// A text that is no signal that may be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {WORDS}")]
pub struct BadSignal(String);

const WORDS: &str = "SIGUSR1, SIGUSR2, SIGHUP, SIGURG, SIGWINCH, SIGRTMIN+0 to SIGRTMIN+29";

impl FromStr for Signal {
    type Err = BadSignal;
    fn from_str(text: &str) -> Result<Self, BadSignal> {
        if let Some(n) = text.strip_prefix("SIGRTMIN+").and_then(|n| n.parse().ok()) {
            return if n <= REALTIME { Ok(Self::Realtime(n)) } else { Err(BadSignal(text.to_owned())) };
        }
        [Self::Hup, Self::Usr1, Self::Usr2, Self::Urg, Self::Winch]
            .into_iter()
            .find(|signal| signal.to_string() == text)
            .ok_or_else(|| BadSignal(text.to_owned()))
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl TryFrom<String> for Signal {
    type Error = BadSignal;
    fn try_from(text: String) -> Result<Self, BadSignal> {
        text.parse()
    }
}

/// The value of a signal's key.
struct AnySignal;

impl Kind for AnySignal {
    type Value = Signal;
    fn read(&self, node: &Node) -> Option<Signal> {
        let Node::Text(text) = node else { return None };
        text.parse().ok()
    }
    fn expected(&self) -> String {
        format!("one of {WORDS}")
    }
}

/// Where to POST.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// `http://ADDRESS:PORT/PATH`; the address is an IP address or `localhost`.
    pub url: String,
    /// What can be asked for, gentlest first.
    pub levels: Vec<Level>,
    /// File whose first line is sent as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// Whether requests are held off while it is offloaded or unloaded.
    #[serde(skip_serializing_if = "is_default")]
    pub gated: bool,
}

/// A program that is told what to ask for, and is kept running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// The program's absolute path, and its arguments.
    pub command: Vec<String>,
    /// What can be asked for, gentlest first.
    pub levels: Vec<Level>,
    /// Whether requests are held off while it is offloaded or unloaded.
    #[serde(skip_serializing_if = "is_default")]
    pub gated: bool,
}

/// When those are poked that listen to `MEMORY_PRESSURE_WATCH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Watch {
    /// When the workload's turn has come to trim.
    #[default]
    Asked,
    /// Also when the host enters this tier or a worse one.
    Elevated,
    /// See above.
    Constrained,
    /// See above.
    Critical,
    /// See above.
    Emergency,
}

impl Watch {
    /// All values.
    pub const ALL: [Self; 5] =
        [Self::Asked, Self::Elevated, Self::Constrained, Self::Critical, Self::Emergency];

    /// The tier that pokes by itself.
    #[must_use]
    pub const fn tier(self) -> Option<Tier> {
        match self {
            Self::Asked => None,
            Self::Elevated => Some(Tier::Elevated),
            Self::Constrained => Some(Tier::Constrained),
            Self::Critical => Some(Tier::Critical),
            Self::Emergency => Some(Tier::Emergency),
        }
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tier().map_or("asked", Tier::name))
    }
}

impl FromStr for Watch {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|watch| watch.to_string() == text)
            .ok_or_else(|| format!("expected {}", OneOf(&Self::ALL).expected()))
    }
}

const SHARE: Part = Part(Share::percent(1), Share::percent(100));
const DRAIN: Part = Part(Share::percent(0), Share::percent(90));
const VERIFY_FOR: Time = Time(Span::millis(250), Span::secs(60));
const LOCK: Time = Time(Span::millis(100), Span::secs(60));
const POLL: Time = Time(Span::millis(200), Span::secs(300));
const LEVELS: OneOf<'static, Level> = OneOf(&Level::ALL);
const FILE: Form = Form(super::daemon::absolute, "an absolute path");
const ARGUMENT: Form = Form(|text| !text.contains('\0'), "a text");
const URL: Form = Form(
    |text| text.starts_with("http://") && text.len() < 2048 && !text.contains(char::is_whitespace),
    "a URL like http://127.0.0.1:8000/memory",
);
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

pub(super) fn means(section: &mut Section<'_>) -> Means {
    let mut means = Means {
        engine: section.optional("engine", engine),
        signal: section.optional("signal", signals),
        webhook: section.optional("webhook", webhook),
        hook: section.optional("hook", hook),
        cuda_checkpoint: section.optional("cuda_checkpoint", cuda_checkpoint),
        watch: Watch::default(),
    };
    section.set("watch", &mut means.watch, &OneOf(&Watch::ALL));
    means
}

fn signals(section: &mut Section<'_>) -> Signals {
    let signals = Signals {
        gc: section.get("gc", &AnySignal),
        aggressive: section.get("aggressive", &AnySignal),
        offload: section.get("offload", &AnySignal),
        unload: section.get("unload", &AnySignal),
        restore: section.get("restore", &AnySignal),
        to: section.get("to", &OneOf(&[Recipients::Main, Recipients::All])).unwrap_or_default(),
    };
    if section.clean() && Level::ALL.iter().all(|level| signals.of(*level).is_none()) {
        section.conflict("", "names no signal for gc, aggressive, offload or unload".into());
    }
    signals
}

fn webhook(section: &mut Section<'_>) -> Webhook {
    let mut webhook = Webhook { url: section.need("url", &URL).unwrap_or_default(), ..Webhook::default() };
    webhook.levels = levels(section);
    webhook.secret_file = section.get("secret_file", &FILE);
    section.set("gated", &mut webhook.gated, &Flag);
    webhook
}

fn hook(section: &mut Section<'_>) -> Hook {
    let mut hook = Hook { command: command(section), levels: levels(section), gated: false };
    section.set("gated", &mut hook.gated, &Flag);
    hook
}

fn cuda_checkpoint(section: &mut Section<'_>) -> CudaCheckpoint {
    let mut checkpoint = CudaCheckpoint::default();
    section.set("program", &mut checkpoint.program, &FILE);
    section.set("several", &mut checkpoint.several, &Flag);
    section.set("lock", &mut checkpoint.lock, &LOCK);
    checkpoint
}

fn command(section: &mut Section<'_>) -> Vec<String> {
    if !section.has("command") {
        section.need("command", &ARGUMENT);
        return Vec::new();
    }
    let command = section.list("command", &ARGUMENT).unwrap_or_default();
    if section.clean() && command.first().and_then(|path| FILE.read(&Node::Text(path.clone()))).is_none() {
        section.conflict("command", "has to begin with the absolute path of a program".into());
    }
    command
}

/// Levels that can be asked for, gentlest first whatever the order they were written in.
fn levels(section: &mut Section<'_>) -> Vec<Level> {
    if !section.has("levels") {
        section.need("levels", &LEVELS);
        return Vec::new();
    }
    let mut levels = section.list("levels", &LEVELS).unwrap_or_default();
    levels.sort();
    levels.dedup();
    if section.clean() && levels.is_empty() {
        section.conflict("levels", "is empty: then it can't be asked for anything".into());
    }
    levels
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

    #[test]
    fn only_signals_that_programs_use_for_themselves() {
        for word in ["SIGUSR1", "SIGHUP", "SIGWINCH", "SIGRTMIN+0", "SIGRTMIN+29"] {
            assert_eq!(word.parse::<Signal>().map(|signal| signal.to_string()), Ok(word.to_owned()));
        }
        for word in ["SIGKILL", "SIGSTOP", "SIGTERM", "SIGCONT", "9", "USR1", "SIGRTMIN+30", "SIGRTMIN+", ""]
        {
            assert!(word.parse::<Signal>().is_err(), "{word}");
        }
    }
}
