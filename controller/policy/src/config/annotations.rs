//! Annotations of a pod, `plimsoll.dev/...`: the words, units and ranges of the configuration, one text each.
//!
//! Whoever may create pods writes them, so every text is bounded, and one that is wrong costs nothing but itself: it has its safe
//! default, and what is said of it is short and on one line.

use std::collections::BTreeMap;

use super::engine::EngineKind;
use super::error::ConfigError;
use super::ladder;
use super::node::Node;
use super::rules::{PREFERENCE, RESTART};
use super::scalar::{Form, Memory, OneOf, Time, Whole};
use super::section::{Errors, Section, within};
use crate::sample::{Preference, Rung};
use crate::units::{Bytes, Span};

/// What all keys begin with.
pub const PREFIX: &str = "plimsoll.dev/";

/// No value needs more: that of `container` is the longest, with names of at most 63 characters.
const LONGEST: usize = 1024;
/// Mistakes of one pod that are told; Kubernetes takes 256 KiB of annotations.
const MISTAKES: usize = 16;

/// The range of priorities that users of Kubernetes can give: what is above is for the system.
const PRIORITY: Whole = Whole(i32::MIN as i128, 1_000_000_000);
const PORT: Whole = Whole(1, 65535);
const URL: Form = Form(
    super::engine::http,
    "http://localhost:PORT, with a path if need be; the host is localhost, which means the pod, or the pod's own IP",
);
const CONTAINER: Form = Form(super::kubernetes::label, "the name of a container");
/// More than an hour is not the end of a pod that somebody waits for.
const GRACE: Time = Time(Span::ZERO, Span::secs(3600));
const NEEDS: Memory = Memory(Bytes::mib(1), Bytes(1 << 50));
/// Those that need nothing but an address: no file of the host, no shared memory, no list of models.
const ENGINES: OneOf<'static, EngineKind> = OneOf(&[
    EngineKind::Auto,
    EngineKind::Vllm,
    EngineKind::Sglang,
    EngineKind::Trtllm,
    EngineKind::Ollama,
    EngineKind::Llamacpp,
    EngineKind::LlamacppRouter,
    EngineKind::LlamaSwap,
    EngineKind::Triton,
    EngineKind::Torchserve,
    EngineKind::Lmstudio,
    EngineKind::Comfyui,
    EngineKind::Sdwebui,
]);

/// What a pod says of itself. What it does not say is `None`; what it says wrongly has its safe default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// `priority`.
    pub priority: Option<i32>,
    /// `preference`; [`Preference::Avoid`] where it is wrong.
    pub preference: Option<Preference>,
    /// `rungs`, gentlest first; only [`Rung::Trim`] where they are wrong.
    pub rungs: Option<Vec<Rung>>,
    /// `engine`, with `engine-url` or `engine-port`.
    pub engine: Option<Engine>,
    /// `container`, in the order given; empty = every ordinary one.
    pub containers: Vec<String>,
    /// `grace`.
    pub grace: Option<Span>,
    /// `restart-cost`.
    pub restart_cost: Option<Span>,
    /// `needs`.
    pub needs: Option<Bytes>,
}

/// An engine within the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Which one.
    pub kind: EngineKind,
    /// Where it listens.
    pub at: At,
}

/// Where in a pod something listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// On a port.
    Port(u16),
    /// At `http://HOST:PORT[/PATH]`. Whether the host is the pod is for whoever knows its addresses to see.
    Url(String),
}

/// What is wrong with one annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Its key without the prefix, of at most about 64 characters.
    pub key: String,
    /// What was found, what was expected, and what holds instead; one line.
    pub why: String,
}

/// Reads the annotations of a pod that begin with [`PREFIX`]; others are passed over.
#[must_use]
pub fn read(all: &BTreeMap<String, String>) -> (Annotations, Vec<Mistake>) {
    let ours = all.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())));
    let (long, given): (Vec<_>, Vec<_>) = ours.partition(|(_, value)| value.len() > LONGEST);
    let tree = Node::Map(given.into_iter().map(|(key, value)| (key.to_owned(), node(key, value))).collect());
    let mut errors = Errors::new();
    let mut read = within(String::new(), &tree, &mut errors, section);
    let mut mistakes: Vec<Mistake> =
        errors.iter().map(mistake).chain(long.into_iter().map(too_long)).collect();
    for mistake in &mistakes {
        read.fall_back(&mistake.key);
    }
    // Of a list with several mistakes the first is enough.
    mistakes.dedup_by(|later, earlier| later.key == earlier.key);
    mistakes.truncate(MISTAKES);
    (read, mistakes)
}

impl Annotations {
    /// What holds instead of a wrong one. Whatever of an engine is wrong, there is none.
    fn fall_back(&mut self, key: &str) {
        match key {
            "priority" => self.priority = None,
            "preference" => self.preference = Some(Preference::Avoid),
            "rungs" => self.rungs = Some(vec![Rung::Trim]),
            "engine" | "engine-url" | "engine-port" => self.engine = None,
            "container" => self.containers.clear(),
            "grace" => self.grace = None,
            "restart-cost" => self.restart_cost = None,
            "needs" => self.needs = None,
            _ => {}
        }
    }
}

/// The same in words.
fn instead(key: &str) -> &'static str {
    match key {
        "priority" => "the priority of the pod's PriorityClass holds",
        "preference" => "avoid holds",
        "rungs" => "only trim is allowed",
        "engine" | "engine-url" | "engine-port" => "no engine is asked",
        "container" => "every ordinary container holds",
        "grace" => "the pod's terminationGracePeriodSeconds holds",
        "restart-cost" => "none holds",
        "needs" => "nothing is reserved",
        _ => "it has no effect",
    }
}

/// Annotations are texts; those that are numbers or lists are made such, in one way only.
fn node(key: &str, value: &str) -> Node {
    let number = || value.parse::<i128>().ok().filter(|number| number.to_string() == value);
    match key {
        "priority" | "engine-port" => number().map_or_else(|| Node::Text(value.to_owned()), Node::Int),
        "rungs" | "container" => {
            Node::List(value.split(',').map(|item| Node::Text(item.trim().to_owned())).collect())
        }
        _ => Node::Text(value.to_owned()),
    }
}

fn section(section: &mut Section<'_>) -> Annotations {
    let priority = section.get("priority", &PRIORITY).and_then(|number| i32::try_from(number).ok());
    Annotations {
        priority,
        preference: section.get("preference", &PREFERENCE),
        rungs: ladder::rungs(section),
        engine: engine(section),
        containers: containers(section),
        grace: section.get("grace", &GRACE),
        restart_cost: section.get("restart-cost", &RESTART),
        needs: section.get("needs", &NEEDS),
    }
}

fn engine(section: &mut Section<'_>) -> Option<Engine> {
    let kind = section.get("engine", &ENGINES);
    let port = section.get("engine-port", &PORT).and_then(|port| u16::try_from(port).ok()).map(At::Port);
    let url = section.get("engine-url", &URL).map(At::Url);
    match (section.has("engine-port"), section.has("engine-url")) {
        (true, true) => {
            section.conflict(
                "engine-port",
                "is given together with engine-url, of which only one can be".into(),
            );
        }
        (false, false) if section.has("engine") => {
            section.conflict("engine", "does not say where: engine-port or engine-url is missing".into());
        }
        _ => {}
    }
    Some(Engine { kind: kind.unwrap_or_default(), at: port.or(url)? })
}

fn containers(section: &mut Section<'_>) -> Vec<String> {
    let names = section.list("container", &CONTAINER).unwrap_or_default();
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        section.conflict("container", format!("names {} twice", twice.1));
    }
    names
}

fn too_long((key, value): (&str, &str)) -> Mistake {
    let found = format!("has {} bytes, expected at most {LONGEST}", value.len());
    Mistake { key: bounded(key), why: format!("{found}; {}", instead(key)) }
}

fn mistake(error: &ConfigError) -> Mistake {
    // `rungs[1]` is in `rungs`.
    let key = error.path.split('[').next().unwrap_or_default();
    Mistake { key: bounded(key), why: format!("{}; {}", error.problem, instead(key)) }
}

/// As much of a key as people need to find it.
fn bounded(key: &str) -> String {
    key.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> (Annotations, Vec<String>) {
        let all = pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        let (annotations, mistakes) = read(&all);
        (annotations, mistakes.into_iter().map(|Mistake { key, why }| format!("{key} {why}")).collect())
    }

    #[test]
    fn a_pod_that_says_everything() {
        let (said, mistakes) = of(&[
            ("priority", "-10"),
            ("preference", "avoid"),
            ("rungs", "kill, trim,freeze"),
            ("engine", "vllm"),
            ("engine-port", "8000"),
            ("container", "server, sidecar"),
            ("grace", "90s"),
            ("restart-cost", "2m"),
            ("needs", "16GiB"),
        ]);
        let expected = Annotations {
            priority: Some(-10),
            preference: Some(Preference::Avoid),
            rungs: Some(vec![Rung::Trim, Rung::Freeze, Rung::Kill]),
            engine: Some(Engine { kind: EngineKind::Vllm, at: At::Port(8000) }),
            containers: vec!["server".into(), "sidecar".into()],
            grace: Some(Span::secs(90)),
            restart_cost: Some(Span::secs(120)),
            needs: Some(Bytes::mib(16 << 10)),
        };
        assert_eq!((said, mistakes), (expected, Vec::new()));
        assert_eq!(of(&[]), (Annotations::default(), Vec::new()));
    }

    /// A wrong value, and what of it holds and is said.
    fn check(pairs: &[(&str, &str)], holds: &Annotations, says: &str) {
        let (said, mistakes) = of(pairs);
        assert_eq!((&said, mistakes.join(" | ").as_str()), (holds, says), "{pairs:?}");
    }

    #[test]
    fn what_is_wrong_has_its_safe_default_and_is_told() {
        let none = Annotations::default();
        let high = "priority is \"high\", expected a whole number from -2147483648 to 1000000000; the priority of the \
                    pod's PriorityClass holds";
        check(&[("priority", "high")], &none, high);
        for wrong in ["2000000000", "+5", "007", " 5", "5.0", ""] {
            assert_eq!(of(&[("priority", wrong)]).1.len(), 1, "{wrong:?}");
        }
        let avoid = Annotations { preference: Some(Preference::Avoid), ..none.clone() };
        let expected = "preference is \"never\", expected none or avoid or omit; avoid holds";
        check(&[("preference", "never")], &avoid, expected);
        let trim = Annotations { rungs: Some(vec![Rung::Trim]), ..none.clone() };
        let unknown =
            "rungs is \"stop\", expected trim or throttle or offload or freeze or kill; only trim is allowed";
        check(&[("rungs", "stop,pause,kill")], &trim, unknown);
        check(&[("rungs", "kill,kill")], &trim, "rungs names kill twice; only trim is allowed");
        assert_eq!(of(&[("rungs", "")]).0, trim);
        let needs = "needs is \"16G\", expected an amount of memory from 1MiB to 1024TiB, written like 64MiB or 8GiB; \
                     nothing is reserved";
        check(&[("needs", "16G")], &none, needs);
        let typo = "prioritty unknown key, did you mean `priority`?; it has no effect";
        check(&[("prioritty", "5")], &none, typo);
        let long = "x".repeat(LONGEST + 1);
        let says =
            "grace has 1025 bytes, expected at most 1024; the pod's terminationGracePeriodSeconds holds";
        check(&[("grace", &long)], &none, says);
    }

    #[test]
    fn an_engine_is_whole_or_none() {
        let none = Annotations::default();
        let nowhere = "engine does not say where: engine-port or engine-url is missing; no engine is asked";
        check(&[("engine", "vllm")], &none, nowhere);
        let both = [("engine-port", "80"), ("engine-url", "http://localhost:80")];
        let only_one =
            "engine-port is given together with engine-url, of which only one can be; no engine is asked";
        check(&both, &none, only_one);
        // Those that would have to read files or shared memory of the host.
        for kind in ["tfserving", "kvcached", "http", "ray", "localai"] {
            assert_eq!(of(&[("engine", kind), ("engine-port", "80")]).0.engine, None, "{kind}");
        }
        for url in
            ["unix:/run/containerd.sock", "https://localhost:1", "http://localhost", "http://a@b:80", "x"]
        {
            assert_eq!(of(&[("engine-url", url)]).0.engine, None, "{url}");
        }
        let auto = Engine { kind: EngineKind::Auto, at: At::Port(8000) };
        assert_eq!(of(&[("engine-port", "8000")]).0.engine, Some(auto));
    }

    proptest! {
        #[test]
        fn nothing_that_a_pod_says_is_too_strange(
            all in proptest::collection::btree_map(
                "(plimsoll.dev/)?(priority|preference|rungs|engine(-url|-port)?|container|grace|needs|\\PC{0,80})",
                "\\PC{0,80}|[0-9]{1,40}(GiB|s|m)?|[a-z,]{0,2000}|http://.{0,20}:[0-9]{1,6}/.{0,10}|(.|\n){0,30}",
                0..40,
            )
        ) {
            let (said, mistakes) = read(&all);
            prop_assert!(mistakes.len() <= MISTAKES);
            for Mistake { key, why } in &mistakes {
                prop_assert!(key.chars().count() <= 64 && why.len() < 1024, "{key} {why}");
                prop_assert!(!key.chars().chain(why.chars()).any(char::is_control), "{key} {why}");
                let mut fallen = said.clone();
                fallen.fall_back(key);
                prop_assert_eq!(&fallen, &said, "{} has its safe default", key);
            }
        }
    }
}
