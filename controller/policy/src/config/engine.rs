//! Key `ask.engine` of a rule: which engine serves the workload's models, and where it listens.

mod calls;

pub use calls::{Call, Calls, Method};

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::scalar::{Form, Memory, OneOf};
use super::section::Section;
use crate::units::Bytes;

const SECRET: Form = Form(super::daemon::absolute, "the absolute path of a file");
const MODEL: Form = Form(model, "the name of a model, as the engine calls it");
const URL: Form = Form(url, "http://HOST:PORT, with a path if need be, or unix:/PATH");
const LIMIT: Memory = Memory(Bytes::mib(1), Bytes(1 << 60));

/// An engine as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineAt {
    /// Which engine.
    pub kind: EngineKind,
    /// `http://HOST:PORT[/PREFIX]` or `unix:/PATH`; empty where the kind needs none.
    pub url: String,
    /// The one address where it may be, loopback or not: that of the pod that it is in. `None` = where `ask.addresses` says. No
    /// configuration has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<IpAddr>,
    /// File with the key, token or `user:password` that it wants; read whenever it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// The models that this workload is; empty = all that the engine has loaded. Of kvcached: names of its segments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// TF Serving: its model config file, which it polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_file: Option<String>,
    /// kvcached: the limit of a segment when nothing is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_limit: Option<Bytes>,
    /// Kind `http`: what to call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<Calls>,
}

/// The engines that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Found out by what answers at the address.
    #[default]
    Auto,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// TensorRT-LLM.
    Trtllm,
    /// Ollama.
    Ollama,
    /// llama.cpp's server with one model.
    Llamacpp,
    /// llama.cpp's server as a router of several models.
    #[serde(rename = "llamacpp-router")]
    LlamacppRouter,
    /// llama-swap.
    #[serde(rename = "llama-swap")]
    LlamaSwap,
    /// Triton inference server.
    Triton,
    /// TensorFlow Serving.
    Tfserving,
    /// TorchServe's management address.
    Torchserve,
    /// LM Studio.
    Lmstudio,
    /// LocalAI.
    Localai,
    /// ComfyUI.
    Comfyui,
    /// Stable Diffusion web UI, Forge, SD.Next.
    Sdwebui,
    /// Ray Serve LLM with its development ingress.
    Ray,
    /// kvcached's limit of KV cache.
    Kvcached,
    /// Anything else that speaks HTTP, by configured calls.
    Http,
}

impl EngineKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 18] = [
        Self::Auto,
        Self::Vllm,
        Self::Sglang,
        Self::Trtllm,
        Self::Ollama,
        Self::Llamacpp,
        Self::LlamacppRouter,
        Self::LlamaSwap,
        Self::Triton,
        Self::Tfserving,
        Self::Torchserve,
        Self::Lmstudio,
        Self::Localai,
        Self::Comfyui,
        Self::Sdwebui,
        Self::Ray,
        Self::Kvcached,
        Self::Http,
    ];

    /// The word used in configuration, in logs and in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Trtllm => "trtllm",
            Self::Ollama => "ollama",
            Self::Llamacpp => "llamacpp",
            Self::LlamacppRouter => "llamacpp-router",
            Self::LlamaSwap => "llama-swap",
            Self::Triton => "triton",
            Self::Tfserving => "tfserving",
            Self::Torchserve => "torchserve",
            Self::Lmstudio => "lmstudio",
            Self::Localai => "localai",
            Self::Comfyui => "comfyui",
            Self::Sdwebui => "sdwebui",
            Self::Ray => "ray",
            Self::Kvcached => "kvcached",
            Self::Http => "http",
        }
    }

    /// Whether it can't be asked without knowing the names of its models.
    const fn needs_models(self) -> bool {
        matches!(self, Self::Tfserving | Self::Localai | Self::Ray | Self::Kvcached)
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads the section.
pub(super) fn engine(section: &mut Section<'_>) -> EngineAt {
    let mut at = EngineAt { kind: EngineKind::Auto, ..EngineAt::default() };
    section.set("kind", &mut at.kind, &OneOf(&EngineKind::ALL));
    at.url = section.get("url", &URL).unwrap_or_default();
    at.secret_file = section.get("secret_file", &SECRET);
    at.models = section.list("models", &MODEL).unwrap_or_default();
    at.config_file = section.get("config_file", &SECRET);
    at.kv_limit = section.get("kv_limit", &LIMIT);
    at.calls = section.optional("calls", calls::calls);
    if section.clean() {
        contradictions(section, &at);
    }
    at
}

/// Keys that belong to some kinds only: there they are needed, elsewhere they would do nothing.
fn contradictions(section: &mut Section<'_>, at: &EngineAt) {
    let own = [
        ("config_file", at.config_file.is_some(), EngineKind::Tfserving),
        ("kv_limit", at.kv_limit.is_some(), EngineKind::Kvcached),
        ("calls", at.calls.is_some(), EngineKind::Http),
    ];
    for (key, given, kind) in own {
        match (given, at.kind == kind) {
            (false, true) => section.conflict("", format!("needs `{key}`, for kind {kind}")),
            (true, false) => section.conflict(key, format!("is for kind {kind} only")),
            _ => {}
        }
    }
    if at.kind.needs_models() && at.models.is_empty() {
        section.conflict("", format!("needs `models`: kind {} can't list what it has loaded", at.kind));
    }
    match (at.url.is_empty(), at.kind == EngineKind::Kvcached) {
        (true, false) => section.conflict("", "needs `url`, the address where the engine listens".into()),
        (false, true) => section.conflict("url", "is of no use: kvcached is reached by shared memory".into()),
        _ => {}
    }
}

fn model(text: &str) -> bool {
    (1..=512).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Only its form: what it resolves to is checked when it is used.
fn url(text: &str) -> bool {
    let path = text.strip_prefix("unix:").is_some_and(super::daemon::absolute);
    (path && plain(text)) || http(text)
}

/// The same without sockets of the file system.
pub(super) fn http(text: &str) -> bool {
    plain(text) && text.strip_prefix("http://").is_some_and(host_and_port)
}

fn plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace() || "?#@".contains(c))
}

fn host_and_port(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests;
