//! From a method and its parameters to a call of the policy.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use plimsoll_policy::admission::{Call, Reserve};
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::{Bytes, Span};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::operator::{self, Operation, OperatorRefusal};
use super::parameters::{Parameters, wrong};
use super::peer::{Peer, cgroup_at};
use super::programs::{self, ProgramCall};
use super::protocol::{ControlRefusal, Info, Said};
use crate::exec::xattrs;

/// Sizes that one request may try.
const SIZES: usize = 16;
const SIZE: std::ops::RangeInclusive<u64> = 1..=i64::MAX as u64;
const SOME_SIZE: std::ops::RangeInclusive<u64> = 0..=i64::MAX as u64;
const NUMBER: std::ops::RangeInclusive<u64> = 0..=i64::MAX as u64;
const TTL: std::ops::RangeInclusive<u64> = 1..=3600;
const WAIT: std::ops::RangeInclusive<u64> = 0..=3600;

/// A call as it comes in.
#[derive(Debug, Deserialize)]
pub(super) struct Raw {
    method: String,
    parameters: Option<Map<String, Value>>,
}

impl From<zlink::Call<Raw>> for Raw {
    fn from(call: zlink::Call<Raw>) -> Self {
        let Raw { method, parameters } = call.method();
        Self { method: method.clone(), parameters: parameters.clone() }
    }
}

/// What is to be done about a call.
#[derive(Debug)]
pub(super) enum Todo {
    /// The pass has to answer it; it is about this reservation (0 where it is about none).
    Ask(Call, u64),
    /// The answer is known.
    Say(Said),
    /// A program that can be asked has something to say.
    Program(ProgramCall),
    /// Somebody who runs the machine wants something.
    Operate(Operation),
    /// Notices are wanted from now on.
    Subscribe,
}

/// Why a call is turned down before it comes to the pass.
#[derive(Debug)]
pub(super) enum Rejection {
    /// In the words of our interface.
    Ours(ControlRefusal),
    /// In those of the interface for operators.
    Operator(OperatorRefusal),
    /// In those of every Varlink service.
    Service(zlink::varlink_service::Error<'static>),
}

impl From<OperatorRefusal> for Rejection {
    fn from(error: OperatorRefusal) -> Self {
        Self::Operator(error)
    }
}

impl From<ControlRefusal> for Rejection {
    fn from(error: ControlRefusal) -> Self {
        Self::Ours(error)
    }
}

/// Reads a call of this client.
pub(super) fn read(raw: Raw, peer: &Peer, cgroup_root: &Path) -> Result<Todo, Rejection> {
    let mut given = Parameters::from(raw.parameters);
    let todo = match raw.method.as_str() {
        "org.varlink.service.GetInfo" => Todo::Say(Said::Info(Info::OURS)),
        "org.varlink.service.GetInterfaceDescription" => Todo::Say(describe(&mut given)?),
        "dev.plimsoll.Control.Reserve" => {
            Todo::Ask(Call::Reserve(reserve(&mut given, peer, cgroup_root)?), 0)
        }
        "dev.plimsoll.Control.ReportOom" => {
            Todo::Ask(Call::ReportOom { cgroup: holder(&mut given, peer, cgroup_root)? }, 0)
        }
        "dev.plimsoll.Control.Headroom" => Todo::Ask(Call::Headroom, 0),
        "dev.plimsoll.Control.Subscribe" => Todo::Subscribe,
        method => other(method, &mut given, peer)?,
    };
    given.end()?;
    Ok(todo)
}

/// The calls of programs, of operators, and about one reservation.
fn other(method: &str, given: &mut Parameters, peer: &Peer) -> Result<Todo, Rejection> {
    if let Some(name) = method.strip_prefix("dev.plimsoll.Operator.") {
        // Strangers are not told what is wrong with their parameters.
        let operation = operator::read(name, given).ok_or_else(|| unknown(method))?;
        return if peer.operator { operation.map(Todo::Operate) } else { Err(denied()) };
    }
    let name = method.strip_prefix("dev.plimsoll.Control.").unwrap_or_default();
    match programs::read(name, given) {
        Some(call) => call.map(Todo::Program),
        None => about_one(method, given),
    }
}

/// The calls about one reservation.
fn about_one(method: &str, given: &mut Parameters) -> Result<Todo, Rejection> {
    let name = method.strip_prefix("dev.plimsoll.Control.").unwrap_or_default();
    if !matches!(name, "Amend" | "Commit" | "Heartbeat" | "Release") {
        return Err(unknown(method));
    }
    let id = given.needed("id", NUMBER)?;
    let call = match name {
        "Amend" => Call::Amend { id, bytes: Bytes(given.needed("size", SIZE)?) },
        "Commit" => Call::Commit { id, measured: Bytes(given.needed("measured", SOME_SIZE)?) },
        "Heartbeat" => Call::Heartbeat { id },
        _ => Call::Release { id },
    };
    Ok(Todo::Ask(call, id))
}

/// The interface that lacks the method, or the method.
fn unknown(method: &str) -> Rejection {
    use zlink::varlink_service::Error;
    let interface = method.rsplit_once('.').map_or(method, |(interface, _)| interface);
    let ours = Info::OURS.knows(interface);
    let short = |text: &str| text.chars().take(128).collect::<String>().into();
    Rejection::Service(if ours {
        Error::MethodNotFound { method: short(method) }
    } else {
        Error::InterfaceNotFound { interface: short(interface) }
    })
}

fn describe(given: &mut Parameters) -> Result<Said, Rejection> {
    let interface = given.text("interface")?.ok_or_else(|| wrong("interface", "is missing"))?;
    match interface.as_str() {
        "dev.plimsoll.Control" => Ok(Said::Description { description: super::INTERFACE }),
        "dev.plimsoll.Operator" => Ok(Said::Description { description: super::OPERATOR }),
        "org.varlink.service" => Ok(Said::Description { description: super::SERVICE }),
        other => Err(unknown(&format!("{other}."))),
    }
}

fn reserve(given: &mut Parameters, peer: &Peer, cgroup_root: &Path) -> Result<Reserve, Rejection> {
    let holder = holder(given, peer, cgroup_root)?;
    let sizes = given.numbers("sizes", SIZES, &SIZE)?.into_iter().map(Bytes).collect();
    let dir = cgroup_root.join(&*holder.path);
    Ok(Reserve {
        sizes,
        gpus: gpus(given)?,
        current: current(&dir),
        populated: peer.cgroup.as_ref() == Some(&holder),
        priority: xattrs::read(&dir, "", &[]).map_or(0, |(spec, _)| spec.priority),
        ttl: given.number("ttlSeconds", TTL)?.map(Span::secs),
        wait: given.number("waitSeconds", WAIT)?.map_or(Span::ZERO, Span::secs),
        detached: given.flag("detached")?,
        holder,
    })
}

/// Bytes by id of the GPU.
fn gpus(given: &mut Parameters) -> Result<BTreeMap<GpuId, Bytes>, Rejection> {
    let expected = "has to be whole numbers of at least 1 by id of at most 16 GPUs";
    let gpus: BTreeMap<String, u64> = given.any("gpus", expected)?.unwrap_or_default();
    if gpus.len() > SIZES || gpus.iter().any(|(id, bytes)| id.len() > 256 || !SIZE.contains(bytes)) {
        return Err(wrong("gpus", expected).into());
    }
    Ok(gpus.into_iter().map(|(id, bytes)| (GpuId::from(id), Bytes(bytes))).collect())
}

/// The cgroup that a call is about: the caller's, or the one that root names.
fn holder(given: &mut Parameters, peer: &Peer, cgroup_root: &Path) -> Result<WorkloadId, Rejection> {
    let named = given.text("cgroup")?.map(|path| path.trim_matches('/').to_owned());
    let Some(path) = named else {
        return peer.cgroup.clone().ok_or_else(denied);
    };
    if peer.cgroup.as_ref().is_some_and(|own| *own.path == *path) {
        return peer.cgroup.clone().ok_or_else(denied);
    }
    if !peer.root {
        return Err(denied());
    }
    let climbs = path.split('/').any(|part| part == "..");
    let found = if climbs { None } else { cgroup_at(cgroup_root, &path).ok() };
    found.ok_or_else(|| wrong("cgroup", "names no cgroup below the root of the tree").into())
}

fn denied() -> Rejection {
    Rejection::Service(zlink::varlink_service::Error::PermissionDenied)
}

/// `memory.current`; the root cgroup has none.
fn current(dir: &Path) -> Bytes {
    let text = fs::read_to_string(dir.join("memory.current")).unwrap_or_default();
    Bytes(text.trim().parse().unwrap_or(0))
}
