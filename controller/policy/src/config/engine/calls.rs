//! Key `calls` of an engine of kind `http`: one HTTP request for each thing that can be asked of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::scalar::{Form, OneOf, Whole};
use super::super::section::Section;

const PATH: Form = Form(path, "a path that begins with '/', with a query if need be");
const HEADER: Form = Form(header, "a header, written like 'X-Name: value'");
const TEXT: Form = Form(|_| true, "text");
const POINTER: Form = Form(|text| text.starts_with('/'), "a JSON pointer to a number, like /queue/running");
const STATUS: Whole = Whole(200, 599);

/// What to call; what is left out is not offered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Calls {
    /// Whether it is there at all.
    pub probe: Option<Call>,
    /// How many requests it serves: the number at `number`.
    pub inflight: Option<Call>,
    /// Holds requests off.
    pub close: Option<Call>,
    /// Lets requests in again.
    pub open: Option<Call>,
    /// Level `gc`.
    pub gc: Option<Call>,
    /// Level `aggressive`.
    pub aggressive: Option<Call>,
    /// Level `offload`.
    pub offload: Option<Call>,
    /// Level `unload`.
    pub unload: Option<Call>,
    /// Takes everything back.
    pub restore: Option<Call>,
    /// A request that shows that it serves.
    pub smoke: Option<Call>,
    /// Asks it to end.
    pub stop: Option<Call>,
}

/// One request and what its answer has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Call {
    /// How.
    pub method: Method,
    /// Path and query, below the URL of the engine.
    pub path: String,
    /// Further headers, as `Name: value`.
    pub headers: Vec<String>,
    /// What is sent, as it is written; JSON unless a header says otherwise.
    pub body: Option<String>,
    /// The status that is right; `None` = every 2xx.
    pub status: Option<u16>,
    /// Text that a right answer contains.
    pub contains: Option<String>,
    /// Where in the answer the number is, as a JSON pointer.
    pub number: Option<String>,
}

/// Methods of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        })
    }
}

pub(super) fn calls(section: &mut Section<'_>) -> Calls {
    let calls = Calls {
        probe: section.optional("probe", call),
        inflight: section.optional("inflight", call),
        close: section.optional("close", call),
        open: section.optional("open", call),
        gc: section.optional("gc", call),
        aggressive: section.optional("aggressive", call),
        offload: section.optional("offload", call),
        unload: section.optional("unload", call),
        restore: section.optional("restore", call),
        smoke: section.optional("smoke", call),
        stop: section.optional("stop", call),
    };
    if calls.inflight.as_ref().is_some_and(|call| call.number.is_none()) {
        section.conflict("inflight", "needs `number`, where in the answer the number of requests is".into());
    }
    if calls.close.is_some() != calls.open.is_some() {
        section.conflict(
            "",
            "has only one of `close` and `open`: requests held off must be let in again".into(),
        );
    }
    calls
}

fn call(section: &mut Section<'_>) -> Call {
    let mut call = Call::default();
    section.set("method", &mut call.method, &OneOf(&METHODS));
    call.path = section.need("path", &PATH).unwrap_or_default();
    call.headers = section.list("headers", &HEADER).unwrap_or_default();
    call.body = section.get("body", &TEXT);
    call.status = section.get("status", &STATUS).and_then(|status| u16::try_from(status).ok());
    call.contains = section.get("contains", &TEXT);
    call.number = section.get("number", &POINTER);
    call
}

const METHODS: [Method; 5] = [Method::Get, Method::Post, Method::Put, Method::Patch, Method::Delete];

fn path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

fn header(text: &str) -> bool {
    let printable = |b: u8| b == b' ' || b.is_ascii_graphic();
    let name = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    text.split_once(':').is_some_and(|(first, rest)| {
        !first.is_empty() && first.bytes().all(name) && rest.bytes().all(printable)
    })
}
